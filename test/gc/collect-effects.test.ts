/** What a collection does beside removing: events, figures, its work in pieces, dry runs, and how it fails. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { MarkOptions } from '../../src/engine/graph.js';
import { backendNameKey, blobKey, Relation } from '../../src/engine/schema/keys.js';
import { EbbtideError, isKind } from '../../src/errors.js';
import { digest, gc, past, world } from '../support/gc-world.js';

const ref = gc('ref.content.0');

describe('what a collection does', () => {
  test('[#208] given a removed snapshot, when collected, then an event says so; a failing publisher harms nothing', async (t) => {
    const w = await world(t);
    const events: unknown[] = [];
    w.publisher = {
      publish: async (...event) => {
        events.push(event);
        throw new Error('there is no subscriber');
      },
    };
    await w.in('ns2').snapshot('s');
    await w.collect();
    assert.deepEqual(events, [['ns2', '/snapshot/remove', { key: 's', snapshotter: 'native' }]]);
    assert.ok(w.logged.some((line) => line.includes('there is no subscriber')));
    assert.deepEqual(w.left(), []);
  });

  test('given live marks that are wrong, when a full collection runs, then it does not rely on them', async (t) => {
    const w = await world(t);
    const { graph } = w.engine;
    const mark = graph.mark.bind(graph);
    t.mock.method(graph, 'mark', (at: bigint, options: MarkOptions = {}) =>
      mark(at, options.live ? { ...options, live: 'no-cascade' } : options),
    );
    await w.blob('child');
    await w.blob('parent', { [ref]: digest('child') });
    await w.image('app', 'parent');
    await w.collect();
    await w.remove(w.imageKey('app'));
    await w.collect();
    assert.deepEqual(w.left('child'), ['blob child'], 'the fault leaves what the parent referred to');
    await w.collect({ fullSweep: true });
    assert.deepEqual(w.left(), []);
  });

  test('given no memory for live marks, when collected, then the run does without them', async (t) => {
    const w = await world(t);
    const { graph } = w.engine;
    const mark = graph.mark.bind(graph);
    t.mock.method(graph, 'mark', async (at: bigint, options: MarkOptions = {}) => {
      if (options.live) throw new EbbtideError('ResourceExhausted', 'out of memory');
      return mark(at, options);
    });
    await w.blob('garbage');
    await w.collect();
    assert.deepEqual(w.left(), []);
    assert.ok(w.logged.some((line) => line.includes('no memory for live marks')));
  });

  test('[#209] given a swept snapshotter, when collected, then the stats have its time and no other', async (t) => {
    const w = await world(t);
    await w.snapshot('s');
    const stats = await w.collect();
    assert.equal(stats.elapsed(), stats.metaD);
    assert.ok(stats.metaD > 0);
    assert.equal(stats.contentD, 0);
    assert.deepEqual(Object.keys(stats.snapshotD), ['native']);
    assert.ok(stats.slices >= 1 && stats.pauseMax > 0 && stats.pauseTotal >= stats.pauseMax);
  });

  test('[#210] given a collected store, when collected again, then nothing is removed and no backend swept', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.snapshot('s');
    await w.collect();
    const stats = await w.collect();
    assert.deepEqual(stats.removed, {});
    assert.equal(stats.contentD, 0);
    assert.deepEqual(stats.snapshotD, {});
    assert.deepEqual([w.content.walks, w.native.walks, w.native.cleanups], [0, 0, 1]);
  });

  test('[#211] given 10 000 unreferenced blobs, when collected, then one run removes them all', async (t) => {
    const w = await world(t);
    await w.engine.update((tx) => {
      for (let i = 0; i < 10_000; i++) {
        tx.put(blobKey('ns1', digest(`${i}`)), { createdat: 1n, updatedat: 1n, size: 1 });
      }
    });
    const stats = await w.collect();
    assert.deepEqual(stats.removed, { content: 10_000 });
    assert.deepEqual(w.left(), []);
    assert.ok(stats.slices > 1, 'it took more than one slice');
  });

  test('[#212] given a surviving parent, when its child was collected, then it has no children left', async (t) => {
    const w = await world(t);
    await w.snapshot('parent', { labels: { [gc('root')]: '1' } });
    await w.snapshot('child', { parent: 'parent' });
    await w.collect();
    assert.deepEqual(w.left(), ['snapshot native/parent']);
    assert.deepEqual([...w.engine.links(w.snapshotKey('parent'), Relation.children)], []);
  });

  test('given a stale child entry in imported data, when collected, then the parent goes all the same', async (t) => {
    const w = await world(t);
    await w.snapshot('parent');
    await w.engine.update((tx) => {
      tx.link(w.snapshotKey('parent'), Relation.children, w.snapshotKey('long gone'));
    });
    await w.collect();
    assert.deepEqual(w.left(), []);
  });

  test('given a snapshot that adopted another’s backend item, when collected, then its mark is gone, too', async (t) => {
    const w = await world(t);
    const name = await w.snapshot('remote', { labels: { [gc('root')]: '1' } });
    const adopted = w.in('ns2').snapshotKey('remote');
    await w.engine.update((tx) => {
      tx.put(adopted, { createdat: 1n, updatedat: 1n, name });
      tx.link(backendNameKey('native', name), Relation.named, adopted);
    });
    await w.collect();
    assert.deepEqual(w.left(), ['snapshot native/remote']);
    assert.deepEqual([...w.engine.links(backendNameKey('native', name), Relation.named)], []);
    assert.equal(w.native.items.size, 1, 'the first namespace still names it');
  });

  test('given an expired lease with very many resources, when collected, then it goes in pieces', async (t) => {
    const w = await world(t);
    const held = Array.from({ length: 2000 }, (_, i) => blobKey('ns1', digest(`${i}`)));
    await w.lease('big', { [gc('expire')]: past() }, ...held);
    const stats = await w.collect();
    assert.deepEqual(stats.removed, { lease: 1 });
    assert.ok(stats.slices >= 4, `${stats.slices} slices`);
    assert.deepEqual(w.left(), []);
  });

  test('given a dry run, when asked, then it lists with sizes and removes nothing', async (t) => {
    const w = await world(t);
    await w.blob('child');
    await w.blob('a', { [ref]: digest('child') });
    await w.snapshot('s');
    await w.image('expired', 'a', { [gc('expire')]: past() });
    const stats = await w.collect({ dryRun: true });
    assert.deepEqual(
      stats.wouldRemove?.map(({ kind, key, size }) => [kind, key, size]).sort(),
      [
        ['content', digest('a'), 100],
        ['content', digest('child'), 100],
        ['image', 'expired', 0],
        ['snapshot', 'native/s', 4096],
      ].sort(),
    );
    assert.deepEqual(stats.removed, {});
    assert.equal(w.left().length, 4);
    const kinds = stats.wouldRemove?.map(({ key }) => key) ?? [];
    assert.ok(kinds.indexOf('expired') < kinds.indexOf(digest('a')), 'referrers come first');
    assert.ok(kinds.indexOf(digest('a')) < kinds.indexOf(digest('child')));
    await w.collect();
    assert.deepEqual(w.left(), []);
  });

  test('given an ended context, when collected, then it rejects with its error and nothing is removed', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await assert.rejects(w.collect({ signal: AbortSignal.abort() }), (e) => isKind(e, 'Canceled'));
    assert.equal(w.left().length, 1);
    await w.collect();
    assert.deepEqual(w.left(), []);
  });

  test('given a slice budget of nothing, when collected, then it is refused', async (t) => {
    const w = await world(t);
    for (const sliceBudgetMs of [0, -1, Number.NaN]) {
      await assert.rejects(w.collect({ sliceBudgetMs }), (e) => isKind(e, 'InvalidArgument'));
    }
  });

  test('given deletions, when collected, then the counter starts over', async (t) => {
    const w = await world(t);
    await w.image('app', 'x');
    await w.remove(w.imageKey('app'));
    assert.equal(w.dirty.deletions, 1);
    await w.collect();
    assert.equal(w.dirty.deletions, 0);
  });
});
