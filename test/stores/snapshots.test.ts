import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SnapshotInfo } from '../../src/backends/contract.js';
import { now } from '../../src/model/time.js';
import { ns1, ns2, rejects } from './fixtures.js';
import { keyOf, rooted, type StoreWorld, storeWorld } from './store-world.js';

describe('snapshots: prepare, view and commit', () => {
  it('[#131] given prepare and commit, then stat returns parent, kind and times, and the active key is gone', async (t) => {
    const world = await storeWorld(t);
    const before = now();
    const mounts = await world.snapshots.prepare(ns1, 'a', '', { labels: { x: '1' } });
    assert.equal(mounts.length, 1);
    const active = await world.snapshots.stat(ns1, 'a');
    assert.deepEqual(
      [active.kind, active.name, active.parent, active.labels],
      ['active', 'a', '', { x: '1' }],
    );
    assert.ok(active.created > before && active.created === active.updated);
    await world.snapshots.commit(ns1, 'base', 'a');
    await rejects(world.snapshots.stat(ns1, 'a'), 'NotFound');
    const base = await world.snapshots.stat(ns1, 'base');
    assert.deepEqual([base.kind, base.name, base.parent], ['committed', 'base', '']);
    assert.ok(base.created > active.created);
    await world.snapshots.view(ns1, 'v', 'base');
    const view = await world.snapshots.stat(ns1, 'v');
    assert.deepEqual([view.kind, view.parent], ['view', 'base']);
    assert.deepEqual(world.events, [
      {
        namespace: 'ns1',
        topic: '/snapshot/prepare',
        payload: { key: 'a', parent: '', snapshotter: 'native' },
      },
      {
        namespace: 'ns1',
        topic: '/snapshot/commit',
        payload: { key: 'a', name: 'base', snapshotter: 'native' },
      },
    ]);
    assert.deepEqual([...world.snapshots.inFlight()], []);
  });

  it('[#132] given a key in use, when prepared or viewed, in any mix and at once, then AlreadyExists', async (t) => {
    const world = await storeWorld(t);
    await world.snapshots.prepare(ns1, 'a', '');
    await world.snapshots.view(ns1, 'v', '');
    for (const key of ['a', 'v']) {
      await rejects(world.snapshots.prepare(ns1, key, ''), 'AlreadyExists');
      await rejects(world.snapshots.view(ns1, key, ''), 'AlreadyExists');
    }
    const calls = Array.from({ length: 6 }, (_, i) =>
      i % 2 ? world.snapshots.prepare(ns1, 'b', '') : world.snapshots.view(ns1, 'b', ''),
    );
    const outcomes = await Promise.allSettled(calls);
    assert.equal(outcomes.filter((o) => o.status === 'fulfilled').length, 1);
    assert.equal((await world.backendNames()).length, 3);
  });

  it('[#133] given an unknown parent, then NotFound; an active one, InvalidArgument and nothing recorded', async (t) => {
    const world = await storeWorld(t);
    await rejects(world.snapshots.prepare(ns1, 'a', 'none'), 'NotFound', 'none');
    await world.snapshots.prepare(ns1, 'active', '');
    await rejects(world.snapshots.prepare(ns1, 'a', 'active'), 'InvalidArgument');
    assert.equal(world.snapshot('ns1', 'a'), undefined);
    assert.deepEqual(world.childrenOf('active'), []);
    assert.equal((await world.backendNames()).length, 1);
  });

  it('given bad input, then InvalidArgument, or FailedPrecondition without a namespace, and nothing is made', async (t) => {
    const world = await storeWorld(t);
    const big = { labels: { big: 'x'.repeat(5000) } };
    await rejects(world.snapshots.prepare(ns1, '', ''), 'InvalidArgument');
    await rejects(world.snapshots.prepare(ns1, 'a', '', big), 'InvalidArgument');
    await rejects(world.snapshots.prepare({}, 'a', ''), 'FailedPrecondition');
    await rejects(world.snapshots.prepare({ namespace: 'version' }, 'a', ''), 'InvalidArgument');
    await rejects(world.snapshots.stat({ namespace: 'version' }, 'a'), 'NotFound');
    await rejects(world.snapshots.commit(ns1, 'c', 'a'), 'NotFound');
    await world.snapshots.prepare(ns1, 'a', '');
    await rejects(world.snapshots.commit(ns1, '', 'a'), 'InvalidArgument');
    await rejects(world.snapshots.commit(ns1, 'c', 'a', big), 'InvalidArgument');
    assert.deepEqual(await world.walked(), ['a']);
  });

  it('[#134] given a name in use, then AlreadyExists and the active key stays; an unknown key, NotFound', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    await world.snapshots.prepare(ns1, 'a', '');
    const leased = await world.lease(ns1, 'l');
    await rejects(world.snapshots.commit(leased, 'base', 'a'), 'AlreadyExists');
    await rejects(world.snapshots.commit(ns1, 'a', 'a'), 'AlreadyExists');
    assert.equal((await world.snapshots.stat(ns1, 'a')).kind, 'active');
    assert.deepEqual(await world.held(ns1, 'l'), ['snapshots/native base']);
    await rejects(world.snapshots.commit(ns1, 'new', 'unknown'), 'NotFound');
    await rejects(world.snapshots.stat(ns1, 'new'), 'NotFound');
    await world.snapshots.commit(ns1, 'new', 'a');
  });

  it('[#134] given commits of two keys to one name at once, then one wins and the other key stays active', async (t) => {
    const world = await storeWorld(t);
    await world.snapshots.prepare(ns1, 'a', '');
    await world.snapshots.prepare(ns1, 'b', '');
    const outcomes = await Promise.allSettled([
      world.snapshots.commit(ns1, 'c', 'a'),
      world.snapshots.commit(ns1, 'c', 'b'),
    ]);
    assert.deepEqual(outcomes.map((o) => o.status).sort(), ['fulfilled', 'rejected']);
    const [left] = await world.walked('kind==active');
    assert.ok(left === 'a' || left === 'b');
    await world.snapshots.commit(ns1, 'd', left);
  });

  it('[#135] given a view, when committed, then FailedPrecondition and both records are unchanged', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    await world.snapshots.view(ns1, 'v', 'base');
    const before = [world.snapshot('ns1', 'base'), world.snapshot('ns1', 'v')];
    await rejects(world.snapshots.commit(ns1, 'c', 'v'), 'FailedPrecondition');
    await rejects(world.snapshots.commit(ns1, 'c', 'base'), 'FailedPrecondition');
    assert.deepEqual([world.snapshot('ns1', 'base'), world.snapshot('ns1', 'v')], before);
    assert.equal(world.snapshot('ns1', 'c'), undefined);
    assert.deepEqual(world.childrenOf('base'), [keyOf('v')]);
  });

  it('[#142] given labels on the active snapshot only, then the committed one has none', async (t) => {
    const world = await storeWorld(t);
    const labels = { x: '1', 'containerd.io/snapshot/y': '2' };
    await world.snapshots.prepare(ns1, 'a', '', { labels });
    await world.snapshots.commit(ns1, 'c', 'a');
    assert.deepEqual((await world.snapshots.stat(ns1, 'c')).labels, {});
  });

  it('[#143] given a commit on a parent, then the name takes the key’s place among its children', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    await world.snapshots.prepare(ns1, 'a', 'base');
    assert.deepEqual(world.childrenOf('base'), [keyOf('a')]);
    await world.snapshots.commit(ns1, 'c', 'a');
    assert.deepEqual(world.childrenOf('base'), [keyOf('c')]);
    await rejects(world.snapshots.remove(ns1, 'base'), 'FailedPrecondition');
    await world.snapshots.remove(ns1, 'c');
    await world.snapshots.remove(ns1, 'base');
  });

  it('[#147] given a backend that fails, then nothing is recorded and the key can be prepared, under a new name', async (t) => {
    let broken = true;
    const world = await storeWorld(t, {
      native: (real) => ({
        prepare: async (...args) => {
          if (broken) throw new Error('no space');
          return real.prepare(...args);
        },
      }),
    });
    await assert.rejects(world.snapshots.prepare(ns1, 'a', ''), /no space/);
    assert.equal(world.snapshot('ns1', 'a'), undefined);
    broken = false;
    await world.snapshots.prepare(ns1, 'a', '');
    assert.equal(world.snapshot('ns1', 'a')?.name, 'ns1/2/a');
    assert.deepEqual(
      world.events.map((e) => e.topic),
      ['/snapshot/prepare'],
    );
  });

  it('given a backend whose commit fails, then everything is as before', async (t) => {
    const world = await storeWorld(t, {
      native: () => ({
        commit: async () => {
          throw new Error('no space');
        },
      }),
    });
    const leased = await world.lease(ns1, 'l');
    await world.snapshots.prepare(leased, 'a', '');
    const before = world.snapshot('ns1', 'a');
    await assert.rejects(world.snapshots.commit(leased, 'c', 'a'), /no space/);
    assert.deepEqual(world.snapshot('ns1', 'a'), before);
    assert.equal(world.snapshot('ns1', 'c'), undefined);
    assert.deepEqual(await world.held(ns1, 'l'), ['snapshots/native a']);
  });

  it('[#152] given one key in two namespaces, then the backend names differ and both can be used', async (t) => {
    const world = await storeWorld(t);
    for (const ctx of [ns1, ns2]) await world.committed(ctx, 'base', '', rooted);
    assert.notEqual(world.snapshot('ns1', 'base')?.name, world.snapshot('ns2', 'base')?.name);
    await world.snapshots.remove(ns1, 'base');
    await world.collect();
    await world.snapshots.prepare(ns2, 'a', 'base');
    await rejects(world.snapshots.prepare(ns1, 'a', 'base'), 'NotFound');
  });

  it('given a namespace that was deleted and made again, then leftovers in the backend do not hinder it', async (t) => {
    const world = await storeWorld(t);
    await world.snapshots.prepare(ns1, 'a', '');
    await world.snapshots.remove(ns1, 'a');
    await world.namespaces.delete({}, 'ns1');
    await world.snapshots.prepare(ns1, 'a', '', { labels: rooted });
    assert.equal((await world.snapshots.stat(ns1, 'a')).kind, 'active');
    await world.collect();
    assert.deepEqual(await world.backendNames(), ['ns1/2/a']);
  });
});

describe('snapshots: leases', () => {
  it('[#153] given a lease that is deleted while the backend prepares, then the backend snapshot is removed again', async (t) => {
    const world: StoreWorld = await storeWorld(t, {
      native: (real) => ({
        prepare: async (...args) => {
          const mounts = await real.prepare(...args);
          await world.leases.delete(ns1, 'l');
          return mounts;
        },
      }),
    });
    const leased = await world.lease(ns1, 'l');
    await rejects(world.snapshots.prepare(leased, 'a', ''), 'NotFound', 'lease');
    assert.equal(world.snapshot('ns1', 'a'), undefined);
    assert.deepEqual(await world.backendNames(), []);
    assert.deepEqual([...world.snapshots.inFlight()], []);
  });

  it('[#153] given a backend that cannot remove it, then that is logged and left to the next collection', async (t) => {
    let broken = true;
    const world: StoreWorld = await storeWorld(t, {
      native: (real) => ({
        prepare: async (...args) => {
          const mounts = await real.prepare(...args);
          await world.leases.delete(ns1, 'l').catch(() => undefined);
          return mounts;
        },
        remove: async (key) => {
          if (broken) throw new Error('busy');
          await real.remove(key);
        },
      }),
    });
    const leased = await world.lease(ns1, 'l');
    await rejects(world.snapshots.prepare(leased, 'a', ''), 'NotFound', 'lease');
    assert.ok(world.logged.some((line) => line.includes('not recorded')));
    assert.deepEqual(await world.backendNames(), ['ns1/1/a']);
    broken = false;
    await world.collect();
    assert.deepEqual(await world.backendNames(), []);
  });

  it('[#154] given a missing lease, then NotFound and no backend leftover', async (t) => {
    const world = await storeWorld(t);
    const ctx = { ...ns1, lease: 'none' };
    await rejects(world.snapshots.prepare(ctx, 'a', ''), 'NotFound', 'lease');
    await rejects(world.snapshots.view(ctx, 'a', ''), 'NotFound', 'lease');
    await world.snapshots.prepare(ns1, 'a', '');
    await rejects(world.snapshots.commit(ctx, 'c', 'a'), 'NotFound', 'lease');
    await rejects(world.snapshots.prepare(ctx, 'a', ''), 'NotFound', 'lease');
    assert.deepEqual(await world.backendNames(), ['ns1/1/a']);
    assert.deepEqual(await world.walked(), ['a']);
  });

  it('[#155] given a lease, when prepared, then it keeps the key; when committed, the name instead', async (t) => {
    const world = await storeWorld(t);
    const leased = await world.lease(ns1, 'l');
    await world.snapshots.prepare(leased, 'a', '');
    assert.deepEqual(await world.held(ns1, 'l'), ['snapshots/native a']);
    await world.snapshots.commit(leased, 'c', 'a');
    assert.deepEqual(await world.held(ns1, 'l'), ['snapshots/native c']);
    await world.snapshots.remove(leased, 'c');
    assert.deepEqual(await world.held(ns1, 'l'), []);
  });

  it('[#156] given a key in use, when prepared in a lease, then AlreadyExists and the lease keeps it', async (t) => {
    const world = await storeWorld(t);
    await world.snapshots.prepare(ns1, 'a', '');
    const leased = await world.lease(ns1, 'l');
    await rejects(world.snapshots.prepare(leased, 'a', ''), 'AlreadyExists');
    assert.deepEqual(await world.held(ns1, 'l'), ['snapshots/native a']);
    await world.collect();
    assert.equal((await world.snapshots.stat(ns1, 'a')).kind, 'active');
  });
});

describe('snapshots: rebase', () => {
  it('[#167] given a parent at commit, then a parentless snapshot takes it, and one that has a parent keeps its own', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    await world.committed(ns1, 'other');
    const commit = async (name: string, on: string, parent: string): Promise<SnapshotInfo> => {
      await world.snapshots.prepare(ns1, `${name}-a`, on);
      await world.snapshots.commit(ns1, name, `${name}-a`, { parent });
      return world.snapshots.stat(ns1, name);
    };
    for (const [name, on, parent] of [
      ['none to base', '', 'base'],
      ['base to base', 'base', 'base'],
      ['base to none', 'base', ''],
      ['base to other', 'base', 'other'],
    ] as const) {
      assert.equal((await commit(name, on, parent)).parent, 'base', name);
      const { parent: inBackend } = await world.native.stat(world.snapshot('ns1', name)?.name ?? '');
      assert.equal(inBackend, world.snapshot('ns1', 'base')?.name, name);
    }
    assert.equal(world.childrenOf('base').length, 4);
    assert.deepEqual(world.childrenOf('other'), []);
  });

  it('[#167] given a missing or an active parent, then NotFound or FailedPrecondition and the snapshot stays active', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    await world.committed(ns1, 'other');
    await world.snapshots.prepare(ns1, 'active', '');
    await world.snapshots.prepare(ns1, 'a', '');
    await rejects(world.snapshots.commit(ns1, 'c', 'a', { parent: 'missing' }), 'NotFound', 'missing');
    await rejects(world.snapshots.commit(ns1, 'c', 'a', { parent: 'active' }), 'FailedPrecondition');
    assert.equal((await world.snapshots.stat(ns1, 'a')).kind, 'active');
    assert.deepEqual(world.childrenOf('active'), []);
    await world.snapshots.prepare(ns1, 'based', 'base');
    const [based, other] = ['based', 'other'].map((key) => world.snapshot('ns1', key)?.name ?? '');
    await rejects(world.native.commit('x', based!, { parent: other }), 'InvalidArgument');
  });
});
