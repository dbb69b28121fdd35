/** What a sweep leaves to the next one: flags raised while it ended, and items that a backend refused to remove. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { metaKey } from '../../src/engine/schema/keys.js';
import { failedPrecondition } from '../../src/errors.js';
import { Scheduler } from '../../src/gc/schedule/scheduler.js';
import type { GCStats } from '../../src/gc/stats.js';
import { CONTENT_BACKEND, DirtyFlags } from '../../src/gc/sweep/dirty.js';
import { FakeClock } from '../support/fake-clock.js';
import { digest, gc, type World, world } from '../support/gc-world.js';

const CONTENT_FLAG = metaKey('dirty', 'content');

/** Waits for what comes a round trip later where the records are in etcd. */
async function stored(w: World, flag: string): Promise<boolean> {
  for (let i = 0; i < 200 && !w.engine.has(flag); i++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  return w.engine.has(flag);
}

for (const when of ['after the body', 'after the commit'] as const) {
  test(`given a removal added to the flag ${when} of the transaction that lowers the flag, when the next run comes, then the bytes go`, async (t) => {
    const w = await world(t);
    await w.blob('kept', { [gc('root')]: 'x' });
    await w.blob('first');
    const late = digest('late');
    w.content.blobs.set(late, 100);
    const update = w.engine.update.bind(w.engine);
    let done = false;
    const note = (): void => {
      done = true;
      w.dirty.removedElsewhere([{ kind: 'blob', digest: late }]);
    };
    t.mock.method(w.engine, 'update', (...[fn, options]: Parameters<typeof update>) =>
      update((tx) => {
        const before = tx.has(CONTENT_FLAG);
        const lowers = (): boolean => before && !done && !tx.has(CONTENT_FLAG);
        // In front of the flag's own hook.
        if (when === 'after the commit') tx.onCommit(() => lowered && note());
        const result = fn(tx);
        const lowered = lowers();
        if (lowered && when === 'after the body') note();
        return result;
      }, options),
    );
    await w.collect();
    t.mock.reset();
    assert.equal(done, true);
    assert.equal(w.content.blobs.has(late), true);
    assert.equal(w.dirty.contentDirty, true, 'the flag is not lowered over it');
    assert.equal(await stored(w, CONTENT_FLAG), true, 'nor lost by a restart');
    await w.collect();
    assert.deepEqual([...w.content.blobs.keys()], [digest('kept')]);
    assert.deepEqual([w.dirty.contentDirty, w.engine.has(CONTENT_FLAG)], [false, false]);
  });
}

test('given a snapshot that the backend refuses to remove, when runs follow, then it is tried after longer and longer waits', async (t) => {
  const w = await world(t);
  const refused = await w.snapshot('refused', {});
  const base = await w.snapshot('base');
  await w.snapshot('top', { parent: 'base' });
  w.native.items.get(refused)!.parent = base;
  w.native.failures.set(refused, failedPrecondition('in use'));
  const attempts: number[] = [];
  let ms = 0;
  t.mock.method(performance, 'now', () => ms);
  w.native.beforeRemove = async (name) => {
    if (name === refused) attempts.push(ms);
  };
  const first = await w.collect();
  assert.deepEqual([first.refused, first.backendErrors, first.retryInMs], [2, 0, 10_000]);
  assert.match(w.logged.join(), /refused to remove.*"refused":2/);
  for (ms = 0; ms < 200_000; ms += 1000) await w.collect();
  assert.deepEqual(attempts, [0, 10_000, 30_000, 70_000, 150_000]);
  assert.equal(w.native.walks, 0, 'from a list');
  assert.ok(w.engine.has(metaKey('dirty', 'snapshots', 'native')));

  const restarted = Object.assign(Object.create(w) as World, { dirty: new DirtyFlags(w.engine) });
  restarted.dirty.load();
  w.native.failures.clear();
  const last = await restarted.collect();
  assert.deepEqual([last.orphans.snapshot, last.refused, last.retryInMs], [2, 0, undefined]);
  assert.deepEqual([...w.native.items.keys()], []);
  assert.equal(w.engine.has(metaKey('dirty', 'snapshots', 'native')), false);
});

test('given a blob and an ingest that the backend refuses to remove, when it is due, then they are tried again', async (t) => {
  const w = await world(t);
  await w.blob('kept', { [gc('root')]: 'x' });
  await w.blob('b');
  await w.ingest('i', { expires: 'past' });
  w.content.failure = failedPrecondition('immutable');
  let ms = 0;
  t.mock.method(performance, 'now', () => ms);
  const stats = await w.collect();
  assert.deepEqual([stats.refused, stats.backendErrors], [2, 0]);
  w.content.failure = undefined;
  await w.collect();
  assert.equal(w.content.blobs.size, 2);
  ms = 10_000;
  await w.collect();
  assert.deepEqual([w.content.blobs.size, w.content.ingests.size, w.content.walks], [1, 0, 0]);
  assert.equal(w.dirty.contentDirty, false);
});

test('given a run that says when refused items are due, when nothing else happens, then the scheduler runs by then', async () => {
  const clock = new FakeClock();
  const runs: number[] = [];
  const stats = (retryInMs: number | undefined) => ({ elapsed: () => 1, retryInMs }) as unknown as GCStats;
  await using _scheduler = new Scheduler<GCStats>(
    {
      garbageCollect: async () => stats(runs.push(clock.now()) === 1 ? 10_000 : undefined),
      registerMutationCallback: () => undefined,
    },
    {},
    { clock },
  );
  await clock.advance(30_000);
  assert.equal(runs.length, 2);
  assert.ok(runs[1]! - runs[0]! >= 10_000 && runs[1]! - runs[0]! < 13_000, String(runs));
});

test('given removals that account for some items, when records go that nobody removed, then they account for nothing', async (t) => {
  const w = await world(t);
  await w.engine.update((tx) => w.dirty.markRemoved(tx, { kind: 'blob', digest: digest('a') }));
  assert.equal(w.dirty.accounted(CONTENT_BACKEND), 1);
  w.dirty.requireFullScan([]);
  assert.equal(w.dirty.accounted(CONTENT_BACKEND), 1);
  w.dirty.requireSurvey([]);
  assert.equal(w.dirty.accounted(CONTENT_BACKEND), 0);
});
