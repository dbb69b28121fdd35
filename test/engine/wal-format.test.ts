/** What the write-ahead log has of commits, above all of removals, of which a collection makes hundreds of thousands. */
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { readOps } from '../../src/engine/lmdb/codec/packed-ops.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import type { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { openDatabases } from '../../src/engine/lmdb/tree/databases.js';
import { BatchBuilder, openBatch, sealBatch, visitRows } from '../../src/engine/lmdb/wal/format.js';
import { logPaths, recoverLog } from '../../src/engine/lmdb/wal/recovery.js';
import { ByteReader } from '../../src/engine/schema/bytes.js';
import { key, Relation, snapshotKey } from '../../src/engine/schema/keys.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { tempDir } from './temp.js';

async function open(t: TestContext, dir: string, readOnly = false): Promise<CoreEngine> {
  const engine = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph(), readOnly });
  t.after(() => engine.close());
  return engine;
}

/** The graph ops that a visitor is shown of a batch. */
function opsIn(batch: Buffer): number[] {
  const found: number[] = [];
  const nothing = (): void => {};
  visitRows(openBatch(batch), {
    ...{ node: nothing, nodeTombstone: nothing, inline: nothing, link: nothing },
    ...{ counter: nothing, childTombstone: nothing },
    graphOps({ words, bytes }) {
      const reader = new ByteReader();
      reader.over(Buffer.from(bytes), 0, bytes.length);
      found.push(...readOps(reader, words));
    },
  });
  return found;
}

const OPS = [1, 0, 127, 128, 2 ** 14, 2 ** 30 - 1, 0x80000000, 0xffffffff];

function batchWith(ops: readonly number[]): Buffer {
  const nothing = { entries: new Map(), links: new Map(), formerChildren: [], counters: new Map() };
  const builder = new BatchBuilder();
  builder.add({ revision: 1, ...nothing, ops: Uint32Array.from(ops), freed: new Map(), recordDelta: 0 });
  return builder.finish(0);
}

test('given graph ops, when they are logged, then they are read as they were', () => {
  assert.deepEqual(opsIn(batchWith(OPS)), OPS);
  assert.deepEqual(opsIn(batchWith([])), []);
});

test('given a batch of an earlier version, with its graph ops as words after the rows, then they are read, too', () => {
  const head = Buffer.from(batchWith([]));
  const words = Uint32Array.from(OPS);
  const batch = Buffer.concat([head, Buffer.from(words.buffer)]);
  batch.writeUInt32LE(words.byteLength, 8);
  batch.writeUInt32LE(words.length, 36);
  sealBatch(batch, 1);
  assert.deepEqual(opsIn(batch), OPS);
});

// ------------------------------------------------------------------------------------------------------- removals

const SNAPSHOTS = 400;
const snapshot = (i: number): string => snapshotKey('a namespace', 'overlayfs', `snapshot ${i}, a long name`);
const isKept = (i: number): boolean => i % 10 === 0;

/** Chains of ten snapshots each. */
async function fill(engine: CoreEngine): Promise<void> {
  await engine.update((tx) => {
    for (let i = 0; i < SNAPSHOTS; i++) {
      const isFirst = i % 10 === 0;
      tx.put(snapshot(i), isFirst ? 'v' : { refs: { a: snapshot(i - 1) } });
      if (!isFirst) tx.link(snapshot(i - 1), Relation.children, snapshot(i));
    }
  });
}

const childrenIn = (engine: CoreEngine): string[][] =>
  Array.from({ length: SNAPSHOTS }, (_, i) => [...engine.links(snapshot(i), Relation.children)]);

/** All but the first of each chain, the last first, as a collection does it. */
async function removeAll(engine: CoreEngine): Promise<void> {
  await engine.update((tx) => {
    for (let i = SNAPSHOTS - 1; i >= 0; i--) {
      if (isKept(i)) continue;
      tx.dropLink(snapshot(i - 1), Relation.children, snapshot(i));
      tx.delete(snapshot(i));
    }
  });
}

test('given snapshots in the tree, when they are removed, then the log has their numbers only', async (t) => {
  const dir = await tempDir(t);
  const filled = await open(t, dir);
  await fill(filled);
  await filled.close();
  const engine = await open(t, dir);
  let bytes = 0;
  (engine.storage as LmdbStorage).tap((batch) => {
    bytes += batch.length;
  });
  await removeAll(engine);
  const crashed = join(await tempDir(t), 'crashed');
  cpSync(dir, crashed, { recursive: true });

  assert.ok(bytes < 40 * SNAPSHOTS, `${bytes} bytes of log for ${SNAPSHOTS * 0.9} removals`);
  const none = Array.from({ length: SNAPSHOTS }, () => []);
  for (const readOnly of [true, false]) {
    const again = await open(t, crashed, readOnly);
    assert.deepEqual(childrenIn(again), none);
    assert.equal([...again.scan('snapshots')].length, SNAPSHOTS / 10);
    assert.deepEqual(again.verifyGraph(), []);
    await again.close();
  }
  const dbs = await openDatabases(join(crashed, 'meta.mdb'), true);
  assert.deepEqual([...dbs.children.getKeys()], [], 'no row is left of them');
  await dbs.env.close();
});

test('given removed snapshots, when others get their names, then those have the new links only', async (t) => {
  const dir = await tempDir(t);
  const filled = await open(t, dir);
  await fill(filled);
  await filled.close();
  const engine = await open(t, dir);
  await removeAll(engine);
  const again = snapshot(1);
  await engine.update((tx) => {
    tx.put(again, { refs: { a: snapshot(10) } });
    tx.link(snapshot(10), Relation.children, again);
  });
  const children = childrenIn(engine);
  assert.deepEqual([children[0], children[10]], [[], [again]]);
  await engine.close();
  assert.deepEqual(childrenIn(await open(t, dir)), children);
});

// -------------------------------------------------------------------------------------------------------- opening

test('given a crash with much outstanding, when opened, then it is read over the log, and brought into the tree later', async (t) => {
  const dir = await tempDir(t);
  const filled = await open(t, dir);
  await fill(filled);
  await filled.close();
  const engine = await open(t, dir);
  const flushed = engine.revision;
  const crashed = join(await tempDir(t), 'crashed');
  cpSync(dir, crashed, { recursive: true });
  const large = (i: number): string => key('images', 'ns', `i${i}`);
  await removeAll(engine);
  await engine.update((tx) => {
    for (let i = 0; i < 300; i++) {
      tx.put(large(i), { value: 'x'.repeat(6000), refs: { a: snapshot(i) } });
      tx.link(large(i), 'holds', snapshot(i + 1));
    }
    tx.put(snapshot(3), 'again');
    tx.next(key('meta', 'counter'));
  });
  await engine.update((tx) => void tx.delete(large(7)));
  // The tree as it was before.
  for (const path of logPaths(dir)) cpSync(path, join(crashed, basename(path)));
  const shown = (one: CoreEngine): unknown => [
    [...one.scan('')].length,
    [...one.scan('images')].map(([name]) => [name, ...one.links(name, 'holds')]),
    [one.get(snapshot(3)), one.get(large(7)), one.stats().records, one.revision],
    childrenIn(one),
  ];
  const expected = shown(engine);
  await engine.close();
  const { batches } = recoverLog(crashed, { flushed });
  assert.ok(batches.reduce((sum, { length }) => sum + length, 0) > 1024 * 1024, 'enough is outstanding');

  const again = await open(t, crashed);
  assert.deepEqual(shown(again), expected);
  assert.deepEqual(again.verifyGraph(), []);
  await again.update((tx) => void tx.put(large(7), 'after'));
  const after = shown(again);
  const copy = join(await tempDir(t), 'again');
  cpSync(crashed, copy, { recursive: true });
  const twice = await open(t, copy);
  assert.deepEqual(shown(twice), after, 'after another crash');
  await again.close();
  assert.deepEqual(shown(await open(t, crashed)), after, 'from the tree');
});
