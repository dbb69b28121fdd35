import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { leaseKey, Relation } from '../../src/engine/schema/keys.js';
import { notFound } from '../../src/errors.js';
import { now } from '../../src/model/time.js';
import { ingestGuard, snapshotGuard } from '../../src/stores/guards.js';
import { ns1, ns2, rejects } from './fixtures.js';
import { keyOf, rooted, type StoreWorld, storeWorld } from './store-world.js';

describe('snapshots in a context transaction', () => {
  it('given prepare and commit in one transaction that runs twice, then each is made once and nothing is left', async (t) => {
    const world = await storeWorld(t);
    let runs = 0;
    await world.transaction(ns1, async (ctx, tx) => {
      runs++;
      tx.get('raw\0contended');
      await world.snapshots.prepare(ctx, 'a', '');
      await world.snapshots.commit(ctx, 'base', 'a');
      await world.snapshots.prepare(ctx, 'top', 'base');
      assert.equal((await world.snapshots.stat(ctx, 'top')).parent, 'base');
      await rejects(world.snapshots.stat(ns2, 'top'), 'FailedPrecondition');
      if (runs === 1) await world.host.engine.update((other) => other.put('raw\0contended', 'x'));
    });
    assert.equal(runs, 2);
    assert.deepEqual(await world.walked(), ['base', 'top']);
    assert.equal((await world.backendNames()).length, 2);
    assert.equal((await world.snapshots.stat(ns1, 'top')).parent, 'base');
    assert.deepEqual(
      world.events.map(({ topic }) => topic),
      ['/snapshot/prepare', '/snapshot/commit', '/snapshot/prepare'],
    );
    assert.deepEqual([...world.snapshots.inFlight()], []);
    await world.snapshots.prepare(ns1, 'next', 'base');
    await world.collect({ fullSweep: true });
    assert.deepEqual(await world.backendNames(), []);
  });

  it('given a transaction that fails, then what it prepared is removed from the backend', async (t) => {
    const world = await storeWorld(t);
    const failed = world.transaction(ns1, async (ctx) => {
      await world.snapshots.prepare(ctx, 'a', '');
      assert.equal(world.snapshots.inFlight().size, 1);
      throw new Error('back');
    });
    await assert.rejects(failed, /back/);
    assert.deepEqual(await world.backendNames(), []);
    assert.deepEqual(await world.walked(), []);
    assert.equal(world.snapshots.inFlight().size, 0);
  });

  it('given a run that prepares and a last one that does not, then what the first one made is removed', async (t) => {
    const world = await storeWorld(t);
    let runs = 0;
    await world.transaction(ns1, async (ctx, tx) => {
      tx.get('raw\0contended');
      if (++runs > 1) return;
      await world.snapshots.prepare(ctx, 'a', '');
      await (await world.content.writer(ctx, 'r')).write(Buffer.from('x'));
      await world.host.engine.update((other) => other.put('raw\0contended', 'x'));
    });
    assert.equal(runs, 2);
    assert.deepEqual(await world.backendNames(), []);
    assert.equal(world.snapshots.inFlight().size, 0);
    assert.equal(world.content.inFlightIngests().size, 0);
    assert.ok(world.host.guards.tryAcquire(snapshotGuard('native', 'ns1/1/a')));
    assert.ok(world.host.guards.tryAcquire(ingestGuard('ns1/1/r')));
    await (await world.blobs.writer('ns1/1/r', {})).close();
  });

  it('given one key prepared, removed and viewed in one transaction, then the view is a new snapshot', async (t) => {
    const world = await storeWorld(t);
    await world.transaction(ns1, async (ctx) => {
      await world.snapshots.prepare(ctx, 'r', '');
      await world.snapshots.remove(ctx, 'r');
      await world.snapshots.prepare(ctx, 'r', '');
      await world.snapshots.remove(ctx, 'r');
      await world.snapshots.view(ctx, 'r', '');
    });
    assert.equal((await world.snapshots.stat(ns1, 'r')).kind, 'view');
    assert.equal((await world.backendNames()).length, 3);
    await world.host.engine.update((tx) => tx.put('raw\0x', 'x'));
    await world.collect();
    assert.deepEqual(await world.backendNames(), []);
  });

  it('given a parent that is replaced between two runs, then the child is made again on the new one', async (t) => {
    const world = await storeWorld(t);
    await world.committed(ns1, 'base');
    let runs = 0;
    await world.transaction(ns1, async (ctx) => {
      runs++;
      await world.snapshots.prepare(ctx, 'a', 'base');
      if (runs > 1) return;
      const record = world.snapshot('ns1', 'base');
      assert.ok(record);
      await world.native.prepare('ns1/77/x', '');
      await world.native.commit('ns1/77/base', 'ns1/77/x');
      await world.host.engine.update((tx) => tx.put(keyOf('base'), { ...record, name: 'ns1/77/base' }));
    });
    assert.equal(runs, 2);
    const { parent } = await world.native.stat(world.snapshot('ns1', 'a')?.name ?? '');
    assert.equal(parent, 'ns1/77/base');
    assert.equal((await world.backendNames()).filter((name) => name.endsWith('/a')).length, 1);
  });

  it('[#230] [#232] given a read-only or a forgotten transaction, then FailedPrecondition and no backend call', async (t) => {
    const world = await storeWorld(t);
    await world.host.view({}, async (tx) => {
      await rejects(world.snapshots.prepare({ ...ns1, tx }, 'a', ''), 'FailedPrecondition', 'read-only');
      await rejects(world.snapshots.remove({ ...ns1, tx }, 'a'), 'FailedPrecondition', 'read-only');
    });
    await world.host.update({}, async () => {
      await rejects(world.snapshots.prepare(ns1, 'a', ''), 'FailedPrecondition', 'without its transaction');
    });
    assert.deepEqual(await world.backendNames(), []);
  });
});

describe('snapshots: conflicts while the backend commits', () => {
  /** A world where `meanwhile` runs between the backend's commit and the store's. */
  async function conflictWorld(t: TestContext, meanwhile: (world: StoreWorld) => Promise<unknown>) {
    let armed = false;
    const world: StoreWorld = await storeWorld(t, {
      native: (real) => ({
        commit: async (...args) => {
          await real.commit(...args);
          if (armed) await meanwhile(world);
        },
      }),
    });
    await world.committed(ns1, 'base', '', rooted);
    const leased = await world.lease(ns1, 'l');
    await world.snapshots.prepare(leased, 'a', 'base');
    armed = true;
    return { world, leased };
  }
  const touch = (world: StoreWorld): Promise<unknown> => {
    const record = world.snapshot('ns1', 'base');
    assert.ok(record);
    return world.host.engine.update((tx) => tx.put(keyOf('base'), { ...record, updatedat: now() }));
  };

  it('given a parent that is updated, then the commit goes on with what the backend did', async (t) => {
    const { world, leased } = await conflictWorld(t, touch);
    await world.snapshots.commit(leased, 'c', 'a');
    assert.equal((await world.snapshots.stat(ns1, 'c')).parent, 'base');
    assert.deepEqual(await world.held(ns1, 'l'), ['snapshots/native c']);
    assert.equal((await world.backendNames()).length, 2);
  });

  it('given a lease that is deleted, then the commit succeeds as if it had been deleted a moment later', async (t) => {
    const { world, leased } = await conflictWorld(t, (w) =>
      w.host.engine.update((tx) => tx.delete(leaseKey('ns1', 'l'))),
    );
    await world.snapshots.commit(leased, 'c', 'a');
    assert.equal((await world.snapshots.stat(ns1, 'c')).kind, 'committed');
  });

  it('given an active snapshot that is collected, then NotFound, and the next sweep takes what is left', async (t) => {
    const { world, leased } = await conflictWorld(t, (w) =>
      w.host.engine.update((tx) => {
        tx.unlink(keyOf('base'), Relation.children, keyOf('a'));
        tx.delete(keyOf('a'));
      }),
    );
    await rejects(world.snapshots.commit(leased, 'c', 'a'), 'NotFound');
    assert.equal((await world.backendNames()).length, 2);
    await world.collect();
    assert.deepEqual(await world.backendNames(), [world.snapshot('ns1', 'base')?.name]);
  });

  it('given a name that a transaction takes, then AlreadyExists, and the next sweep takes what is left', async (t) => {
    const { world, leased } = await conflictWorld(t, (w) => {
      const record = w.snapshot('ns1', 'base');
      assert.ok(record);
      return w.host.engine.update((tx) => tx.put(keyOf('c'), { ...record, name: 'ns1/70/c' }));
    });
    await rejects(world.snapshots.commit(leased, 'c', 'a'), 'AlreadyExists');
    await world.collect();
    assert.deepEqual(await world.backendNames(), [world.snapshot('ns1', 'base')?.name]);
  });
});

describe('snapshots: sweeps beside writers', () => {
  it('given a sweep of everything while a snapshot is prepared, then it stays', async (t) => {
    let sweep: Promise<unknown> = Promise.resolve();
    const world: StoreWorld = await storeWorld(t, {
      native: (real) => ({
        prepare: async (...args) => {
          const mounts = await real.prepare(...args);
          assert.equal(world.snapshots.inFlight().size, 1);
          sweep = world.collect({ fullSweep: true });
          await new Promise((resolve) => setTimeout(resolve, 50));
          return mounts;
        },
      }),
    });
    const leased = await world.lease(ns1, 'l');
    await world.snapshots.prepare(leased, 'a', '');
    await sweep;
    assert.equal((await world.snapshots.stat(ns1, 'a')).kind, 'active');
  });

  it('given a signal that has ended, then Canceled and nothing is made', async (t) => {
    const world = await storeWorld(t);
    const ctx = { ...ns1, signal: AbortSignal.abort() };
    await rejects(world.snapshots.prepare(ctx, 'a', ''), 'Canceled');
    assert.deepEqual(await world.backendNames(), []);
  });

  it('given a backend that lost what a failed call made, then that does no harm', async (t) => {
    const world: StoreWorld = await storeWorld(t, {
      native: (real) => ({
        prepare: async (...args) => {
          const mounts = await real.prepare(...args);
          await world.leases.delete(ns1, 'l');
          return mounts;
        },
        remove: async (key) => {
          await real.remove(key);
          throw notFound('gone');
        },
      }),
    });
    const leased = await world.lease(ns1, 'l');
    await rejects(world.snapshots.prepare(leased, 'a', ''), 'NotFound', 'lease');
    assert.ok(!world.logged.some((line) => line.includes('not recorded')));
  });
});
