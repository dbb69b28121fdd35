/**
 * A real containerd that runs: what the verbs say of its root is what `ctr` says, what they predict happens, the commands that they
 * print do what they say, and nothing of theirs is left there. The `containerd` and `ctr` of PATH: those of Debian unless others are
 * put in front.
 */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf } from '../../src/model/digest.js';
import { checkDocument } from '../cli/schema.js';
import { type Ended, MAIN } from '../cli/support.js';
import { ensurePackages } from '../conformance/debian.js';
import { Server } from '../conformance/servers.js';
import { Blobs, type MadeImage, named, tarOfFiles } from '../images/fixtures.js';
import { tempDir } from '../support/temp.js';

const missing = process.getuid?.() === 0 ? ensurePackages(['containerd']) : 'needs root: containerd does';
const skip = missing ?? false;
if (skip) console.log(`no real containerd is looked into: ${skip}`);

const ONE = 'example.com/one:1';
const TWO = 'example.com/two:1';

interface Orphans {
  orphans: { reason: string; kind: string; namespace: string; key: string; command: string }[];
  young: number;
}

describe('beside a running containerd', { skip }, () => {
  let server: Server;
  let one: MadeImage;
  let two: MadeImage;

  const run = (program: string, args: readonly string[], input = ''): Ended => {
    const env = { ...process.env, CONTAINERD_ADDRESS: server.address };
    const { status, signal, stdout, stderr }: SpawnSyncReturns<string> = spawnSync(program, args, {
      encoding: 'utf8',
      env,
      input,
    });
    return { code: status, signal, stdout, stderr };
  };
  const ok = (program: string, args: readonly string[], input?: string): string => {
    const { code, stdout, stderr } = run(program, args, input);
    assert.equal(code, 0, `${program} ${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  const ctr = (...args: string[]): string => ok('ctr', args);
  const ebbtide = (...args: string[]): Ended =>
    run(process.execPath, [MAIN, '--containerd-root', server.root, ...args]);
  const jsonOf = <T>(...args: string[]): T => {
    const { code, stdout, stderr } = ebbtide(...args, '--json');
    assert.deepEqual([code, stderr], [0, ''], args.join(' '));
    const document: unknown = JSON.parse(stdout);
    checkDocument(args, document);
    return document as T;
  };
  const orphans = () => jsonOf<Orphans>('orphans', '--older-than', '0s').orphans;
  const content = (...path: string[]): string =>
    join(server.root, 'io.containerd.content.v1.content', ...path);
  const snapshots = (...path: string[]): string =>
    join(server.root, 'io.containerd.snapshotter.v1.overlayfs', 'snapshots', ...path);
  const blob = (digest: string): string => content('blobs', digest.replace(':', '/'));
  const columns = (text: string, n = 0): string[] =>
    text
      .trimEnd()
      .split('\n')
      .slice(1)
      .map((line) => line.split(/\s+/)[n]!)
      .sort();

  before(async () => {
    const dir = await tempDir();
    server = await Server.start('containerd', { dir });
    const blobs = new Blobs();
    const base = [
      { name: 'etc', type: 'directory' as const },
      { name: 'etc/base', text: 'b'.repeat(50_000) },
    ];
    one = await blobs.image([base, [{ name: 'one', text: '1'.repeat(9000) }]]);
    two = await blobs.image([base, [{ name: 'two', text: '2'.repeat(5000) }]]);
    const archive = join(dir, 'images.tar');
    const entries = [named(one.manifest, ONE), named(two.manifest, TWO)];
    writeFileSync(archive, await tarOfFiles(blobs.layout(entries)));
    ctr('-n', 'k8s.io', 'images', 'import', '--all-platforms', archive);
    ctr('-n', 'k8s.io', 'containers', 'create', '--snapshotter', 'overlayfs', '--label', 'a=b', ONE, 'web');
    ctr('-n', 'k8s.io', 'leases', 'create', '--id', 'held');
    ctr('-n', 'other', 'images', 'import', '--no-unpack', archive);
    // Cut off, as a pull that is interrupted.
    const upload = spawn('ctr', ['-a', server.address, '-n', 'other', 'content', 'ingest', 'cut-off'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    upload.stdin.on('error', () => undefined);
    upload.stdin.write(Buffer.alloc(4 << 20));
    const data = content('ingest', digestOf(Buffer.from('other/1/cut-off')).slice('sha256:'.length), 'data');
    for (let n = 0; n < 500 && (statSync(data, { throwIfNoEntry: false })?.size ?? 0) < 1 << 20; n++)
      await sleep(20);
    upload.kill('SIGKILL');
    await once(upload, 'exit');
  });
  after(() => server?.stop());

  test('then lists are as ctr has them, of all namespaces or of one', () => {
    const of = <T extends { namespace?: string }>(rows: T[], namespace: string): T[] =>
      rows.filter((row) => row.namespace === namespace);
    const names = (rows: object[], field: string): string[] =>
      rows.map((row) => String((row as Record<string, unknown>)[field])).sort();
    for (const [list, field] of [
      ['images', 'name'],
      ['content', 'digest'],
      ['snapshots', 'key'],
      ['containers', 'id'],
      ['leases', 'id'],
    ] as const) {
      const rows = jsonOf<{ namespace: string }[]>(list, 'ls');
      for (const namespace of ['k8s.io', 'other'])
        assert.deepEqual(
          names(of(rows, namespace), field),
          columns(ctr('-n', namespace, list, 'ls')),
          `${namespace} ${list}`,
        );
    }
    assert.deepEqual(names(jsonOf('-n', 'other', 'images', 'ls'), 'name'), [ONE, TWO]);
    assert.deepEqual(jsonOf('namespaces', 'ls'), [
      { name: 'k8s.io', labels: {} },
      { name: 'other', labels: {} },
    ]);
    const [ingest] = jsonOf<{ ref: string; offset: number }[]>('content', 'ls', '--ingests');
    assert.equal(ingest?.ref, 'cut-off');
    assert.ok(ingest.offset >= 1 << 20);
  });

  test('then why, du and the sizes of images follow what containerd refers to', () => {
    const paths = (object: string): string[][] =>
      jsonOf<{ paths: { kind: string; key: string }[][] }>('-n', 'k8s.io', 'why', object, '--all').paths.map(
        (path) => path.map(({ kind, key }) => `${kind} ${key}`),
      );
    const layer = one.layers[1]!.digest;
    assert.deepEqual(paths(layer), [[`image ${ONE}`, `content ${one.manifest.digest}`, `content ${layer}`]]);
    const web = paths('overlayfs/web');
    assert.deepEqual(web, [['container web', 'snapshot overlayfs/web']]);
    assert.match(ebbtide('why', ONE).stderr, /several namespaces have .*: k8s\.io, other/);

    const usage = jsonOf<{
      rows: { kind: string; name: string; namespace: string; total: number }[];
      disk: object;
    }>('du');
    const rows = usage.rows.map(({ kind, namespace, name }) => `${kind} ${namespace} ${name}`).sort();
    assert.deepEqual(rows, [
      'container k8s.io web',
      `image k8s.io ${ONE}`,
      `image k8s.io ${TWO}`,
      `image other ${ONE}`,
      `image other ${TWO}`,
      'ingest other cut-off',
      'lease k8s.io held',
    ]);
    const { lines, total } = usage.disk as { lines: Record<string, number>; total: number };
    const du = Number(ok('du', ['-s', '-B1', server.root]).split('\t')[0]);
    assert.equal(total, du);
    assert.ok(lines.unfinished! >= 1 << 20);
    assert.equal(
      Object.values(lines).reduce((sum, n) => sum + n, 0),
      total,
    );
    const { stdout } = ebbtide('export-graph');
    const picture = JSON.parse(stdout) as { bytes: number; disk: { lines: object; total: number } };
    assert.deepEqual([picture.bytes, picture.disk.total], [total - lines.elsewhere!, total]);
    assert.deepEqual(picture.disk.lines, lines);
  });

  test('then what writes is refused, and no file is changed by anything', async (t) => {
    const exported = await tempDir(t);
    const state = (): string =>
      ok('find', [server.root, '-printf', '%p %y %s %T@ %C@ %m %U\n']).split('\n').sort().join('\n');
    const before = state();
    for (const args of [['images', 'rm', ONE], ['snapshots', 'prepare', 'x'], ['gc'], ['init']]) {
      const { code, stderr } = ebbtide('-n', 'k8s.io', ...args);
      assert.deepEqual(
        [code, /is refused: .* is another program's, and is only read/.test(stderr)],
        [5, true],
        stderr,
      );
    }
    const { code, stderr } = ebbtide('serve');
    assert.deepEqual([code, /does not work on another program's root/.test(stderr)], [2, true], stderr);
    for (const args of [
      ['du'],
      ['orphans'],
      ['gc', '--dry-run', '--full'],
      ['verify', '--hash'],
      ['images', 'ls'],
      ['export-graph', '--format', 'ncdu'],
      ['view', '-o', join(exported, 'view.html')],
    ])
      assert.equal(ebbtide(...args).code, 0, args.join(' '));
    assert.equal(
      ok(process.execPath, [
        MAIN,
        '--containerd-root',
        server.root,
        '-n',
        'k8s.io',
        'content',
        'cat',
        one.config.digest,
      ]).includes('rootfs'),
      true,
    );
    const archive = join(exported, 'one.tar');
    assert.equal(ebbtide('-n', 'k8s.io', 'export', ONE, '-o', archive).code, 0);
    const importing = ['--root', join(exported, 'store'), 'import', archive, '--unpack', 'native', '--json'];
    const [again] = JSON.parse(ok(process.execPath, [MAIN, ...importing])) as {
      target: { digest: string };
    }[];
    assert.equal(again?.target.digest, one.manifest.digest);
    assert.equal(state(), before);
  });

  test('then a file of a layer that an unclean stop emptied is found, and healed', async (t) => {
    const path = ok('find', [snapshots(), '-path', '*/fs/etc/base']).trim();
    const text = readFileSync(path);
    truncateSync(path, 0);
    const { code, stdout } = ebbtide('verify', '--json');
    const into = join(await tempDir(t), 'healed');
    const [layer, ...more] = jsonOf<{ path: string; healed: string; command: string }[]>('heal', '-o', into);
    assert.deepEqual([more, layer?.path], [[], path.slice(0, -'/etc/base'.length)]);
    assert.ok(readFileSync(join(layer!.healed, 'etc/base')).equals(text));
    assert.equal(statSync(path).size, 0);
    ok('sh', ['-c', layer!.command]);
    rmSync(`${layer!.path}.damaged`, { recursive: true });
    assert.equal(readFileSync(path).length, text.length);
    const { findings, checked } = JSON.parse(stdout) as { findings: object[]; checked: { layers: number } };
    assert.equal(code, 5);
    assert.equal(checked.layers, 3);
    const [{ kind, path: where, expected, found } = {}, ...others] = findings as Record<string, string>[];
    assert.deepEqual([kind, where, expected, found], ['file-size', path, '50000 bytes', '0 bytes']);
    assert.deepEqual(others, []);
    assert.equal(ebbtide('verify').code, 0);
  });

  test('then layers of the native snapshotter are healed, which have copies of those below', async (t) => {
    const native = ['-n', 'k8s.io', 'snapshots', '--snapshotter', 'native'];
    const directory = join(server.root, 'io.containerd.snapshotter.v1.native', 'snapshots');
    ctr('-n', 'k8s.io', 'snapshots', 'unpack', '--snapshotter', 'native', one.manifest.digest);
    const upper = ok('find', [directory, '-name', 'one']).trim();
    const copies = ok('find', [directory, '-path', '*/etc/base']).trim().split('\n');
    const lower = copies.find((path) => dirname(dirname(path)) !== dirname(upper)) ?? '';
    rmSync(upper);
    truncateSync(lower, 0);
    const into = join(await tempDir(t), 'healed');
    const layers = jsonOf<{ path: string; command: string }[]>('heal', '-o', into);
    assert.deepEqual(layers.map(({ path }) => path).sort(), [dirname(dirname(lower)), dirname(upper)].sort());
    for (const { path, command } of layers) {
      ok('sh', ['-c', command]);
      rmSync(`${path}.damaged`, { recursive: true });
    }
    assert.equal(readFileSync(upper, 'utf8'), '1'.repeat(9000));
    for (const path of copies) assert.equal(readFileSync(path, 'utf8'), 'b'.repeat(50_000));
    assert.equal(ebbtide('verify').code, 0);
    const names = columns(ctr(...native, 'ls'));
    for (const name of [...names, ...names]) run('ctr', [...native, 'rm', name]);
    assert.deepEqual(columns(ctr(...native, 'ls')), []);
  });

  test('then a collection removes what the dry run said', () => {
    ctr('-n', 'k8s.io', 'images', 'rm', TWO);
    // Which 2.0 and later collect, and earlier ones do not.
    ctr('-n', 'other', 'images', 'label', TWO, 'containerd.io/gc.expire=2001-02-03T04:05:06Z');
    const theirs = (): string[] =>
      ['k8s.io', 'other'].flatMap((namespace) =>
        Object.entries({
          images: 'image',
          content: 'content',
          snapshots: 'snapshot',
          containers: 'container',
        }).flatMap(([list, kind]) =>
          columns(ctr('-n', namespace, list, 'ls')).map(
            (name) => `${kind} ${namespace} ${kind === 'snapshot' ? 'overlayfs/' : ''}${name}`,
          ),
        ),
      );
    const before = theirs();
    const { wouldRemove } = jsonOf<{ wouldRemove: { kind: string; namespace: string; key: string }[] }>(
      'gc',
      '--dry-run',
    );
    const goes = new Set(wouldRemove.map(({ kind, namespace, key }) => `${kind} ${namespace} ${key}`));
    assert.ok(goes.has(`content k8s.io ${two.manifest.digest}`));
    const plan = orphans().find(
      ({ key, namespace }) => key === two.manifest.digest && namespace === 'k8s.io',
    );
    assert.equal(plan?.reason, 'nothing roots it');
    ok('sh', ['-c', plan.command]);
    assert.deepEqual(
      theirs(),
      before.filter((one) => !goes.has(one)),
    );
    assert.deepEqual(orphans(), []);
  });

  test('then orphans of every kind are found, and go by what they say to type', () => {
    const stray = digestOf(Buffer.from('stray'));
    writeFileSync(blob(stray), 'stray');
    const upload = content('ingest', digestOf(Buffer.from('other/7/gone')).slice('sha256:'.length));
    mkdirSync(upload);
    for (const [name, text] of Object.entries({
      ref: 'other/7/gone',
      data: 'x',
      startedat: '2001-02-03T04:05:06Z',
      updatedat: '2001-02-03T04:05:06Z',
    }))
      writeFileSync(join(upload, name), text);
    mkdirSync(snapshots('4711', 'fs'), { recursive: true });
    mkdirSync(snapshots('new-123'));
    rmSync(blob(one.layers[1]!.digest));
    ctr('-n', 'other', 'leases', 'create', '--id', 'old', '--expires', '1ns');
    // Of one second of the file system's clock or less, these are made now.
    utimesSync(blob(stray), 1, 1);
    const found = orphans().map(({ reason, kind, namespace, key: name }) =>
      [reason, kind, namespace, name].join('|'),
    );
    const lost = one.layers[1]!.digest;
    assert.deepEqual(found.sort(), [
      'expired|lease|other|old',
      `no bytes|content|k8s.io|${lost}`,
      `no bytes|content|other|${lost}`,
      `no record|content||${stray}`,
      'no record|ingest||other/7/gone',
      'no snapshot has it|directory||overlayfs/4711',
      'no snapshot has it|directory||overlayfs/new-123',
    ]);
    const young = jsonOf<Orphans>('orphans');
    assert.ok(young.young > 0 && young.orphans.some(({ key }) => key === stray));
    const check = ebbtide('check');
    assert.deepEqual([check.code, check.stdout.includes('blob-missing')], [5, true]);

    for (const command of new Set(orphans().map(({ command }) => command))) ok('sh', ['-c', command]);
    assert.deepEqual(orphans(), []);
    for (const path of [blob(stray), upload])
      assert.equal(statSync(path, { throwIfNoEntry: false }), undefined, path);
    assert.equal(
      readdirSync(snapshots()).some((name) => name === '4711' || name === 'new-123'),
      false,
    );
  });

  /** What containerd itself says that it has. */
  const all = (): string =>
    ['k8s.io', 'other']
      .flatMap((namespace) =>
        ['images', 'content', 'snapshots', 'containers', 'leases'].map((list) =>
          ctr('-n', namespace, list, 'ls').replace(
            /About a minute|Less than a second|\d+ (seconds?|minutes?)/g,
            '',
          ),
        ),
      )
      .flatMap((text) => text.split('\n'))
      // Labels come in any order.
      .map((line) => line.split(/[\t,]/).sort().join(' '))
      .join('\n');

  const metadata = (): string => join(server.root, 'io.containerd.metadata.v1.bolt', 'meta.db');
  /** With a file in the place of its metadata. */
  const startWith = async (file: string): Promise<void> => {
    await server.stop();
    copyFileSync(file, metadata());
    await server.start();
  };

  test('then its metadata is compacted while it runs, and it starts on the small file', async (t) => {
    const small = join(await tempDir(t), 'meta.db');
    const before = all();
    const { beforeBytes, afterBytes } = jsonOf<{ beforeBytes: number; afterBytes: number }>(
      'compact',
      '-o',
      small,
    );
    assert.ok(afterBytes < beforeBytes);
    const again = ebbtide('compact', '-o', small);
    assert.deepEqual([again.code, /is a .* already/.test(again.stderr)], [4, true], again.stderr);
    const inside = ebbtide('compact', '-o', join(server.root, 'small.db'));
    assert.deepEqual([inside.code, /is only read/.test(inside.stderr)], [5, true], inside.stderr);
    await startWith(small);
    assert.equal(all(), before);
    ctr('-n', 'k8s.io', 'images', 'label', ONE, 'after=compaction');
    assert.match(ctr('-n', 'k8s.io', 'images', 'ls'), /after=compaction/);
  });

  test('then metadata that does not open any more is salvaged, and it starts on the new file', async (t) => {
    const dir = await tempDir(t);
    const before = all();
    await server.stop();
    const file = readFileSync(metadata());
    // Both meta pages, which is the end of it for bbolt.
    file.fill(0xff, 0, 8192);
    writeFileSync(metadata(), file);
    await server.start();
    assert.notEqual(run('ctr', ['-n', 'k8s.io', 'images', 'ls']).code, 0);
    await server.stop();
    const made = join(dir, 'meta.db');
    const { records, isNewest } = jsonOf<{
      records: { current: number; older: number }[];
      isNewest: boolean;
    }>('salvage', '-o', made);
    assert.equal(isNewest, false);
    assert.ok(records.length > 5);
    assert.ok(readFileSync(metadata()).equals(file));
    await startWith(made);
    assert.equal(all(), before);
    // What gives numbers goes on where it was.
    ctr('-n', 'k8s.io', 'snapshots', '--snapshotter', 'overlayfs', 'prepare', 'new', '');
    ctr('-n', 'k8s.io', 'snapshots', '--snapshotter', 'overlayfs', 'rm', 'new');
    ctr('-n', 'k8s.io', 'images', 'rm', '--sync', ONE);
  });
});
