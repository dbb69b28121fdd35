/**
 * One real image in every archive form, read by us and by skopeo, umoci, containerd and tar from Debian: which programs take
 * it, and whether the root file system is the one that `umoci unpack` makes of the original. The verdicts are the table in
 * docs/conformance.md. Our own exports stand at its end.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import type { DB } from '../../src/db.js';
import { exportImages } from '../../src/images/export.js';
import { importImage } from '../../src/images/import.js';
import { hostPlatform } from '../../src/images/platforms.js';
import { unpackImage } from '../../src/images/unpack.js';
import { digestOf } from '../../src/model/digest.js';
import { openDB } from '../../src/open.js';
import { Server } from '../conformance/servers.js';
import { missingTools } from '../support/debian.js';
import { describeTree } from '../support/tree.js';
import { optionalForms, TWO_PLATFORMS, writeForms } from './archive-forms.js';

const script = fileURLToPath(new URL('../../../test/real/make-archives.sh', import.meta.url));
const page = fileURLToPath(new URL('../../../docs/conformance.md', import.meta.url));
const columns = ['ebbtide', 'skopeo', 'umoci', 'ctr', 'tar'] as const;
type Column = (typeof columns)[number];
/** The same root file system; another one; not taken; read, where there is no root file system to compare. */
type Verdict = 'same' | 'other' | 'refused' | 'reads' | '–';

const reason =
  process.getuid?.() !== 0
    ? 'making a root file system needs root'
    : hostPlatform().architecture !== 'amd64' || hostPlatform().variant === undefined
      ? 'the table is for a processor of amd64/v2 or later'
      : (missingTools(['umoci', 'skopeo', 'setfattr', 'containerd']) ?? (await mountReason()));
if (reason !== undefined) console.log(`archives are not compared with Debian's tools: ${reason}`);

async function mountReason(): Promise<string | undefined> {
  const mount = await canMount();
  return mount.ok ? undefined : `mounts are not permitted: ${mount.reason}`;
}

function run(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore', timeout: 60_000 }).status === 0;
}

const digestOfTree = (dir: string): string =>
  digestOf(
    Buffer.from([...describeTree(dir, { ignoreDirTimes: true })].map((line) => line.join(' ')).join('\n')),
  );

describe('archives of every form', { skip: reason ?? false }, () => {
  let dir: string;
  let db: DB;
  let containerd: Server;
  let expected: string;
  let files: Map<string, string>;
  let work = 0;
  const fresh = (): string => {
    const path = join(dir, `work-${work++}`);
    mkdirSync(path);
    return path;
  };

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'ebbtide-archives-'));
    const made = spawnSync('bash', [script, join(dir, 'made')], { encoding: 'utf8', timeout: 120_000 });
    assert.equal(made.status, 0, made.stderr);
    expected = rootOfLayout(join(dir, 'made/layout'), 'app')!;
    files = await writeForms(join(dir, 'made'));
    db = await openDB({ root: join(dir, 'store'), snapshotters: ['native'], log: () => {} });
    containerd = await Server.start('containerd', { dir: join(dir, 'containerd') });
    exportByCtr();
    await ourExports();
    const lacking = optionalForms.map(([name]) => name).filter((name) => !files.has(name));
    if (lacking.length > 0) console.log(`not tested without buildah and podman: ${lacking.join(', ')}`);
  });
  after(async () => {
    await db?.close();
    await containerd?.stop();
    await rm(dir, { recursive: true, force: true });
  });

  /** Of one platform ctr writes the whole index, and the other's blobs not. */
  function exportByCtr(): void {
    const ctr = ['--address', containerd.address, '--namespace', 'exports', 'images'];
    const name = 'example.com/two:app';
    const source = files.get(TWO_PLATFORMS)!;
    assert.ok(
      run(
        'ctr',
        ...ctr,
        'import',
        '--all-platforms',
        '--no-unpack',
        '--base-name',
        'example.com/two',
        source,
      ),
    );
    for (const [what, file, ...flags] of [
      ['`ctr images export` of one platform of two', 'ctr-one.tar', '--platform', 'linux/amd64'],
      ['`ctr images export --all-platforms`', 'ctr-all.tar', '--all-platforms'],
    ] as const) {
      files.set(what, join(dir, file));
      assert.ok(run('ctr', ...ctr, 'export', ...flags, join(dir, file), name), what);
    }
  }

  async function ourExports(): Promise<void> {
    const ctx = { namespace: 'exports' };
    const layout = join(dir, 'made/layout');
    for (const [name, source, file] of [
      ['our export of an image', layout, 'single.tar'],
      ['our export of what came as a docker archive', files.get('`skopeo` docker-archive')!, 'docker.tar'],
    ] as const) {
      const [image] = await importImage(db, ctx, source, { baseName: 'example.com/real/app' });
      files.set(name, join(dir, file));
      await exportImages(db, ctx, [image!.name], join(dir, file));
    }
    const index = files.get('an index of the image, its attestation and an artifact')!;
    const [multi] = await importImage(db, ctx, index, { baseName: 'example.com/multi' });
    files.set('our export of one platform of an index', join(dir, 'platform.tar'));
    await exportImages(db, ctx, [multi!.name], join(dir, 'platform.tar'), {
      platform: { os: 'linux', architecture: 'amd64' },
    });
  }

  const verdict = (tree: string | undefined): Verdict =>
    tree === undefined ? 'refused' : tree === expected ? 'same' : 'other';

  /** Root file system of an image in a layout, as umoci unpacks it. */
  function rootOfLayout(layout: string, tag: string): string | undefined {
    const bundle = join(fresh(), 'bundle');
    return run('umoci', 'unpack', '--image', `${layout}:${tag}`, bundle)
      ? digestOfTree(join(bundle, 'rootfs'))
      : undefined;
  }

  const readers: Record<Column, (file: string) => Verdict | Promise<Verdict>> = {
    async ebbtide(file) {
      const ctx = { namespace: `ours-${work++}` };
      try {
        const [image] = await importImage(db, ctx, file);
        const { chainId } = await unpackImage(db, ctx, image!, 'native');
        const mounts = await db.snapshotter('native')!.view(ctx, 'look', chainId);
        return verdict(await withMounts(mounts, async (root) => digestOfTree(root)));
      } catch {
        return 'refused';
      }
    },
    skopeo(file) {
      const place = fresh();
      const tag = tagOf(file);
      const sources = [
        ...(tag === undefined ? [] : [`oci-archive:${file}:${tag}`]),
        `docker-archive:${file}`,
        // The first of several images.
        `docker-archive:${file}:@0`,
      ];
      const [plain, layout] = [`docker-archive:${place}/plain.tar`, `oci:${place}/layout:app`];
      const copy = (from: string, to: string): boolean => run('skopeo', 'copy', '--quiet', from, to);
      if (sources.some((source) => copy(source, `${plain}:x/y:z`))) {
        assert.ok(copy(plain, layout));
        return verdict(rootOfLayout(join(place, 'layout'), 'app'));
      }
      // skopeo does not unfold zstd for Docker, and umoci not at all.
      return sources.some((source) => copy(source, layout)) ? 'reads' : 'refused';
    },
    umoci(file) {
      const tag = tagOf(file);
      if (tag === undefined) return '–';
      const layout = fresh();
      assert.ok(run('tar', '-C', layout, '-xf', file));
      return verdict(rootOfLayout(layout, tag));
    },
    async ctr(file) {
      const ctr = ['--address', containerd.address, '--namespace', `ctr-${work++}`];
      if (
        !run(
          'ctr',
          ...ctr,
          'images',
          'import',
          '--snapshotter',
          'native',
          '--base-name',
          'example.com/real/app',
          file,
        )
      )
        return 'refused';
      const { stdout } = spawnSync('ctr', [...ctr, 'images', 'ls', '-q'], { encoding: 'utf8' });
      const name = stdout.split('\n').find((line) => !line.startsWith('sha256:') && line !== '');
      const target = fresh();
      if (
        name === undefined ||
        !run('ctr', ...ctr, 'images', 'mount', '--snapshotter', 'native', name, target)
      )
        return 'refused';
      const tree = digestOfTree(target);
      assert.ok(run('umount', target));
      return verdict(tree);
    },
    tar: (file) => (run('tar', '-tf', file) ? 'reads' : 'refused'),
  };

  /** The tag that a layout has; undefined for an archive that is none. */
  function tagOf(file: string): string | undefined {
    const index = spawnSync('tar', ['-xOf', file, '--wildcards', '*index.json'], { encoding: 'utf8' }).stdout;
    return /"org\.opencontainers\.image\.ref\.name":"([^"]*)"/.exec(index)?.[1];
  }

  test('ours takes all of them, with the same files; the others as the page says', async () => {
    const rows: string[] = [];
    for (const [name, file] of files) {
      const verdicts: Verdict[] = [];
      for (const column of columns) verdicts.push(await readers[column](file));
      rows.push(`| ${name} | ${verdicts.join(' | ')} |`);
      assert.equal(verdicts[0], 'same', name);
    }
    const text = readFileSync(page, 'utf8');
    const missing = rows.filter((row) => !text.includes(row));
    assert.deepEqual(missing, [], `rows that docs/conformance.md lacks:\n${missing.join('\n')}`);
  });

  test('a directory export is read by umoci as it is', async () => {
    const ctx = { namespace: 'exports' };
    const out = join(dir, 'directory');
    await exportImages(db, ctx, ['example.com/real/app:app'], out);
    assert.ok(readdirSync(out).includes('manifest.json'));
    assert.equal(rootOfLayout(out, 'app'), expected);
  });
});
