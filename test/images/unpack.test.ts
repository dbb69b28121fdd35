import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { describe, type TestContext, test } from 'node:test';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { sys } from '../../src/backends/sys.js';
import type { DB } from '../../src/db.js';
import { EbbtideError, isKind, isNotFound } from '../../src/errors.js';
import { importImage } from '../../src/images/import.js';
import type { ImageServices, LayerSnapshotter } from '../../src/images/services.js';
import { chainIds, unpackImage } from '../../src/images/unpack.js';
import { digestOf } from '../../src/model/digest.js';
import type { Image } from '../../src/stores/images.js';
import { type Item, treeOf } from '../archive/support.js';
import { tempDir, testDB } from '../support/db.js';
import { Blobs, type Desc, type MadeImage, named, OCI_CONFIG, OCI_MANIFEST, writeFiles } from './fixtures.js';

const ctx = { namespace: 'unpack' };
const layers: Item[][] = [
  [
    { name: 'etc', type: 'directory' },
    { name: 'etc/a', text: 'a' },
    { name: 'etc/b', text: 'b' },
  ],
  [{ name: 'etc/.wh.a' }, { name: 'etc/c', text: 'c' }],
  [{ name: 'etc', type: 'directory' }, { name: 'etc/.wh..wh..opq' }, { name: 'etc/d', text: 'd' }],
];
const wanted = { etc: 'dir', 'etc/d': 'd' };

const mountable = await canMount();
const noOverlay = !sys.xattrSupported
  ? 'the native helper for extended attributes is not built'
  : mountable.ok
    ? false
    : `mounts are not permitted: ${mountable.reason}`;
if (noOverlay) console.log(`unpacking into overlayfs is not tested: ${noOverlay}`);

async function imported(
  t: TestContext,
  db: DB,
  blobs: Blobs,
  desc: Desc,
  without: string[] = [],
): Promise<Image> {
  const dir = await writeFiles(await tempDir(t), blobs.layout([named(desc, 'example.com/app:1')], without));
  return (await importImage(db, ctx, dir))[0]!;
}

async function snapshotKeys(db: DB, snapshotter = 'native'): Promise<string[]> {
  const keys: string[] = [];
  await db.snapshotter(snapshotter)!.walk(ctx, (info) => void keys.push(`${info.kind} ${info.name}`));
  return keys;
}

/** What a container would see: the tree of a fresh view of the top snapshot. */
async function treeIn(db: DB, snapshotter: string, chainId: string): Promise<Record<string, string>> {
  const store = db.snapshotter(snapshotter)!;
  const mounts = await store.view(ctx, 'look', chainId);
  const [mount] = mounts;
  const tree =
    mount!.type === 'bind' ? await treeOf(mount!.source) : await withMounts(mounts, (dir) => treeOf(dir));
  await store.remove(ctx, 'look');
  return tree;
}

/** The services of a DB with a snapshotter that differs in some calls. */
function withSnapshotter(
  db: DB,
  change: (real: LayerSnapshotter) => Partial<LayerSnapshotter>,
  name = 'native',
): ImageServices {
  const real = db.snapshotter(name)!;
  const changed: LayerSnapshotter = {
    stat: (...args) => real.stat(...args),
    prepare: (...args) => real.prepare(...args),
    commit: (...args) => real.commit(...args),
    remove: (...args) => real.remove(...args),
    ...change(real),
  };
  return { content: db.content, images: db.images, leases: db.leases, snapshotter: () => changed };
}

describe('unpacking', () => {
  for (const snapshotter of ['native', 'overlayfs'] as const) {
    const skip = snapshotter === 'overlayfs' ? noOverlay : false;
    test(`given layers with deletions, ${snapshotter} shows the image's tree, and a collection keeps it`, {
      skip,
    }, async (t) => {
      const db = await testDB(t, { snapshotters: [snapshotter] });
      const blobs = new Blobs();
      const made = await blobs.image(layers);
      const image = await imported(t, db, blobs, made.manifest);
      const seen: string[] = [];
      const unpacked = await unpackImage(db, ctx, image, snapshotter, {
        progress: (p) => void seen.push(`${p.phase} ${p.name} ${p.done === p.total}`),
      });
      const chain = chainIds(made.diffIds);
      assert.deepEqual(
        { ...unpacked, skipped: undefined },
        { chainId: chain[2], manifest: made.manifest.digest, layers: 3, applied: 3, skipped: undefined },
      );
      assert.deepEqual(await treeIn(db, snapshotter, chain[2]!), wanted);
      for (const layer of made.layers) assert.ok(seen.includes(`unpack ${layer.digest} true`));

      assert.deepEqual(await db.leases.list(ctx), []);
      await db.garbageCollect();
      assert.deepEqual(await snapshotKeys(db, snapshotter), chain.map((id) => `committed ${id}`).sort());
      assert.deepEqual(await treeIn(db, snapshotter, chain[2]!), wanted);
      const config = await db.content.info(ctx, made.config.digest);
      assert.equal(config.labels[`containerd.io/gc.ref.snapshot.${snapshotter}`], chain[2]);
      for (const [i, layer] of made.layers.entries()) {
        const { labels } = await db.content.info(ctx, layer.digest);
        assert.equal(labels['containerd.io/uncompressed'], made.diffIds[i]);
      }
      const top = await db.snapshotter(snapshotter)!.stat(ctx, chain[2]!);
      assert.equal(top.labels['containerd.io/snapshot.ref'], chain[2]);
      assert.equal(top.parent, chain[1]);

      assert.equal((await unpackImage(db, ctx, image, snapshotter)).applied, 0);

      await db.images.delete(ctx, image.name);
      await db.garbageCollect();
      assert.deepEqual(await snapshotKeys(db, snapshotter), []);
    });
  }

  test('given a common base, only what differs is unpacked', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const one = await imported(t, db, blobs, (await blobs.image(layers.slice(0, 2))).manifest);
    await unpackImage(db, ctx, one, 'native');
    const two = await imported(t, db, blobs, (await blobs.image(layers)).manifest);
    assert.equal((await unpackImage(db, ctx, two, 'native')).applied, 1);
  });

  test('given an image without layers, there is nothing to unpack', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const image = await imported(t, db, blobs, (await blobs.image([])).manifest);
    const { chainId, layers: count } = await unpackImage(db, ctx, image, 'native');
    assert.deepEqual([chainId, count], ['', 0]);
  });

  test('given an index, the manifest for the platform is taken, nested ones and best variants included', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const at = (architecture: string, variant?: string) => ({
      os: 'linux',
      architecture,
      ...(variant && { variant }),
    });
    const make = async (name: string, platform: ReturnType<typeof at>): Promise<MadeImage> =>
      blobs.image([[{ name, text: name }]], { platform });
    const amd = await make('amd', at('amd64'));
    const v6 = await make('v6', at('arm', 'v6'));
    const v7 = await make('v7', at('arm', 'v7'));
    const v8 = await make('v8', at('arm64'));
    const nested = blobs.index([{ ...v7.manifest, platform: at('arm', 'v7') }]);
    const index = blobs.index([
      { ...v6.manifest, platform: at('arm', 'v6') },
      nested,
      amd.manifest,
      { ...v8.manifest, platform: at('arm64', 'v8') },
    ]);
    const image = await imported(t, db, blobs, index);
    const choose = async (platform: ReturnType<typeof at>) =>
      (await unpackImage(db, ctx, image, 'native', { platform })).manifest;
    assert.equal(await choose(at('amd64')), amd.manifest.digest, 'its config has the platform');
    assert.equal(await choose(at('arm', 'v7')), v7.manifest.digest);
    assert.equal(await choose(at('arm', 'v6')), v6.manifest.digest);
    assert.equal(await choose(at('arm64')), v8.manifest.digest);
    await assert.rejects(
      unpackImage(db, ctx, image, 'native', { platform: at('s390x') }),
      (error: unknown) => {
        assert.ok(error instanceof EbbtideError && error.kind === 'NotFound');
        assert.match(error.message, /no manifest for linux\/s390x/);
        return true;
      },
    );
  });

  test('given the blob of an unpacked layer is gone, unpacking again is content', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const made = await blobs.image(layers);
    const image = await imported(t, db, blobs, made.manifest);
    await unpackImage(db, ctx, image, 'native');
    await db.content.delete(ctx, made.layers[0]!.digest);
    assert.equal((await unpackImage(db, ctx, image, 'native')).applied, 0);
  });

  test('given several at once, each layer is made once and all have the image', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const made = await blobs.image(layers);
    const image = await imported(t, db, blobs, made.manifest);
    const all = await Promise.all([1, 2, 3, 4].map(() => unpackImage(db, ctx, image, 'native')));
    const top = chainIds(made.diffIds)[2]!;
    assert.ok(all.every((u) => u.chainId === top));
    await db.garbageCollect();
    assert.equal((await snapshotKeys(db)).length, 3);
    assert.deepEqual(await treeIn(db, 'native', top), wanted);
  });

  test('given collections all the while, nothing of the chain is lost', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const many = Array.from({ length: 10 }, (_, i): Item[] => [{ name: `f${i}`, text: String(i) }]);
    const made = await blobs.image(many);
    const image = await imported(t, db, blobs, made.manifest);
    let done = false;
    const collecting = (async () => {
      while (!done) {
        await db.garbageCollect();
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const { chainId } = await unpackImage(db, ctx, image, 'native');
    done = true;
    await collecting;
    await db.garbageCollect();
    assert.equal(Object.keys(await treeIn(db, 'native', chainId)).length, 10);
  });
});

describe('chain ids', () => {
  test('given layers, each id names its layer and all below', () => {
    const [a, b, c] = ['a', 'b', 'c'].map((x) => digestOf(Buffer.from(x)));
    const second = digestOf(Buffer.from(`${a} ${b}`));
    assert.deepEqual(chainIds([a!, b!, c!]), [a, second, digestOf(Buffer.from(`${second} ${c}`))]);
    assert.deepEqual(chainIds([]), []);
  });
});

describe('unpacking what is wrong', () => {
  /** An image whose config has other diff ids. */
  function lying(blobs: Blobs, made: MadeImage, diffIds: string[]): Desc {
    const config = blobs.add(OCI_CONFIG, {
      os: 'linux',
      architecture: 'amd64',
      rootfs: { type: 'layers', diff_ids: diffIds },
    });
    return blobs.add(OCI_MANIFEST, {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config,
      layers: made.layers,
    });
  }

  const cases: [string, Item[][], (made: MadeImage) => string[], RegExp][] = [
    ['a wrong diff id', layers.slice(0, 2), (m) => [m.diffIds[0]!, m.diffIds[0]!], /decompresses to sha256/],
    ['fewer diff ids than layers', layers, (m) => m.diffIds.slice(1), /names 2 layers, its manifest 3/],
    ['a malformed diff id', layers, () => ['sha256:x', 'y', 'z'], /invalid diff id/],
    [
      'a hostile layer',
      [[{ name: '../../evil', text: 'x' }]],
      (m) => m.diffIds,
      /cannot unpack layer.*leads out/,
    ],
  ];
  for (const [name, items, diffIds, message] of cases) {
    test(`given ${name}, it is InvalidArgument and no active snapshot stays`, async (t) => {
      const db = await testDB(t);
      const blobs = new Blobs();
      const made = await blobs.image(items);
      const image = await imported(t, db, blobs, lying(blobs, made, diffIds(made)));
      await assert.rejects(unpackImage(db, ctx, image, 'native'), (error: unknown) => {
        assert.ok(error instanceof EbbtideError);
        assert.equal(error.kind, 'InvalidArgument', error.message);
        assert.match(error.message, message);
        return true;
      });
      assert.ok(!(await snapshotKeys(db)).some((key) => key.startsWith('active')));
      await db.garbageCollect();
      assert.deepEqual(await snapshotKeys(db), [], 'what was unpacked before goes, nothing names it');
    });
  }

  test('given a missing snapshotter or layer, it is NotFound', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const made = await blobs.image(layers);
    const image = await imported(t, db, blobs, made.manifest);
    await assert.rejects(unpackImage(db, ctx, image, 'none'), (e) => isNotFound(e));
    await db.content.delete(ctx, made.layers[1]!.digest);
    await assert.rejects(unpackImage(db, ctx, image, 'native'), (e) => isNotFound(e));
    assert.ok(!(await snapshotKeys(db)).some((key) => key.startsWith('active')));
  });

  test('given many layers, the work for one does not grow with the number of those below', {
    skip: noOverlay,
  }, async (t) => {
    const db = await testDB(t, { snapshotters: ['overlayfs'] });
    const blobs = new Blobs();
    const many = Array.from({ length: 40 }, (_, i): Item[] => [
      { name: 'usr', type: 'directory' },
      { name: 'usr/share', type: 'directory' },
      { name: `usr/share/new-${i}`, type: 'directory' },
      { name: `usr/share/new-${i}/file`, text: String(i) },
      { name: 'usr/state', text: String(i) },
      ...(i === 0 ? [] : [{ name: `usr/share/.wh.new-${i - 1}` }]),
    ]);
    const image = await imported(t, db, blobs, (await blobs.image(many)).manifest);
    let calls = 0;
    const hook = createHook({ init: (_, type) => void (type === 'FSREQPROMISE' && calls++) }).enable();
    t.after(() => hook.disable());
    const before: number[] = [];
    const services = withSnapshotter(
      db,
      (real) => ({
        prepare: (...args) => {
          before.push(calls);
          return real.prepare(...args);
        },
      }),
      'overlayfs',
    );
    const { chainId } = await unpackImage(services, ctx, image, 'overlayfs');
    const callsOf = (layer: number): number => before[layer + 1]! - before[layer]!;
    assert.ok(callsOf(5) > 20, `${callsOf(5)} calls into the file system for the 6th layer`);
    assert.ok(callsOf(38) < 1.2 * callsOf(5), `${callsOf(5)} for the 6th layer, ${callsOf(38)} for the 39th`);
    assert.deepEqual(await treeIn(db, 'overlayfs', chainId), {
      usr: 'dir',
      'usr/share': 'dir',
      'usr/share/new-39': 'dir',
      'usr/share/new-39/file': '39',
      'usr/state': '39',
    });
  });

  test('given limits, a layer beyond them is FailedPrecondition', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const image = await imported(t, db, blobs, (await blobs.image(layers)).manifest);
    const running = unpackImage(db, ctx, image, 'native', { limits: { maxEntries: 2 } });
    await assert.rejects(running, (e) => isKind(e, 'FailedPrecondition'));
  });

  test('given an end in the middle, what is unfinished goes and a second attempt goes on', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const made = await blobs.image(layers);
    const image = await imported(t, db, blobs, made.manifest);
    const control = new AbortController();
    const second = made.layers[1]!.digest;
    const running = unpackImage(db, { ...ctx, signal: control.signal }, image, 'native', {
      progress: (p) => p.name === second && control.abort(),
    });
    await assert.rejects(running, (e) => isKind(e, 'Canceled'));
    assert.ok(!(await snapshotKeys(db)).some((key) => key.startsWith('active')));
    await db.garbageCollect();
    assert.equal((await unpackImage(db, ctx, image, 'native')).applied, 2);
  });

  test('given a commit that fails, the active snapshot goes and the error comes through', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const image = await imported(t, db, blobs, (await blobs.image(layers)).manifest);
    const services = withSnapshotter(db, () => ({
      commit: async () => Promise.reject(new Error('disk on fire')),
    }));
    await assert.rejects(unpackImage(services, ctx, image, 'native'), /disk on fire/);
    assert.deepEqual(await snapshotKeys(db), []);
  });

  test('given another caller that commits the same layer first, that one is used', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const made = await blobs.image(layers.slice(0, 1));
    const image = await imported(t, db, blobs, made.manifest);
    const chainId = made.diffIds[0]!;
    const services = withSnapshotter(db, (real) => ({
      commit: async (c, name, key, options) => {
        await real.prepare(c, 'rival', '');
        await real.commit(c, chainId, 'rival');
        return real.commit(c, name, key, options);
      },
    }));
    const { applied } = await unpackImage(services, ctx, image, 'native');
    assert.equal(applied, 0);
    assert.deepEqual(await snapshotKeys(db), [`committed ${chainId}`]);
  });
});
