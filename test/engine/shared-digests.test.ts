/** Digests that begin alike, as many as a client likes to make: found, listed, replaced and removed as any others, and as fast. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Indexer, Value } from '../../src/engine/contract.js';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { openDatabases } from '../../src/engine/lmdb/tree/databases.js';
import { idsIn, SHARING_MAX } from '../../src/engine/lmdb/tree/key-index.js';
import { key } from '../../src/engine/schema/keys.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { cpuMs } from '../support/cpu.js';
import { Random } from '../support/random.js';
import { tempDir } from './temp.js';

/** What has no references is not a node: both kinds stand under digests that begin alike. */
const indexer: Indexer = {
  ...suiteIndexer,
  node: (name, value) =>
    typeof value === 'object' && value.refs !== undefined ? suiteIndexer.node(name, value) : undefined,
};

const open = (dir: string): Promise<CoreEngine> => openLmdbEngine(dir, { indexer, graph: createGraph() });

const storageOf = ({ storage }: CoreEngine): LmdbStorage => {
  assert.ok(storage instanceof LmdbStorage);
  return storage;
};

const alike = (i: number): string => `sha256:${'ab'.repeat(20)}${i.toString(16).padStart(24, '0')}`;
const blob = (digest: string): string => key('blobs', 'ns', digest);

test('given many digests that begin alike, when they come and go in any order, then all are found and listed', async (t) => {
  const dir = await tempDir(t);
  const random = new Random(7);
  const expected = new Map<string, Value>();
  const keys = [
    ...Array.from({ length: 60 }, (_, i) => blob(alike(i))),
    // Others, before, among and after them.
    ...Array.from({ length: 5 }, (_, i) => blob(`sha256:${`${i}f`.repeat(32)}`)),
    blob(`${alike(3)}0`),
    blob('sha256:ab'),
  ];
  let engine = await open(dir);
  t.after(() => engine.close());
  const check = (): void => {
    const sorted = [...expected].sort(([a], [b]) => (a < b ? -1 : 1));
    assert.deepEqual(
      [...engine.scan('blobs')].map(([name, value]) => [name, value]),
      sorted,
    );
    for (const name of keys) assert.deepEqual(engine.get(name), expected.get(name));
  };
  for (let round = 0; round < 60; round++) {
    for (let i = 0; i < 10; i++) {
      await engine.update((tx) => {
        for (let n = random.int(4); n >= 0; n--) {
          const name = keys[random.int(keys.length)]!;
          const other = keys[random.int(keys.length)]!;
          const what = random.int(4);
          if (what === 0) {
            tx.delete(name);
            expected.delete(name);
          } else {
            // With references it is a node, without it is not.
            const value = what === 1 ? { size: n + round } : { size: round, refs: { a: other } };
            tx.put(name, value);
            expected.set(name, value);
          }
        }
      });
      if (random.int(3) === 0) await storageOf(engine).drain();
    }
    check();
    if (round % 10 !== 9) continue;
    await engine.close();
    engine = await open(dir);
    check();
  }
});

test('given thousands of digests that begin alike, when they are put and asked for, then none costs more for the others', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(dir);
  t.after(() => engine.close());
  const storage = storageOf(engine);
  const count = 4000;
  const started = cpuMs();
  for (let i = 0; i < count; i += 100) {
    await engine.update((tx) => {
      for (let k = i; k < i + 100; k++) tx.put(blob(alike(k)), { refs: { a: blob(alike(k + 1)) } });
    });
    await storage.drain();
  }
  for (let i = 0; i < count; i++) assert.ok(engine.get(blob(alike(i))) !== undefined);
  assert.equal([...engine.scan('blobs')].length, count);
  // A few seconds; in one row of ids they take minutes.
  assert.ok(cpuMs() - started < 60_000);
  await engine.close();
  const { digests, env } = await openDatabases(join(dir, 'meta.mdb'), true);
  const lengths = digests
    .range(Buffer.alloc(1), false, undefined, 100)
    .map(([, row]) => idsIn(row, row.length).length);
  await env.close();
  assert.deepEqual(lengths, [SHARING_MAX + 1]);
});
