/** Rows of the tree whose records have just been removed: a walk passes over them without reading their nodes, or leaves them out. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { openDatabases } from '../../src/engine/lmdb/tree/databases.js';
import { rowsWithin } from '../../src/engine/lmdb/tree/key-index.js';
import { Table } from '../../src/engine/lmdb/tree/table.js';
import { blobKey, key, namespaceKey } from '../../src/engine/schema/keys.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { namespaces } from '../../src/gc/sweep/sweep.js';
import { createGraph } from '../../src/graph/carriers.js';
import { digestFor } from '../../src/synth/picks.js';
import { Random } from '../support/random.js';
import { tempDir } from './temp.js';

const BLOBS = 2000;
const blobs = Array.from({ length: BLOBS }, (_, i) => blobKey('ns', digestFor('gone', i)));
const open = (dir: string) => openLmdbEngine(dir, { indexer: metadataIndexer, graph: createGraph() });

/** A store whose tree has all blobs. */
async function filled(t: TestContext): ReturnType<typeof open> {
  const dir = await tempDir(t);
  const first = await open(dir);
  await first.update((tx) => {
    for (const blob of blobs) tx.put(blob, { size: 1 });
  });
  await first.close();
  const engine = await open(dir);
  t.after(() => engine.close());
  return engine;
}

test('given a tree of blobs that are gone, when it is walked, then no node is read, and more rows at a time', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(dir);
  await engine.update((tx) => {
    for (const blob of blobs) tx.put(blob, { size: 1 });
  });
  await engine.close();
  const dbs = await openDatabases(join(dir, 'meta.mdb'), false);
  t.after(() => dbs.env.close());
  const everything = { lower: Buffer.alloc(0), exclusive: false, upper: undefined };
  let [reads, ranges] = [0, 0];
  const { getBinaryFast } = dbs.nodes;
  dbs.nodes.getBinaryFast = (id) => {
    reads++;
    return getBinaryFast(id);
  };
  const range = dbs.digests.range.bind(dbs.digests);
  dbs.digests.range = (...bounds) => {
    ranges++;
    return range(...bounds);
  };
  assert.equal([...rowsWithin(dbs, everything, 1)].length, BLOBS);
  assert.equal(reads, BLOBS);
  [reads, ranges] = [0, 0];
  assert.equal([...rowsWithin(dbs, everything, 1, () => true)].length, 0);
  assert.equal(reads, 0);
  assert.ok(ranges < 20, `${ranges} ranges`);
});

test('given records that were removed a moment ago, when the first that is left is asked for again, then none of them is passed over', async (t) => {
  const engine = await filled(t);
  withoutTree(engine);
  const sorted = blobs.toSorted();
  const first = (prefix: string): string | undefined => [...engine.scan(prefix, { limit: 1 })][0]?.[0];
  const rowsRead = countRows(t);
  const removed = async (from: number, to: number): Promise<void> => {
    await engine.update((tx) => sorted.slice(from, to).forEach((blob) => void tx.delete(blob)));
  };
  await removed(0, 1000);
  assert.equal(first('blobs'), sorted[1000]);
  assert.ok(rowsRead() > 1000);
  for (const prefix of ['blobs', key('blobs', 'ns')]) assert.equal(first(prefix), sorted[1000]);
  assert.equal(
    engine.storage.range(key('blobs', 'ns'), sorted[500], 1, () => 0).entries[0]?.[0],
    sorted[1000],
  );
  await removed(1000, 1100);
  assert.equal(first('blobs'), sorted[1100]);
  assert.ok(rowsRead() < 800);
  await removed(1100, BLOBS);
  assert.equal(first('blobs'), undefined);
  assert.ok(rowsRead() > 800);
  for (const prefix of ['blobs', key('blobs', 'ns')]) assert.equal(first(prefix), undefined);
  assert.ok(rowsRead() < 8);
  // One that is made again.
  await engine.update((tx) => tx.put(sorted[7]!, { size: 2 }));
  assert.equal(first('blobs'), sorted[7]);
});

test('given removals that are lost, when their records are asked for, then they are there', async (t) => {
  const engine = await filled(t);
  const storage = withoutTree(engine);
  let fail = (_: Error): void => undefined;
  const appended = new Promise<void>((_, reject) => {
    fail = reject;
  });
  storage.append = () => appended;
  await engine.update((tx) => blobs.forEach((blob) => void tx.delete(blob)), { durability: 'visible' });
  assert.deepEqual([...engine.scan('blobs')], []);
  fail(new Error('no room'));
  await assert.rejects(engine.flush());
  assert.equal([...engine.scan('blobs')].length, BLOBS);
});

test('given records that come and go, also in the tree, when walks begin anywhere, then they find what is there', async (t) => {
  const engine = await open(await tempDir(t));
  t.after(() => engine.close());
  const storage = engine.storage as LmdbStorage;
  const random = new Random(5);
  const sorted = blobs.slice(0, 600).toSorted();
  const there = new Set<string>();
  for (let round = 0; round < 80; round++) {
    const [from, size, isRemoval] = [random.int(600), 1 + random.int(300), random.int(3) > 0];
    await engine.update(
      (tx) => {
        for (const blob of sorted.slice(from, from + size)) {
          if (isRemoval) tx.delete(blob);
          else tx.put(blob, { size: round });
        }
      },
      { durability: 'visible' },
    );
    for (const blob of sorted.slice(from, from + size)) isRemoval ? there.delete(blob) : there.add(blob);
    if (round % 9 === 0) await storage.drain();
    for (let n = 0; n < 6; n++) {
      const after = sorted[random.int(600)]!;
      const expected = sorted.filter((blob) => blob > after && there.has(blob)).slice(0, 3);
      const found = [...engine.scan(key('blobs', 'ns'), { after, limit: 3 })];
      assert.deepEqual(
        found.map(([blob]) => blob),
        expected,
        `round ${round}`,
      );
    }
    assert.equal([...engine.scan('blobs')].length, there.size);
  }
});

/** What is committed from now on stays in memory. */
function withoutTree({ storage }: { storage: unknown }): LmdbStorage {
  assert.ok(storage instanceof LmdbStorage);
  storage.flusher.push = () => undefined;
  return storage;
}

/** Counts the rows that tables return; each call begins again. */
function countRows(t: TestContext): () => number {
  let rows = 0;
  const { range } = Table.prototype;
  t.mock.method(Table.prototype, 'range', function (this: Table, ...bounds: Parameters<typeof range>) {
    const found = range.apply(this, bounds);
    rows += found.length;
    return found;
  });
  return () => {
    const count = rows;
    rows = 0;
    return count;
  };
}

test('given blobs that were removed a moment ago, when a sweep asks for namespaces, then no blob is walked over', async (t) => {
  const engine = await open(await tempDir(t));
  t.after(() => engine.close());
  await engine.update((tx) => {
    tx.put(namespaceKey('empty'), {});
    for (const blob of blobs) tx.put(blob, { size: 1 });
  });
  await engine.update((tx) => {
    for (const blob of blobs) tx.delete(blob);
    tx.put(blobKey('other', digestFor('gone', 0)), { size: 1 });
  });
  const scanned: string[] = [];
  const watched = Object.create(engine, {
    scan: {
      value: (...range: Parameters<typeof engine.scan>) => {
        scanned.push(range[0]);
        return engine.scan(...range);
      },
    },
    firstKey: { value: (...where: Parameters<typeof engine.firstKey>) => engine.firstKey(...where) },
  });
  const found = namespaces(watched);
  assert.ok(found.has('empty') && found.has('other'));
  assert.deepEqual(scanned, ['namespaces']);
});
