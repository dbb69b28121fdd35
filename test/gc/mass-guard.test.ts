import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EbbtideError, isKind } from '../../src/errors.js';
import type { CollectOptions } from '../../src/gc/collect.js';
import { gc, type World, world } from '../support/gc-world.js';

/** Kept and garbage blobs in one namespace. */
async function blobs(w: World, kept: number, garbage: number): Promise<void> {
  for (let i = 0; i < kept; i++) await w.blob(`kept ${i}`, { [gc('root')]: 'x' });
  for (let i = 0; i < garbage; i++) await w.blob(`garbage ${i}`);
}

async function refused(w: World, options: CollectOptions, message: RegExp): Promise<void> {
  const before = w.left();
  await assert.rejects(w.collect(options), (error: Error) => {
    assert.ok(error instanceof EbbtideError && isKind(error, 'FailedPrecondition'));
    assert.match(error.message, message);
    assert.match(error.remedy ?? '', /--allow-mass-removal.*massGuard: false/);
    return true;
  });
  assert.deepEqual(w.left(), before, 'nothing was removed');
}

describe('the guard against mass removal', () => {
  test('given a share at the limit and one above, when collected, then only the second is refused', async (t) => {
    const at = await world(t);
    await blobs(at, 1, 9);
    assert.equal((await at.collect({ massGuard: { floor: 5 } })).removed.content, 9);
    const above = await world(t);
    await blobs(above, 1, 10);
    await refused(above, { massGuard: { floor: 5 } }, /would remove 10 of 11 blobs \(90 %\)/);
    await refused(above, { massGuard: { floor: 5, maxShare: 0.5 } }, /10 of 11 blobs/);
    assert.equal((await above.collect()).removed.content, 10, 'no guard unless asked for');
  });

  test('given few objects, when all are garbage, then the floor lets them go', async (t) => {
    const w = await world(t);
    await blobs(w, 0, 20);
    assert.equal((await w.collect({ massGuard: true })).removed.content, 20);
  });

  test('given snapshots above the share, when collected, then the run is refused', async (t) => {
    const w = await world(t);
    await w.snapshot('kept', { labels: { [gc('root')]: 'x' } });
    for (let i = 0; i < 12; i++) await w.snapshot(`s${i}`);
    await refused(w, { massGuard: { floor: 10 } }, /12 of 13 snapshots/);
  });

  test('given a namespace with records and no root, when the store has others, then the run is refused', async (t) => {
    const w = await world(t);
    await blobs(w, 30, 0);
    await blobs(w.in('tenant'), 0, 8);
    await refused(w, { massGuard: { floor: 7 } }, /namespace "tenant" has 8 records but no root left/);
    await w.in('tenant').lease('one', {});
    assert.equal((await w.collect({ massGuard: { floor: 7 } })).removed.content, 8, 'a lease is a root');
  });

  test('given a refused run, when its guard is off, a dry run, or limited, then it goes on', async (t) => {
    const w = await world(t);
    await blobs(w, 1, 20);
    const massGuard = { floor: 5 };
    await refused(w, { massGuard }, /20 of 21/);
    assert.equal((await w.collect({ massGuard, dryRun: true })).wouldRemove?.length, 20);
    assert.equal((await w.collect({ massGuard, maxObjects: 5 })).removed.content, 5);
    assert.equal((await w.collect({ massGuard: false })).removed.content, 15);
  });

  test('given what only a condition keeps, when counted, then it counts as kept', async (t) => {
    const w = await world(t);
    await w.blob('root', { [gc('root')]: 'x', [gc('cond.snapshot.native')]: 'usedat>1h|cache' });
    await w.snapshot('cache', { labels: { [gc('cond.value-usedat')]: '2001-01-01T00:00:00Z' } });
    await w.snapshot('lost');
    assert.equal((await w.collect({ massGuard: { floor: 0, maxShare: 0.5 } })).removed.snapshot, 1);
  });

  test('given limits that are none, when collected, then they are refused', async (t) => {
    const w = await world(t);
    for (const massGuard of [{ maxShare: 2 }, { maxShare: Number.NaN }, { floor: -1 }]) {
      await assert.rejects(w.collect({ massGuard }), (error) => isKind(error, 'InvalidArgument'));
    }
  });
});

describe('limits of one run', () => {
  test('given more garbage than objects allowed, when collected twice, then each run removes its part', async (t) => {
    const w = await world(t);
    await w.blob('kept', { [gc('root')]: 'x' });
    for (let i = 0; i < 5; i++) await w.blob(`b${i}`);
    w.dirty.load();
    await w.engine.update((tx) => w.dirty.countDeletion(tx));
    const first = await w.collect({ maxObjects: 3 });
    assert.deepEqual([first.removed.content, first.limited], [3, true]);
    assert.equal(w.dirty.deletions, 1, 'there is more to collect');
    assert.equal(w.content.blobs.size, 3);
    const second = await w.collect({ maxObjects: 3 });
    assert.deepEqual([second.removed.content, second.limited], [2, false]);
    assert.equal(w.dirty.deletions, 0);
    assert.deepEqual(w.left('kept'), ['blob kept']);
  });

  test('given a chain of snapshots, when limited, then leaves go first and nothing is torn', async (t) => {
    const w = await world(t);
    await w.snapshot('s0');
    for (let i = 1; i < 6; i++) await w.snapshot(`s${i}`, { parent: `s${i - 1}` });
    await w.collect({ maxObjects: 2 });
    assert.deepEqual(
      w.left(),
      ['s0', 's1', 's2', 's3'].map((name) => `snapshot native/${name}`),
    );
    assert.deepEqual([...w.native.items.keys()].length, 4);
    await w.collect({ maxBytes: 4096 });
    assert.equal(w.left().length, 3);
    await w.collect({ maxBytes: 10_000 });
    assert.equal(w.left().length, 1);
  });

  test('given an object larger than the bytes allowed, when collected, then it goes alone', async (t) => {
    const w = await world(t);
    for (const name of ['a', 'b']) await w.blob(name);
    const stats = await w.collect({ maxBytes: 10 });
    assert.deepEqual([stats.removed.content, stats.limited], [1, true]);
  });

  test('given limits that are none, when collected, then they are refused', async (t) => {
    const w = await world(t);
    for (const options of [{ maxObjects: 0 }, { maxBytes: -1 }, { maxBytes: Number.NaN }]) {
      await assert.rejects(w.collect(options), (error) => isKind(error, 'InvalidArgument'));
    }
  });

  test('given a run cancelled between slices, when the next one runs, then the store is whole and the rest goes', async (t) => {
    const w = await world(t);
    for (let i = 0; i < 300; i++) await w.blob(`b${i}`);
    const abort = new AbortController();
    let slices = 0;
    const update = w.engine.update.bind(w.engine);
    t.mock.method(w.engine, 'update', (...args: Parameters<typeof update>) => {
      if (++slices === 2) abort.abort();
      return update(...args);
    });
    await assert.rejects(w.collect({ signal: abort.signal, sliceBudgetMs: 0.01 }), (e) =>
      isKind(e, 'Canceled'),
    );
    t.mock.reset();
    const left = w.left().length;
    assert.ok(left > 0 && left < 300, `${left} left`);
    assert.deepEqual(w.engine.verifyGraph(), []);
    assert.equal(w.content.blobs.size, 300, 'bytes go only with a run that ends');
    assert.equal((await w.collect()).removed.content, left);
    assert.equal(w.content.blobs.size, 0);
  });
});
