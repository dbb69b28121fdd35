/** Layers of one image that are unpacked at once: the result is that of one after the other, however it ends. */
import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { sys } from '../../src/backends/sys.js';
import type { DB } from '../../src/db.js';
import { isKind } from '../../src/errors.js';
import { importImage } from '../../src/images/import.js';
import { takeInOrder } from '../../src/images/layers/ahead.js';
import type { ImageServices, LayerSnapshotter } from '../../src/images/services.js';
import { chainIds, unpackImage } from '../../src/images/unpack.js';
import type { Image } from '../../src/stores/images.js';
import { type Item, treeOf } from '../archive/support.js';
import { smallDisk } from '../environment/small-disk.js';
import { tempDir, testDB } from '../support/db.js';
import { Blobs, type MadeImage, named, writeFiles } from './fixtures.js';

const ctx = { namespace: 'unpack' };
const mountable = await canMount();
const skip = !sys.xattrSupported
  ? 'the native helper for extended attributes is not built'
  : !mountable.ok && `mounts are not permitted: ${mountable.reason}`;

/** Some need what is below, others do not. */
const layers: Item[][] = [
  [
    { name: 'etc', type: 'directory', mode: 0o750 },
    { name: 'etc/a', text: 'a' },
    { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
    { name: 'usr/lib', type: 'directory' },
  ],
  [{ name: 'etc/.wh.a' }, { name: 'etc/c', text: 'c' }],
  [{ name: 'lib/x', text: 'through a symlink' }],
  [{ name: 'etc/d', type: 'link', linkname: 'etc/c' }],
  [
    { name: 'var', type: 'directory' },
    { name: 'var/e', text: 'e' },
  ],
  [{ name: 'etc', type: 'directory' }, { name: 'etc/.wh..wh..opq' }, { name: 'etc/f', text: 'f' }],
];
const wanted = {
  etc: 'dir',
  'etc/f': 'f',
  lib: '-> usr/lib',
  usr: 'dir',
  'usr/lib': 'dir',
  'usr/lib/x': 'through a symlink',
  var: 'dir',
  'var/e': 'e',
};

async function imported(t: TestContext, db: DB, items = layers): Promise<{ image: Image; made: MadeImage }> {
  const blobs = new Blobs();
  const made = await blobs.image(items);
  const dir = await writeFiles(await tempDir(t), blobs.layout([named(made.manifest, 'example.com/app:1')]));
  return { image: (await importImage(db, ctx, dir))[0]!, made };
}

async function snapshotKeys(db: DB): Promise<string[]> {
  const keys: string[] = [];
  await db.snapshotter('overlayfs')!.walk(ctx, ({ kind, name }) => void keys.push(`${kind} ${name}`));
  return keys.sort();
}

async function treeIn(db: DB, chainId: string): Promise<Record<string, string>> {
  const store = db.snapshotter('overlayfs')!;
  const mounts = await store.view(ctx, 'look', chainId);
  const tree = await withMounts(mounts, (dir) => treeOf(dir));
  await store.remove(ctx, 'look');
  return tree;
}

/** The services of a DB with some calls of its snapshotter changed. */
function changed(db: DB, change: (real: LayerSnapshotter) => Partial<LayerSnapshotter>): ImageServices {
  const real = db.snapshotter('overlayfs')!;
  const snapshotter: LayerSnapshotter = {
    rebases: real.rebases,
    stat: (...args) => real.stat(...args),
    prepare: (...args) => real.prepare(...args),
    commit: (...args) => real.commit(...args),
    remove: (...args) => real.remove(...args),
    ...change(real),
  };
  return { content: db.content, images: db.images, leases: db.leases, snapshotter: () => snapshotter };
}

/** No lease, nothing unfinished, and after a collection nothing at all but what `kept` names. */
async function leftNothing(db: DB, kept: readonly string[] = []): Promise<void> {
  assert.deepEqual(await db.leases.list(ctx), []);
  assert.ok(!(await snapshotKeys(db)).some((key) => !key.startsWith('committed')));
  await db.garbageCollect();
  assert.deepEqual(await snapshotKeys(db), kept);
}

describe('layers at once', { skip }, () => {
  for (const layersAtOnce of [1, 2, 3, 16]) {
    test(`given ${layersAtOnce} at once, names, chain, parents, sizes and tree are the same`, async (t) => {
      const db = await testDB(t, { snapshotters: ['overlayfs'] });
      const { image, made } = await imported(t, db);
      const store = db.snapshotter('overlayfs')!;
      let atOnce = 0;
      let most = 0;
      const services = changed(db, (real) => ({
        prepare: async (c, key, parent, options) => {
          const mounts = await real.prepare(c, key, parent, options);
          if (options !== undefined) most = Math.max(most, ++atOnce);
          return mounts;
        },
        commit: (...args) => real.commit(...args).finally(() => atOnce--),
        remove: (...args) => real.remove(...args).finally(() => atOnce--),
      }));
      const { chainId, applied, skipped } = await unpackImage(services, ctx, image, 'overlayfs', {
        layersAtOnce,
      });
      const chain = chainIds(made.diffIds);
      assert.deepEqual([chainId, applied, skipped], [chain[5], 6, { owners: 0, devices: 0, xattrs: 0 }]);
      assert.ok(layersAtOnce === 1 ? most === 1 : most > 1, `${most} were under way`);
      assert.deepEqual(await treeIn(db, chainId), wanted);
      const kept = chain.map((id) => `committed ${id}`).sort();
      for (const [i, id] of chain.entries()) {
        const { parent, labels } = await store.stat(ctx, id);
        assert.deepEqual([parent, labels], [chain[i - 1] ?? '', { 'containerd.io/snapshot.ref': id }]);
      }
      const inodes = await Promise.all(chain.map(async (id) => (await store.usage(ctx, id)).inodes));
      assert.deepEqual(inodes, [6, 4, 4, 3, 3, 3]);
      await leftNothing(db, kept);
    });
  }

  test('given a layer in the middle that is not what its config says, nothing of the image stays', async (t) => {
    const db = await testDB(t, { snapshotters: ['overlayfs'] });
    const blobs = new Blobs();
    const made = await blobs.image(layers);
    const config = JSON.parse(String(blobs.all.get(made.config.digest)));
    config.rootfs.diff_ids[3] = made.diffIds[0];
    const other = blobs.add(made.config.mediaType, config);
    const manifest = JSON.parse(String(blobs.all.get(made.manifest.digest)));
    const bad = blobs.add(made.manifest.mediaType, { ...manifest, config: other });
    const dir = await writeFiles(await tempDir(t), blobs.layout([named(bad, 'example.com/bad:1')]));
    const [image] = await importImage(db, ctx, dir);
    await assert.rejects(unpackImage(db, ctx, image!, 'overlayfs', { layersAtOnce: 3 }), (e) =>
      isKind(e, 'InvalidArgument'),
    );
    await leftNothing(db);
  });

  test('given a commit in the middle that fails, its error is thrown, and nothing unfinished stays', async (t) => {
    const db = await testDB(t, { snapshotters: ['overlayfs'] });
    const { image } = await imported(t, db);
    let commits = 0;
    const services = changed(db, (real) => ({
      commit: (...args) =>
        ++commits === 3 ? Promise.reject(new Error('disk on fire')) : real.commit(...args),
    }));
    await assert.rejects(unpackImage(services, ctx, image, 'overlayfs', { layersAtOnce: 4 }), /disk on fire/);
    await leftNothing(db);
  });

  test('given an end in the middle, nothing unfinished stays, and the next attempt goes on', async (t) => {
    const db = await testDB(t, { snapshotters: ['overlayfs'] });
    const { image, made } = await imported(t, db);
    const control = new AbortController();
    const services = changed(db, (real) => ({
      commit: async (...args) => {
        await real.commit(...args);
        if (args[1] === chainIds(made.diffIds)[1]) control.abort();
      },
    }));
    const signal = control.signal;
    const running = unpackImage(services, { ...ctx, signal }, image, 'overlayfs', { layersAtOnce: 4 });
    await assert.rejects(running, (e) => isKind(e, 'Canceled'));
    assert.ok(!(await snapshotKeys(db)).some((key) => key.startsWith('active')));
    await db.garbageCollect();
    assert.equal((await unpackImage(db, ctx, image, 'overlayfs', { layersAtOnce: 4 })).applied, 4);
  });

  test('given other callers that unpack the same, each layer is made once, and all have the image', async (t) => {
    const db = await testDB(t, { snapshotters: ['overlayfs'] });
    const { image } = await imported(t, db);
    const all = await Promise.all(
      [1, 2, 3, 4].map((layersAtOnce) => unpackImage(db, ctx, image, 'overlayfs', { layersAtOnce })),
    );
    assert.equal(
      all.reduce((sum, { applied }) => sum + applied, 0),
      6,
    );
    assert.deepEqual(await treeIn(db, all[0]!.chainId), wanted);
    assert.equal((await snapshotKeys(db)).length, 6);
    assert.deepEqual(await db.leases.list(ctx), []);
  });

  test('given a disk that fills up, it is Unavailable and nothing unfinished stays', async (t) => {
    const disk = await smallDisk(t, 'tmpfs', 'bytes');
    if (disk === undefined) return;
    const db = await testDB(t, { root: disk.path, snapshotters: ['overlayfs'] });
    const large = [1, 2, 3, 4].map((n): Item[] => [{ name: `${n}`, text: Buffer.alloc(20 * 2 ** 20) }]);
    const { image } = await imported(t, db, large);
    await assert.rejects(unpackImage(db, ctx, image, 'overlayfs', { layersAtOnce: 3 }), (e) =>
      isKind(e, 'Unavailable'),
    );
    await leftNothing(db);
  });

  test('given a number of layers that makes no sense, it is refused', async (t) => {
    const db = await testDB(t, { snapshotters: ['overlayfs'] });
    const { image } = await imported(t, db);
    for (const layersAtOnce of [0, 17, 1.5]) {
      await assert.rejects(unpackImage(db, ctx, image, 'overlayfs', { layersAtOnce }), (e) =>
        isKind(e, 'InvalidArgument'),
      );
    }
  });
});

test('given items whose results are taken in order, no more are begun, or under way, than allowed', async () => {
  let underWay = 0;
  let begun = 0;
  const seen: number[] = [];
  const most = { underWay: 0, waiting: 0 };
  await takeInOrder(
    Array.from({ length: 30 }, (_, i) => i),
    { atOnce: 3, begun: 5 },
    undefined,
    async (i) => {
      begun++;
      most.underWay = Math.max(most.underWay, ++underWay);
      for (let turns = i % 7; turns > 0; turns--) await new Promise(setImmediate);
      underWay--;
      return i;
    },
    async () => assert.fail('nothing is left'),
    async (item, result) => {
      assert.equal(item, result);
      most.waiting = Math.max(most.waiting, begun - seen.length);
      seen.push(item);
    },
  );
  assert.deepEqual([most.underWay, most.waiting, seen.length], [3, 5, 30]);
});
