import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { SnapshotterBackend } from '../../src/backends/contract.js';
import { backendNameKey, Relation, snapshotKey } from '../../src/engine/schema/keys.js';
import { alreadyExists } from '../../src/errors.js';
import { ns1, ns2, rejects } from './fixtures.js';
import { type StoreWorld, storeWorld } from './store-world.js';

const REF = 'containerd.io/snapshot.ref';
const target = (key: string, more: Record<string, string> = {}) => ({ labels: { [REF]: key, ...more } });

/** Returns AlreadyExists for a Prepare whose target a committed snapshot on that parent has. */
const remote = (real: SnapshotterBackend): Partial<SnapshotterBackend> => ({
  prepare: async (key, parent, options) => {
    const wanted = options?.labels?.[REF];
    let there = false;
    await real.walk((info) => {
      const fits = info.kind === 'committed' && info.parent === parent;
      if (wanted !== undefined && fits && info.labels[REF] === wanted) there = true;
    });
    if (there) throw alreadyExists(`target ${wanted}`);
    return real.prepare(key, parent, options);
  },
});

/** A world whose backend has the target `layer`, committed in ns2 as `layer` on nothing. */
async function remoteWorld(t: TestContext): Promise<StoreWorld> {
  const world = await storeWorld(t, { native: remote });
  await world.snapshots.prepare(ns2, 'extract', '');
  await world.snapshots.commit(
    ns2,
    'layer',
    'extract',
    target('layer', { 'containerd.io/snapshot/made': 'far away' }),
  );
  world.events.length = 0;
  return world;
}

const nameIn = (world: StoreWorld, ns: string, key: string): string => world.snapshot(ns, key)?.name ?? '';

describe('remote snapshotters', () => {
  for (const target of [false, true]) {
    it(`[#148] given a backend that always says AlreadyExists, ${target ? 'and a target it lacks, then NotFound' : 'then Unknown'}`, async (t) => {
      const world = await storeWorld(t, {
        native: () => ({
          prepare: async () => {
            throw alreadyExists('you wish');
          },
        }),
      });
      const labels = { labels: { [REF]: 'T' } };
      const prepare = world.snapshots.prepare(ns1, 'a', '', target ? labels : {});
      await rejects(prepare, target ? 'NotFound' : 'Unknown');
      assert.equal(world.snapshot('ns1', 'a'), undefined);
      assert.equal(world.snapshot('ns1', 'T'), undefined);
      const inside = world.transaction(ns1, (ctx) =>
        world.snapshots.prepare(ctx, 'a', '', target ? labels : {}).then(() => undefined),
      );
      await rejects(inside, target ? 'NotFound' : 'Unknown');
    });
  }

  it('[#149] given a target the backend has on that parent, then AlreadyExists and the namespace has it, leased', async (t) => {
    const world = await remoteWorld(t);
    const leased = await world.lease(ns1, 'l');
    const labels = target('layer', { mine: '1', 'containerd.io/snapshot/made': 'here' });
    await rejects(world.snapshots.prepare(leased, 'extract-1', '', labels), 'AlreadyExists', 'layer');
    await rejects(world.snapshots.stat(ns1, 'extract-1'), 'NotFound');
    const info = await world.snapshots.stat(ns1, 'layer');
    assert.deepEqual([info.kind, info.parent], ['committed', '']);
    assert.deepEqual(info.labels, { [REF]: 'layer', mine: '1', 'containerd.io/snapshot/made': 'here' });
    assert.equal(nameIn(world, 'ns1', 'layer'), nameIn(world, 'ns2', 'layer'));
    const backend = await world.native.stat(nameIn(world, 'ns2', 'layer'));
    assert.deepEqual([info.created, info.updated], [backend.created, backend.updated]);
    assert.deepEqual(await world.held(ns1, 'l'), ['snapshots/native layer']);
    assert.deepEqual(world.events, []);
    await world.snapshots.prepare(ns1, 'work', 'layer');
    assert.equal((await world.snapshots.stat(ns1, 'work')).parent, 'layer');
  });

  it('[#149] given a target the namespace has, then AlreadyExists without asking the backend, whatever the parent', async (t) => {
    const world = await remoteWorld(t);
    const leased = await world.lease(ns2, 'l');
    await rejects(world.snapshots.prepare(leased, 'x', 'no such parent', target('layer')), 'AlreadyExists');
    assert.deepEqual(await world.held(ns2, 'l'), ['snapshots/native layer']);
    await rejects(world.snapshots.stat(ns2, 'x'), 'NotFound');
  });

  it('[#149] given a snapshot two namespaces share, then it goes from the backend with the last of them', async (t) => {
    const world = await remoteWorld(t);
    await rejects(world.snapshots.prepare(ns1, 'x', '', target('layer')), 'AlreadyExists');
    const name = nameIn(world, 'ns1', 'layer');
    const claims = () => [...world.host.engine.links(backendNameKey('native', name), Relation.named)];
    assert.deepEqual(claims(), [snapshotKey('ns1', 'native', 'layer')]);
    await world.snapshots.update(ns1, { name: 'layer', labels: { 'containerd.io/gc.root': '1' } });
    await world.snapshots.remove(ns2, 'layer');
    await world.collect({ fullSweep: true });
    assert.deepEqual(await world.backendNames(), [name]);
    assert.equal((await world.snapshots.stat(ns1, 'layer')).kind, 'committed');
    await world.snapshots.remove(ns1, 'layer');
    assert.deepEqual(claims(), []);
    await world.collect();
    assert.deepEqual(await world.backendNames(), []);
  });

  it('[#149] given the maker’s record stays, when the other namespace removes its own, then the backend keeps it', async (t) => {
    const world = await remoteWorld(t);
    await rejects(world.snapshots.prepare(ns1, 'x', '', target('layer')), 'AlreadyExists');
    await world.snapshots.update(ns2, { name: 'layer', labels: { 'containerd.io/gc.root': '1' } });
    await world.snapshots.remove(ns1, 'layer');
    await world.collect();
    assert.equal((await world.snapshots.stat(ns2, 'layer')).kind, 'committed');
  });

  it('[#149] given a target that is adopted in a transaction, then it is there after the commit', async (t) => {
    const world = await remoteWorld(t);
    await world.transaction(ns1, async (ctx) => {
      await rejects(world.snapshots.prepare(ctx, 'x', '', target('layer')), 'AlreadyExists');
      assert.equal((await world.snapshots.stat(ctx, 'layer')).kind, 'committed');
    });
    assert.equal((await world.snapshots.stat(ns1, 'layer')).kind, 'committed');
  });

  it('[#149] given prepares for one target at once, then all are AlreadyExists and it is recorded once', async (t) => {
    const world = await remoteWorld(t);
    const calls = Array.from({ length: 4 }, (_, i) =>
      world.snapshots.prepare(ns1, `x${i}`, '', target('layer')),
    );
    await Promise.all(calls.map((call) => rejects(call, 'AlreadyExists')));
    const keys: string[] = [];
    await world.snapshots.walk(ns1, (info) => void keys.push(info.name));
    assert.deepEqual(keys, ['layer']);
  });

  it('[#150] given the label only under another parent, then an ordinary Prepare', async (t) => {
    const world = await remoteWorld(t);
    await world.committed(ns1, 'base');
    const mounts = await world.snapshots.prepare(ns1, 'x', 'base', target('layer'));
    assert.equal(mounts.length, 1);
    assert.equal((await world.snapshots.stat(ns1, 'x')).kind, 'active');
    await rejects(world.snapshots.stat(ns1, 'layer'), 'NotFound');
  });

  it('[#151] given a parent unknown in this namespace, then NotFound', async (t) => {
    const world = await remoteWorld(t);
    await rejects(world.snapshots.prepare(ns1, 'x', 'layer', target('next')), 'NotFound');
    assert.equal(world.snapshot('ns1', 'next'), undefined);
  });

  it('[#149] given a lease that is missing, then NotFound and nothing is adopted', async (t) => {
    const world = await remoteWorld(t);
    const ctx = { ...ns1, lease: 'none' };
    await rejects(world.snapshots.prepare(ctx, 'x', '', target('layer')), 'NotFound', 'lease');
    assert.equal(world.snapshot('ns1', 'layer'), undefined);
  });
});
