/**
 * A commit that fails when the graph has some of it already: the graph is as it was before, or nothing relies on it any more.
 * Otherwise a collection would remove what a record still refers to.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';

import { GraphOp } from '../../src/engine/graph.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { key } from '../../src/engine/schema/keys.js';
import { EbbtideError, OutcomeUnknown } from '../../src/errors.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { createGraph } from '../../src/graph/carriers.js';
import { world } from '../support/gc-world.js';
import { tempDir } from '../support/temp.js';

const noMemory = (): EbbtideError => new EbbtideError('ResourceExhausted', 'out of memory');

/** A core whose next batches fail, as `fails` says. */
function failing() {
  const graph = createGraph();
  const apply = graph.apply.bind(graph);
  const state = { fails: (_ops: Uint32Array): boolean => false };
  graph.apply = (ops) => {
    if (state.fails(ops)) throw noMemory();
    apply(ops);
  };
  return { graph, state };
}

async function twoImages(t: TestContext) {
  const { graph, state } = failing();
  const w = await world(t, { graph });
  await w.blob('kept');
  await w.image('app', 'kept');
  await w.image('other', 'dangling');
  const removal = () =>
    w.engine.update((tx) => {
      tx.delete(w.imageKey('other'));
      tx.delete(w.imageKey('app'));
    });
  return { w, graph, state, removal };
}

test('given ids that cannot be freed, when a commit is refused, then the graph is as before and a collection keeps what is referred to', async (t) => {
  const { w, state, removal } = await twoImages(t);
  state.fails = (ops) => ops[0] === GraphOp.free;
  await assert.rejects(removal(), /out of memory/);
  state.fails = () => false;
  assert.deepEqual(w.engine.verifyGraph(), []);
  await w.collect();
  assert.deepEqual(w.left('kept'), ['blob kept', 'image app', 'image other']);
  await removal();
  await w.collect();
  assert.deepEqual(w.left(), []);
  assert.deepEqual(w.engine.verifyGraph(), []);
});

for (const [what, breaks] of [
  ['cannot be taken back', () => undefined],
  ['is emptied by a failure', (graph: ReturnType<typeof createGraph>) => graph.clear()],
] as const) {
  test(`given a commit that ${what}, then collections and commits are refused, and reads go on`, async (t) => {
    const { w, graph, state, removal } = await twoImages(t);
    let calls = 0;
    state.fails = () => {
      // The changes are let in where they are to be taken back.
      if (what === 'cannot be taken back' && calls++ === 0) return false;
      breaks(graph);
      return true;
    };
    await assert.rejects(removal(), /graph of references in memory was lost/);
    state.fails = () => false;
    await assert.rejects(w.collect(), { kind: 'Unavailable' });
    await assert.rejects(removal(), { kind: 'Unavailable' });
    assert.throws(() => w.engine.graph, { kind: 'Unavailable' });
    assert.deepEqual(w.left('kept'), ['blob kept', 'image app', 'image other']);
  });
}

test('given a graph that was lost, when the store is closed and opened, then no checkpoint has it and all is there', async (t) => {
  const dir = await tempDir(t);
  const { graph, state } = failing();
  const engine = await openLmdbEngine(dir, { indexer: metadataIndexer, graph });
  const image = key('image', 'ns1', 'app');
  await engine.update((tx) => tx.put(image, { name: 'app' }));
  const { storage } = engine;
  assert.ok(storage instanceof LmdbStorage);
  const accept = storage.accept.bind(storage);
  storage.accept = () => {
    throw noMemory();
  };
  await assert.rejects(
    engine.update((tx) => tx.put(key('image', 'ns1', 'late'), { name: 'late' })),
    OutcomeUnknown,
  );
  storage.accept = accept;
  await assert.rejects(
    engine.update((tx) => tx.delete(image)),
    { kind: 'Unavailable' },
  );
  state.fails = () => false;
  await engine.close();
  const again = await openLmdbEngine(dir, { indexer: metadataIndexer, graph: createGraph() });
  t.after(() => again.close());
  assert.ok(again.has(image));
  assert.deepEqual(again.verifyGraph(), []);
});
