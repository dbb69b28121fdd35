/** What becomes of everything built on commits that the disk then refuses. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { key } from '../../src/engine/schema/keys.js';
import { assertGraphSound, assertKind, gate } from '../../src/engine/suite/support.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { unavailable } from '../../src/errors.js';
import { createGraph } from '../../src/graph/carriers.js';
import { tempDir } from './temp.js';

const image = (name: string): string => key('images', 'ns', name);
const blob = (name: string): string => key('blobs', 'ns', name);

async function openFailing(
  t: TestContext,
): Promise<{ engine: CoreEngine; dir: string; failNext: () => void; warnings: string[] }> {
  const dir = await tempDir(t);
  const warnings: string[] = [];
  const warn = (message: string) => void warnings.push(message);
  const engine = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph(), warn });
  const { storage } = engine;
  assert.ok(storage instanceof LmdbStorage);
  const append = storage.append.bind(storage);
  const failNext = () => {
    storage.append = async () => {
      storage.append = append;
      // A disk takes its time.
      await new Promise((resolve) => setImmediate(resolve));
      throw unavailable('the disk is full');
    };
  };
  return { engine, dir, failNext, warnings };
}

test('given commits that others build on, when the first cannot be written, then all go and the graph with them', async (t) => {
  const { engine, dir, failNext } = await openFailing(t);
  const counter = key('meta', 'n');
  await engine.update((tx) => {
    for (const name of ['a', 'b', 'c']) tx.put(image(name), { root: true, refs: { label: blob(name) } });
    tx.link(image('a'), 'holds', blob('x'));
    tx.next(counter);
  });
  failNext();
  const lost = [
    engine.update((tx) => {
      tx.delete(image('a'));
      tx.put(image('b'), { refs: { label: blob('new') } });
      tx.next(counter);
    }),
    engine.update((tx) => {
      tx.put(image('d'), { refs: { label: image('b') } });
      tx.delete(image('c'));
      tx.link(image('b'), 'holds', blob('y'));
    }),
  ];
  assert.equal(engine.has(image('a')), false);
  for (const update of lost) await assert.rejects(update, assertKind('Unavailable'));
  assert.deepEqual(
    [...engine.scan('images')],
    ['a', 'b', 'c'].map((name) => [image(name), { root: true, refs: { label: blob(name) } }]),
  );
  assert.deepEqual([...engine.links(image('a'), 'holds')], [blob('x')]);
  assert.equal(engine.isReferenced(blob('new')), false);
  assert.equal(engine.stats().records, 3);
  assertGraphSound(engine);
  // New nodes must not get ids that came back into use.
  await engine.update((tx) => {
    for (let i = 0; i < 20; i++) tx.put(image(`later${i}`), { refs: { label: blob(`later${i}`) } });
    assert.equal(tx.next(counter), 3);
  });
  assertGraphSound(engine);
  await engine.close();
  const again = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph() });
  assert.equal(again.stats().records, 23);
  assertGraphSound(again);
  await again.close();
});

test('given a transaction that has read a lost commit, when it goes on, then it runs again; a view fails', async (t) => {
  const { engine, failNext } = await openFailing(t);
  await engine.update((tx) => tx.put(image('a'), 'old'));
  failNext();
  const lost = assert.rejects(
    engine.update((tx) => tx.put(image('a'), 'lost')),
    assertKind('Unavailable'),
  );
  const ready = gate();
  const seen: unknown[] = [];
  const update = engine.update(async (tx) => {
    seen.push(tx.get(image('a')));
    await ready.opened;
    tx.put(image('b'), { digest: String(tx.get(image('a'))) });
  });
  const view = assert.rejects(
    engine.view(async (tx) => {
      assert.equal(tx.get(image('a')), 'lost');
      await ready.opened;
      tx.get(image('a'));
    }),
    assertKind('Unavailable'),
  );
  await lost;
  ready.open();
  await Promise.all([update, view]);
  assert.deepEqual(seen, ['lost', 'old']);
  assert.deepEqual(engine.get(image('b')), { digest: 'old' });
  assertGraphSound(engine);
  await engine.close();
});

test('given visible commits, when they cannot be written, then flush rejects and the next ones are stored', async (t) => {
  const { engine, failNext, warnings } = await openFailing(t);
  failNext();
  await engine.update((tx) => tx.put(image('a'), 'v'), { durability: 'visible' });
  await assert.rejects(engine.flush(), assertKind('Unavailable'));
  assert.deepEqual(warnings, ['1 commits could not be stored: the disk is full']);
  assert.equal(engine.has(image('a')), false);
  await engine.update((tx) => tx.put(image('b'), 'v'));
  assert.equal(engine.has(image('b')), true);
  await engine.close();
});
