/**
 * Real Debian images, made with mmdebstrap, umoci and skopeo: imported from every form, unpacked by every
 * snapshotter, compared file by file with what `umoci unpack` makes of them, deleted, collected.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import type { DB } from '../../src/db.js';
import type { SnapshotterName } from '../../src/db-options.js';
import { exportImages } from '../../src/images/export.js';
import { importImage } from '../../src/images/import.js';
import { unpackImage } from '../../src/images/unpack.js';
import { layout, openDB } from '../../src/open.js';
import type { Image } from '../../src/stores/images.js';
import { missingTools } from '../support/debian.js';
import { madeBy } from '../support/made.js';
import { describeTree, diskUsage, treeDifferences } from '../support/tree.js';

const script = fileURLToPath(new URL('../../../test/real/make-image.sh', import.meta.url));
const ctx = { namespace: 'real' };

const reason =
  process.getuid?.() !== 0
    ? 'making a Debian root file system needs root'
    : missingTools(['mmdebstrap', 'umoci', 'skopeo', 'setfattr']);
if (reason !== undefined) console.log(`real images are not tested: ${reason}`);

function run(command: string, ...args: string[]): void {
  const done = spawnSync(command, args, { encoding: 'utf8', timeout: 180_000 });
  assert.equal(done.status, 0, `${command} ${args.join(' ')}: ${done.stderr}${done.stdout}`);
}

/** Reads the tree of an unpacked image through a view of its top snapshot, mounted. */
async function treeOf(db: DB, snapshotter: SnapshotterName, chainId: string): Promise<Map<string, string>> {
  const store = db.snapshotter(snapshotter)!;
  const mounts = await store.view(ctx, 'look', chainId);
  const tree = await withMounts(mounts, async (dir) => describeTree(dir, { ignoreDirTimes: true }));
  await store.remove(ctx, 'look');
  return tree;
}

describe('real images', { skip: reason ?? false }, () => {
  let dir: string;
  let made: string;
  let expected: Map<string, string>;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'ebbtide-real-'));
    made = madeBy(script);
    run('umoci', 'unpack', '--image', `${join(made, 'layout')}:app`, join(dir, 'bundle'));
    expected = describeTree(join(dir, 'bundle/rootfs'), { ignoreDirTimes: true });
    assert.ok(expected.size > 1000, 'a real root file system');
    const mount = await canMount();
    if (!mount.ok) console.log(`mounts are not permitted: ${mount.reason}`);
  });
  after(() => rm(dir, { recursive: true, force: true }));

  // By native once: it copies the whole tree for every layer, whatever form the layer came in.
  const forms = { overlayfs: ['layout', 'app.docker.tar', 'zstd'], native: ['app.docker.tar'] } as const;
  for (const snapshotter of ['overlayfs', 'native'] as const) {
    for (const form of forms[snapshotter]) {
      test(`${form}, unpacked by ${snapshotter}: the tree is umoci's, and everything goes again`, async (t) => {
        const source = join(made, form);
        if (form === 'zstd' && (await readdir(source).catch(() => [])).length === 0) {
          return t.skip('skopeo made no zstd layers');
        }
        if (!(await canMount()).ok) return t.skip('mounts are not permitted here');
        const root = await mkdtemp(join(dir, 'store-'));
        const db = await openDB({ root, snapshotters: [snapshotter], log: () => {} });
        t.after(() => db.close());
        const used = (): number =>
          diskUsage(layout.content(root)) +
          diskUsage(join(layout.snapshotter(root, snapshotter), 'snapshots'));
        const baseline = used();

        const images = await importImage(db, ctx, source);
        const app = images.find((i) => /app/.test(i.name))!;
        assert.ok(app, `an image called app among ${images.map((i) => i.name)}`);
        const { chainId } = await unpackImage(db, ctx, app, snapshotter);
        assert.deepEqual(treeDifferences(await treeOf(db, snapshotter, chainId), expected), []);

        // A collection keeps all of it, and a second unpack has nothing to do.
        await db.garbageCollect();
        assert.deepEqual(treeDifferences(await treeOf(db, snapshotter, chainId), expected), []);
        assert.equal((await unpackImage(db, ctx, app, snapshotter)).chainId, chainId);

        for (const image of images) await db.images.delete(ctx, image.name);
        const stats = await db.garbageCollect();
        assert.ok(stats.bytesFreed > 50_000_000, `freed ${stats.bytesFreed}`);
        assert.ok(used() - baseline < 100_000, `${used() - baseline} bytes are left on the disk`);
      });
    }
  }

  test('export is byte-identical, and umoci and skopeo can read it', async (t) => {
    const db = await openDB({
      root: await mkdtemp(join(dir, 'store-')),
      snapshotters: ['native'],
      log: () => {},
    });
    t.after(() => db.close());
    const source = join(made, 'layout');
    const images: Image[] = await importImage(db, ctx, source);
    const out = join(dir, 'exported');
    await exportImages(
      db,
      ctx,
      images.map((i) => i.name),
      out,
    );
    const blobs = await readdir(join(source, 'blobs/sha256'));
    assert.deepEqual((await readdir(join(out, 'blobs/sha256'))).sort(), blobs.sort());
    for (const blob of blobs) {
      const [a, b] = await Promise.all([source, out].map((d) => readFile(join(d, 'blobs/sha256', blob))));
      assert.ok(a!.equals(b!), `blob ${blob}`);
    }
    run('skopeo', 'copy', '--quiet', `oci:${source}:app`, `oci:${join(dir, 'again')}:app`);
    const index = JSON.parse(await readFile(join(out, 'index.json'), 'utf8')) as { manifests: unknown[] };
    assert.equal(index.manifests.length, images.length);
  });
});
