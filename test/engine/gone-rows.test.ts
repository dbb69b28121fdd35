/** Rows of the tree whose records have just been removed: a walk passes over them without reading their nodes, or leaves them out. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { openDatabases } from '../../src/engine/lmdb/tree/databases.js';
import { rowsWithin } from '../../src/engine/lmdb/tree/key-index.js';
import { blobKey, namespaceKey } from '../../src/engine/schema/keys.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { namespaces } from '../../src/gc/sweep/sweep.js';
import { createGraph } from '../../src/graph/carriers.js';
import { digestFor } from '../../src/synth/picks.js';
import { tempDir } from './temp.js';

const BLOBS = 2000;
const blobs = Array.from({ length: BLOBS }, (_, i) => blobKey('ns', digestFor('gone', i)));
const open = (dir: string) => openLmdbEngine(dir, { indexer: metadataIndexer, graph: createGraph() });

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
