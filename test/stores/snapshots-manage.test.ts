import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { inheritedSnapshotLabels } from '../../src/model/labels.js';
import { FakeSnapshotter } from '../support/fake-backends.js';
import { ns1, ns2, rejects } from './fixtures.js';
import { keyOf, storeWorld } from './store-world.js';

describe('snapshots: update and labels', () => {
  it('[#138] [#139] given labels, when updated in full or by path, then those change and the update time moves', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base', '', { l1: 'a', l2: 'b', l3: 'c' });
    const before = await world.snapshots.stat(ns1, 'base');
    const given = { ...before, parent: 'other', kind: 'view' as const, labels: { l1: 'A' } };
    const partial = await world.snapshots.update(ns1, given, 'labels.l1', 'labels.l2');
    assert.deepEqual(partial.labels, { l1: 'A', l3: 'c' });
    assert.deepEqual([partial.kind, partial.parent, partial.created], ['committed', '', before.created]);
    assert.ok(partial.updated > before.updated);
    assert.deepEqual(await world.snapshots.stat(ns1, 'base'), partial);
    const full = await world.snapshots.update(ns1, { name: 'base', labels: { only: '1' } }, 'labels');
    assert.deepEqual(full.labels, { only: '1' });
    assert.ok(full.updated > partial.updated);
    assert.deepEqual((await world.snapshots.update(ns1, { name: 'base' })).labels, {});
  });

  it('[#138] given a bad update, then its error and no change in store or backend', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base', '', { 'containerd.io/snapshot/x': '1' });
    const before = await world.snapshots.stat(ns1, 'base');
    const labels = { 'containerd.io/snapshot/x': '2' };
    await rejects(world.snapshots.update(ns1, { name: '' }), 'InvalidArgument');
    await rejects(world.snapshots.update(ns1, { name: 'none' }), 'NotFound');
    for (const path of ['parent', 'kind', 'name', 'created']) {
      const text = `cannot update snapshot field "${path}"`;
      await rejects(
        world.snapshots.update(ns1, { name: 'base', labels }, 'labels', path),
        'InvalidArgument',
        text,
      );
    }
    const big = { x: 'y'.repeat(4096) };
    await rejects(world.snapshots.update(ns1, { name: 'base', labels: big }), 'InvalidArgument');
    assert.deepEqual(await world.snapshots.stat(ns1, 'base'), before);
    const { labels: handedDown } = await world.native.stat(world.snapshot('ns1', 'base')?.name ?? '');
    assert.deepEqual(handedDown, { 'containerd.io/snapshot/x': '1' });
  });

  it('[#138] given a backend that refuses, then the record is as before', async (t) => {
    const world = await storeWorld(t, {
      native: () => ({
        update: async () => {
          throw new Error('read-only disk');
        },
      }),
    });
    await world.committed(ns1, 'base', '', { a: '1' });
    const before = await world.snapshots.stat(ns1, 'base');
    await assert.rejects(world.snapshots.update(ns1, { name: 'base' }), /read-only disk/);
    assert.deepEqual(await world.snapshots.stat(ns1, 'base'), before);
  });

  it('[#139] given a clock that was set back, then an update is still later than the creation', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    const record = world.snapshot('ns1', 'base');
    assert.ok(record);
    const future = 4_000_000_000n * 1_000_000_000n;
    await world.host.engine.update((tx) =>
      tx.put(keyOf('base'), { name: record.name, createdat: future, updatedat: future }),
    );
    assert.equal((await world.snapshots.update(ns1, { name: 'base' })).updated, future + 1n);
  });

  it('[#140] given labels of all sorts, then only those for snapshotters reach the backend; stat has all', async (t) => {
    const world = await storeWorld(t);
    const handedDown = { 'containerd.io/snapshot/x': '1' };
    const labels = { ...handedDown, other: '2', 'containerd.io/snapshotx': '3', empty: '' };
    const backendLabels = async (key: string): Promise<unknown> =>
      (await world.native.stat(world.snapshot('ns1', key)?.name ?? '')).labels;
    const all = { ...handedDown, other: '2', 'containerd.io/snapshotx': '3' };
    await world.snapshots.prepare(ns1, 'a', '', { labels });
    assert.deepEqual(await backendLabels('a'), handedDown);
    assert.deepEqual((await world.snapshots.stat(ns1, 'a')).labels, all);
    await world.snapshots.commit(ns1, 'c', 'a', { labels: { ...labels, 'containerd.io/snapshot.ref': 'c' } });
    assert.deepEqual(await backendLabels('c'), { ...handedDown, 'containerd.io/snapshot.ref': 'c' });
    await world.snapshots.view(ns1, 'v', 'c', { labels });
    assert.deepEqual(await backendLabels('v'), handedDown);
    await world.snapshots.update(ns1, { name: 'c', labels }, 'labels');
    assert.deepEqual(await backendLabels('c'), handedDown);
    assert.deepEqual((await world.snapshots.stat(ns1, 'c')).labels, all);
  });

  it('[#140] given a label of the backend’s own, then stat shows it unless the record has one', async (t) => {
    const world = await storeWorld(t, {
      native: (real) => ({
        stat: async (key) => ({ ...(await real.stat(key)), labels: { own: 'backend', both: 'backend' } }),
      }),
    });
    await world.snapshots.prepare(ns1, 'a', '', { labels: { both: 'record' } });
    assert.deepEqual((await world.snapshots.stat(ns1, 'a')).labels, { own: 'backend', both: 'record' });
  });

  it('[#141] given labels, when filtered for the backend, then only the inherited ones; undefined stays so', () => {
    assert.equal(inheritedSnapshotLabels(undefined), undefined);
    assert.deepEqual(inheritedSnapshotLabels({}), {});
    assert.deepEqual(inheritedSnapshotLabels({ '': '' }), {});
    const mixed = { 'containerd.io/snapshot.ref': 'r', 'containerd.io/snapshot/a': '1', a: '2' };
    assert.deepEqual(inheritedSnapshotLabels(mixed), {
      'containerd.io/snapshot.ref': 'r',
      'containerd.io/snapshot/a': '1',
    });
  });
});

describe('snapshots: remove and reuse', () => {
  it('[#136] given children, then FailedPrecondition; top to bottom works; unknown is NotFound', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    await world.committed(ns1, 'mid', 'base');
    await world.snapshots.prepare(ns1, 'top', 'mid');
    world.events.length = 0;
    await rejects(
      world.snapshots.remove(ns1, 'base'),
      'FailedPrecondition',
      'cannot remove snapshot with child',
    );
    for (const key of ['top', 'mid', 'base']) await world.snapshots.remove(ns1, key);
    await rejects(world.snapshots.remove(ns1, 'base'), 'NotFound');
    assert.deepEqual(
      world.events,
      ['top', 'mid', 'base'].map((key) => ({
        namespace: 'ns1',
        topic: '/snapshot/remove',
        payload: { key, snapshotter: 'native' },
      })),
    );
    assert.equal(world.host.dirty.deletions, 3);
    assert.equal((await world.backendNames()).length, 3);
    await world.collect();
    assert.deepEqual(await world.backendNames(), []);
  });

  it('[#136] given a record whose parent is gone, then NotFound', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    await world.snapshots.prepare(ns1, 'a', 'base');
    await world.host.engine.update((tx) => tx.delete(keyOf('base')));
    await rejects(world.snapshots.remove(ns1, 'a'), 'NotFound', 'base');
  });

  it('[#137] given keys that are used again and again, then no collection is needed in between', async (t) => {
    const { snapshots, committed } = await storeWorld(t).then((world) => ({
      snapshots: world.snapshots,
      committed: world.committed.bind(world),
    }));
    await committed(ns1, 'c');
    await snapshots.prepare(ns1, 'r', 'c');
    await snapshots.remove(ns1, 'r');
    await snapshots.view(ns1, 'r', 'c');
    await snapshots.remove(ns1, 'r');
    await snapshots.prepare(ns1, 'r', '');
    await snapshots.remove(ns1, 'c');
    await snapshots.commit(ns1, 'c', 'r');
    assert.equal((await snapshots.stat(ns1, 'c')).kind, 'committed');
  });
});

describe('snapshots: walk, mounts and usage', () => {
  it('[#144] given filters on kind, name, parent and labels, then the matching snapshots by key', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base', '', { color: 'red' });
    await world.committed(ns1, 'mid', 'base', { color: 'blue' });
    await world.snapshots.prepare(ns1, 'act', 'mid');
    await world.snapshots.view(ns1, 'view', 'mid');
    await world.committed(ns2, 'elsewhere');
    assert.deepEqual(await world.walked(), ['act', 'base', 'mid', 'view']);
    assert.deepEqual(await world.walked('kind==committed'), ['base', 'mid']);
    assert.deepEqual(await world.walked('kind==view'), ['view']);
    assert.deepEqual(await world.walked('kind==Active'), []);
    assert.deepEqual(await world.walked('name==act', 'name==base'), ['act', 'base']);
    assert.deepEqual(await world.walked('parent==mid'), ['act', 'view']);
    assert.deepEqual(await world.walked('parent==""'), ['base']);
    assert.deepEqual(await world.walked('parent!=""'), ['act', 'mid', 'view']);
    assert.deepEqual(await world.walked('labels.color'), ['base', 'mid']);
    assert.deepEqual(await world.walked('labels.color==blue,kind==committed'), ['mid']);
    await rejects(world.walked('kind='), 'InvalidArgument', 'parse error');
  });

  it('[#145] given 250 snapshots, then each is seen once, and fn may call the store', async (t) => {
    const world = await storeWorld(t, { snapshotter: new FakeSnapshotter() });
    const keys = Array.from({ length: 250 }, (_, i) => `k${String(i).padStart(3, '0')}`);
    for (const key of keys) await world.snapshots.prepare(ns1, key, '');
    const seen: string[] = [];
    await world.snapshots.walk(ns1, async (info) => {
      assert.equal((await world.snapshots.stat(ns1, info.name)).kind, 'active');
      if (seen.length === 120) await world.snapshots.remove(ns1, info.name);
      seen.push(info.name);
    });
    assert.deepEqual(seen, keys);
  });

  it('[#146] given a snapshot that vanished from the backend, then stat is NotFound and the walk skips it', async (t) => {
    const world = await storeWorld(t);
    await world.snapshots.prepare(ns1, 'a', '');
    await world.snapshots.prepare(ns1, 'b', '');
    await world.native.remove('ns1/1/a');
    assert.deepEqual(await world.walked(), ['b']);
    await rejects(world.snapshots.stat(ns1, 'a'), 'NotFound');
    await rejects(world.snapshots.stat(ns1, 'none'), 'NotFound');
    await rejects(world.snapshots.stat(ns1, ''), 'NotFound');
  });

  it('given a failing fn or backend, then the walk ends with that error', async (t) => {
    const world = await storeWorld(t, {
      native: (real) => ({
        stat: async (key) => {
          if (key.endsWith('/bad')) throw new Error('io');
          return real.stat(key);
        },
      }),
    });
    await world.snapshots.prepare(ns1, 'a', '');
    const failure = new Error('enough');
    const walk = world.snapshots.walk(ns1, () => {
      throw failure;
    });
    await assert.rejects(walk, failure);
    await world.snapshots.prepare(ns1, 'bad', '');
    await assert.rejects(world.walked(), /io/);
  });

  it('[#157] given a committed snapshot, then mounts is FailedPrecondition; of an unknown one NotFound', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    const prepared = await world.snapshots.prepare(ns1, 'a', 'base');
    assert.deepEqual(await world.snapshots.mounts(ns1, 'a'), prepared);
    await rejects(world.snapshots.mounts(ns1, 'base'), 'FailedPrecondition');
    await rejects(world.snapshots.mounts(ns1, 'none'), 'NotFound');
    await rejects(world.snapshots.usage(ns1, 'none'), 'NotFound');
  });

  it('[#158] given data written, then the usage of the active snapshot grows; committed, it stays', async (t) => {
    const world = await storeWorld(t);
    const [mount] = await world.snapshots.prepare(ns1, 'a', '');
    const before = await world.snapshots.usage(ns1, 'a');
    await writeFile(join(mount?.source ?? '', 'file'), Buffer.alloc(100_000, 1));
    const after = await world.snapshots.usage(ns1, 'a');
    assert.ok(after.size >= before.size + 100_000 && after.inodes === before.inodes + 1);
    await world.snapshots.commit(ns1, 'c', 'a');
    assert.deepEqual(await world.snapshots.usage(ns1, 'c'), after);
  });

  it('[#159] given a name that is not configured, then there is no such snapshotter', async (t) => {
    const { host } = await storeWorld(t);
    assert.equal(host.snapshotterStores.get('other'), undefined);
    assert.equal(host.snapshotterStores.get('native')?.name, 'native');
  });

  it('[#160] given close twice, then fine; cleanup of a backend without one is NotImplemented', async (t) => {
    // The type has no such thing as a cleanup that is undefined; an embedder's object may.
    const world = await storeWorld(t, { native: () => ({ cleanup: undefined }) as never });
    await rejects(world.snapshots.cleanup(ns1), 'NotImplemented');
    await world.snapshots.close();
    await world.snapshots.close();
  });
});
