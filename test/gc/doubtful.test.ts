/**
 * Records that go without anybody of the tree removing them, while a sweep has its list from before: nothing of it goes before the
 * guard has seen what is missing.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { MountPoints } from '../../src/backends/mount-points.js';
import { key } from '../../src/engine/schema/keys.js';
import { BackendSweeper } from '../../src/gc/sweep/backend-sweeper.js';
import type { BackendItem } from '../../src/gc/sweep/orphan-candidates.js';
import { orphanLimits } from '../../src/gc/sweep/orphan-guard.js';
import { type MountHost, sweepMounts } from '../../src/stores/mounts/sweep.js';
import { digest, type World, world } from '../support/gc-world.js';

/** As a mirror does: told first, then all records go. */
async function lose(w: World): Promise<void> {
  w.dirty.requireSurvey([...w.backends.keys()]);
  await w.engine.update((tx) => {
    for (const [record] of [...w.engine.scan('')]) if (!record.startsWith(key('meta'))) tx.delete(record);
  });
}

/** A blob, an ingest and a snapshot with their records, all on the lists of the next sweep; and one blob more. */
async function listed(t: TestContext): Promise<World> {
  const w = await world(t, { snapshotters: ['native'] });
  // What a start has to look through is done.
  await w.collect();
  await w.blob('a', { 'containerd.io/gc.root': 'x' });
  await w.blob('b', { 'containerd.io/gc.root': 'x' });
  const items: BackendItem[] = [
    { kind: 'blob', digest: digest('a') },
    { kind: 'ingest', ref: await w.ingest('r', { expires: 'future' }) },
    { kind: 'snapshot', snapshotter: 'native', name: await w.snapshot('s'), parent: '' },
  ];
  await w.engine.update((tx) => w.dirty.markRemoved(tx, ...items));
  return w;
}

const left = (w: World): number[] => [w.content.blobs.size, w.content.ingests.size, w.native.items.size];

async function sweep(w: World): Promise<string[]> {
  const errors: string[] = [];
  const sweeper = new BackendSweeper(w, orphanLimits(undefined));
  await sweeper.survey(false);
  await sweeper.sweep((_, report) => errors.push(...report.errors));
  return errors;
}

for (const [when, arrange] of Object.entries({
  'before the items are asked about': (w: World, lost: () => Promise<void>) => {
    const { engine } = w;
    w.engine.foregroundDone = lost;
    const { flush } = engine;
    w.engine.flush = async () => {
      await lost();
      await flush.call(engine);
    };
  },
  'while a guard is waited for': (w: World, lost: () => Promise<void>) => {
    w.guards.tryAcquire = () => undefined;
    w.guards.tryAcquireMany = (names) => ({ taken: names.map(() => false), release: () => undefined });
    const { acquire } = w.guards;
    w.guards.acquire = async (name) => {
      await lost();
      return acquire.call(w.guards, name);
    };
  },
})) {
  test(`given a sweep with lists, when all records go that nobody removed ${when}, then nothing is removed until there is consent`, async (t) => {
    const w = await listed(t);
    let losses = 0;
    let losing: Promise<void> | undefined;
    arrange(w, () => {
      if (losing === undefined) {
        losses++;
        losing = lose(w);
      }
      return losing;
    });
    const errors = await sweep(w);
    assert.equal(losses, 1);
    assert.match(errors.join('\n'), /records went that no host removed/);
    assert.deepEqual(left(w), [2, 1, 1]);
    // Now the guard is asked.
    await assert.rejects(sweep(w), /no record names 2 blobs and 1 ingest/);
    await assert.rejects(w.collect(), /the store is empty/);
    assert.deepEqual(left(w), [2, 1, 1]);
    await w.collect({ fullSweep: true, orphanGuard: false });
    assert.deepEqual(left(w), [0, 0, 0]);
  });
}

test('given a sweep that had nothing to look through, when all records go before it takes its lists, then nothing is removed', async (t) => {
  const w = await listed(t);
  const errors: string[] = [];
  const sweeper = new BackendSweeper(w, orphanLimits(undefined));
  await sweeper.survey(false);
  await lose(w);
  await sweeper.sweep((_, report) => errors.push(...report.errors));
  assert.match(errors.join('\n'), /no record names 2 blobs/);
  assert.deepEqual(left(w), [2, 1, 1]);
});

test('given a list of one ingest, when all records go before it is asked about, then it stays', async (t) => {
  const w = await world(t, { snapshotters: [] });
  await w.collect();
  const ref = await w.ingest('r', { expires: 'future' });
  await w.engine.update((tx) => w.dirty.markRemoved(tx, { kind: 'ingest', ref }));
  const errors: string[] = [];
  const sweeper = new BackendSweeper(w, orphanLimits(undefined));
  await sweeper.survey(false);
  const swept = sweeper.sweep((_, report) => errors.push(...report.errors));
  // It has its list.
  await lose(w);
  await swept;
  assert.match(errors.join('\n'), /records went that no host removed/);
  assert.equal(w.content.ingests.size, 1);
});

test('given doubt that no survey has settled, when the next sweep begins, then all backends are looked through', async (t) => {
  const w = await listed(t);
  const sweeper = new BackendSweeper(w, orphanLimits(undefined));
  await sweeper.survey(false);
  w.dirty.requireSurvey(['native']);
  await sweeper.sweep(() => undefined);
  assert.ok(w.dirty.isDoubtful);
  await w.engine.update((tx) => {
    tx.delete(w.blobKey('a'));
    w.dirty.markRemoved(tx, { kind: 'blob', digest: digest('a') });
  });
  assert.deepEqual(await sweep(w), []);
  assert.deepEqual(left(w), [1, 1, 1]);
  assert.ok(!w.dirty.isDoubtful);
});

test('given records that went that nobody removed, when the guard finds few orphans, then they go, and lists count again', async (t) => {
  const w = await listed(t);
  w.dirty.requireSurvey(['native']);
  await w.engine.update((tx) => tx.delete(w.blobKey('b')));
  assert.deepEqual(await sweep(w), []);
  assert.deepEqual(left(w), [1, 1, 1]);
  await w.remove(w.blobKey('a'));
  assert.deepEqual(await sweep(w), []);
  assert.deepEqual(left(w), [0, 1, 1]);
});

test('given records that go while the backends are looked through, when the guard lets that pass, then nothing is removed yet', async (t) => {
  const w = await listed(t);
  w.content.blobs.set(digest('orphan'), 1);
  w.dirty.requireFullScan(['native']);
  const { walk } = w.native;
  let losses = 0;
  // The content was looked through by now.
  w.native.walk = async (visit) => {
    await walk.call(w.native, visit);
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (losses++ === 0) w.dirty.requireSurvey(['native']);
  };
  assert.match((await sweep(w)).join('\n'), /records went that no host removed/);
  assert.deepEqual(left(w), [3, 1, 1]);
  assert.deepEqual(await sweep(w), []);
  assert.deepEqual(left(w), [2, 1, 1]);
});

test('given a namespace without a record of its own, when its blobs are swept, then they are named all the same', async (t) => {
  const w = await listed(t);
  await w.in('ns2').blob('c', { 'containerd.io/gc.root': 'x' });
  await w.in('ns3').ingest('r', { expires: 'future', expected: 'd' });
  w.content.blobs.set(digest('d'), 1);
  await w.engine.update((tx) => {
    for (const [record] of [...w.engine.scan(key('namespaces'))]) tx.delete(record);
  });
  w.dirty.requireFullScan(['native']);
  assert.deepEqual(await sweep(w), []);
  assert.equal(w.content.blobs.size, 4);
});

test('given a mount without a record, when its store may have lost its metadata, then it stays mounted', async (t) => {
  const w = await listed(t);
  const removed: string[] = [];
  const mountPoints = {
    list: () => ['a', 'b'],
    remove: (directory: string) => {
      removed.push(directory);
      w.dirty.requireSurvey([]);
    },
  } as unknown as MountPoints;
  const host = Object.assign(Object.create(w) as World & MountHost, { mountPoints });
  Object.defineProperty(host, 'isDoubtful', { get: () => w.dirty.isDoubtful });
  w.dirty.requireSurvey([]);
  assert.deepEqual([await sweepMounts(host), removed], [[], []]);
  w.dirty.settle(w.dirty.doubts);
  // Lost again when the first one has gone.
  assert.deepEqual([await sweepMounts(host), removed], [[], ['a']]);
});
