/** Background commits: they wait while much is on its way to the disk, and leave room for others. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { CoreEngine } from '../../src/engine/core/engine.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { key } from '../../src/engine/schema/keys.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { tempDir } from './temp.js';

const blob = (i: number): string => key('blobs', 'ns', `b${i}`);
const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await Promise.resolve();
};

test('given much on its way to the disk, when a background commit is made, then it resolves only after that', async (t) => {
  const engine = await openLmdbEngine(await tempDir(t), { indexer: suiteIndexer, graph: createGraph() });
  t.after(() => engine.close());
  const order: string[] = [];
  const large = engine.update((tx) => {
    for (let i = 0; i < 5000; i++) tx.put(blob(i), { size: i });
  });
  const visible = engine.update((tx) => tx.put(blob(5000), { size: 1 }), { durability: 'visible' });
  const background = engine.update((tx) => tx.put(blob(5001), { size: 1 }), {
    durability: 'visible',
    background: true,
  });
  await Promise.all([
    large.then(() => order.push('large')),
    visible.then(() => order.push('visible')),
    background.then(() => order.push('background')),
  ]);
  assert.deepEqual(order, ['visible', 'large', 'background']);
});

test('given a single background commit, when nothing else is under way, then it need not wait for the disk', async (t) => {
  const engine = await openLmdbEngine(await tempDir(t), { indexer: suiteIndexer, graph: createGraph() });
  t.after(() => engine.close());
  let resolved = false;
  const commit = engine
    .update((tx) => tx.put(blob(1), { size: 1 }), { durability: 'visible', background: true })
    .then(() => {
      resolved = true;
    });
  // No flush can end within one turn of the event loop: only microtasks run here.
  await turns(50);
  assert.equal(resolved, true);
  await commit;
  await engine.flush();
  assert.deepEqual(engine.verifyGraph(), []);
});

test('given much that the tree does not have, then work that can wait waits for it, and others do not', async (t) => {
  const engine = await openLmdbEngine(await tempDir(t), { indexer: suiteIndexer, graph: createGraph() });
  t.after(() => engine.close());
  assert.ok(engine instanceof CoreEngine && engine.storage instanceof LmdbStorage);
  const { flusher } = engine.storage;
  await engine.update((tx) => {
    for (let i = 0; i < 30; i++) tx.put(blob(i), { bytes: randomBytes(2 ** 20) });
  });
  // The thread that writes the tree has only been asked to start.
  const order: string[] = [];
  const background = flusher.backgroundRoom().then(() => order.push('background'));
  await flusher.room().then(() => order.push('others'));
  await turns(50);
  assert.deepEqual(order, ['others']);
  await background;
  assert.ok(engine.stats().logBytes === 0);
});
