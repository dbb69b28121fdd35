/** Stores that earlier versions left, in earlier layouts of the file. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Engine } from '../../src/engine/contract.js';
import { childPairs } from '../../src/engine/lmdb/codec/child-links.js';
import { encodeKey, encodeLink } from '../../src/engine/lmdb/codec/key-codec.js';
import { type LmdbEngineOptions, openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { LAYOUT, openDatabases } from '../../src/engine/lmdb/tree/databases.js';
import { idBytes, rowsWithin } from '../../src/engine/lmdb/tree/key-index.js';
import { key } from '../../src/engine/schema/keys.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { tempDir } from './temp.js';

async function open(t: TestContext, dir: string, options: Partial<LmdbEngineOptions> = {}): Promise<Engine> {
  const engine = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph(), ...options });
  t.after(() => engine.close());
  return engine;
}

test('given a store of layout 1, when opened for writing, then all of it is there in the present layout', async (t) => {
  const dir = await tempDir(t);
  const names = Array.from(
    { length: 40 },
    (_, i) => `sha256:${String(i % 4).repeat(30)}${String(i).padStart(34, '0')}`,
  );
  const snapshot = (i: number): string => key('snapshots', 'ns', 'overlay', names[i]!);
  const first = await open(t, dir);
  await first.update((tx) => {
    for (const [i, name] of names.entries()) {
      tx.put(key('blobs', 'ns', name), {
        size: i,
        refs: { label: key('blobs', 'ns', names[(i + 1) % 40]!) },
      });
      tx.put(snapshot(i), { size: i });
      tx.put(key('meta', name), 'inline');
      if (i > 0) tx.link(snapshot(i - 1), 'children', snapshot(i));
    }
    tx.link(key('leases', 'ns', 'l'), 'holds', snapshot(3));
  });
  const dump = () => ({
    all: [...engine.scan('')],
    children: names.map((_, i) => [...engine.links(snapshot(i), 'children')]),
    holds: [...engine.links(key('leases', 'ns', 'l'), 'holds')],
    records: engine.stats().records,
    revision: engine.revision,
  });
  let engine = first;
  const before = dump();
  await first.close();
  await toLayout1(join(dir, 'meta.mdb'));
  await assert.rejects(open(t, dir, { readOnly: true }), assertKind('FailedPrecondition'));
  const warnings: string[] = [];
  engine = await open(t, dir, { warn: (message) => warnings.push(message) });
  assert.deepEqual(dump(), before);
  assert.deepEqual(engine.verifyGraph(), []);
  assert.match(warnings[0] ?? '', new RegExp(`layout ${LAYOUT}`));
  await engine.update((tx) => tx.put(key('blobs', 'ns', 'one more'), { size: 1 }));
  assert.equal(engine.revision, before.revision + 1);
  await engine.close();
  const again: string[] = [];
  engine = await open(t, dir, { warn: (message) => again.push(message) });
  assert.deepEqual(again, []);
});

/** Puts the rows where the first layout had them. */
async function toLayout1(path: string): Promise<void> {
  const dbs = await openDatabases(path, false);
  const rows = rowsWithin(dbs, { lower: Buffer.alloc(0), exclusive: false, upper: undefined }, 64);
  const nodes = [...rows].filter(({ id }) => id !== undefined).map(({ key: k, id }) => ({ k, id: id! }));
  const keyOf = (id: number) => nodes.find((node) => node.id === id)?.k;
  const pairs = [...childPairs(dbs.children, keyOf)];
  assert.ok(nodes.length > 80 && pairs.length === 39);
  const digests = dbs.env.openDB<Uint8Array, Uint8Array>('digests', {
    keyEncoding: 'binary',
    encoding: 'binary',
  });
  dbs.env.transactionSync(() => {
    for (const { k, id } of nodes) dbs.keys.put(Buffer.from(encodeKey(k)), idBytes([id]));
    for (const k of [...digests.getKeys()]) void digests.remove(k);
    for (const { from, to } of pairs) {
      dbs.links.put(Buffer.from(encodeLink(`${from}\0\0children\0\0${to}`)), Buffer.alloc(0));
    }
    for (const k of [...dbs.children.getKeys()]) void dbs.children.remove(k);
    void dbs.meta.put('format', Buffer.from('ebbtide 1'));
  });
  await dbs.env.close();
}

test('given a store of layout 2 with long names, when opened for writing, then they are found, listed and removed', async (t) => {
  const dir = await tempDir(t);
  const name = (i: number): string => key('images', 'ns', `${'x'.repeat(1200)}${i}`);
  const first = await open(t, dir);
  await first.update((tx) => {
    for (let i = 0; i < 30; i++) tx.put(name(i), { size: i, refs: { label: name((i + 1) % 30) } });
  });
  const before = [...first.scan('images')];
  await first.close();
  await toLayout2(join(dir, 'meta.mdb'));
  await assert.rejects(open(t, dir, { readOnly: true }), assertKind('FailedPrecondition'));
  const engine = await open(t, dir);
  assert.deepEqual([...engine.scan('images')], before);
  assert.deepEqual(engine.get(name(7)), before.find(([k]) => k === name(7))?.[1]);
  assert.deepEqual(engine.verifyGraph(), []);
  await engine.update((tx) => {
    for (let i = 0; i < 30; i++) tx.delete(name(i));
  });
  await engine.close();
  assert.deepEqual([...(await open(t, dir)).scan('images')], []);
});

/** Puts long keys where the second layout had them: their beginning and hash, and the whole before the value. */
async function toLayout2(path: string): Promise<void> {
  const dbs = await openDatabases(path, false);
  const rows = dbs.keys
    .range(Buffer.alloc(0), false, undefined, 1000)
    .map(([k, value]) => [Buffer.from(k), Buffer.from(value)] as const);
  const db = dbs.env.openDB<Uint8Array, Uint8Array>('keys', { keyEncoding: 'binary', encoding: 'binary' });
  let moved = 0;
  dbs.env.transactionSync(() => {
    for (const [k, value] of rows.filter(([{ length }]) => length > 1024)) {
      dbs.keys.remove(k);
      const size = Buffer.alloc(4);
      size.writeUInt32LE(k.length);
      const hash = createHash('sha256').update(k).digest();
      void db.put(Buffer.concat([k.subarray(0, 1024), hash]), Buffer.concat([size, k, value]));
      moved++;
    }
    void dbs.meta.put('format', Buffer.from('ebbtide 2'));
  });
  assert.equal(moved, 30);
  await dbs.env.close();
}
