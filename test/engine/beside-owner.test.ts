/** A store that is read beside the process that owns it and goes on writing: read-only.ts, readers.ts. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { tryLock } from 'fs-native-extensions';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { readState } from '../../src/engine/lmdb/checkpoint.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { openDatabases } from '../../src/engine/lmdb/tree/databases.js';
import { key } from '../../src/engine/schema/keys.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { newestTransaction } from '../../src/system/lmdb/readers.js';
import { commitShown } from './slots.js';
import { tempDir } from './temp.js';

const ROUNDS = 50;

const read = (dir: string): Promise<CoreEngine> =>
  openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph(), readOnly: true });

interface Writing {
  readonly dir: string;
  readonly process: ChildProcess;
  /** Number of the newest commit that was acknowledged. */
  acked(): number;
}

async function startWriting(t: TestContext, mode = ''): Promise<Writing> {
  const home = await tempDir(t);
  const [dir, acked] = [join(home, 'store'), join(home, 'acked')];
  const program = fileURLToPath(import.meta.resolve('./hard-writer.js'));
  const child = spawn(process.execPath, [program, dir, acked, mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  const ackedNow = (): number => {
    const bytes = readFileSync(acked);
    return bytes.length < 8 ? 0 : Number(bytes.readBigUInt64LE());
  };
  while (ackedNow() < 500) await sleep(20);
  return { dir, process: child, acked: ackedNow };
}

/** Opens the store again and again; some readers stay open for long, and are looked at again at their end. */
async function readInRounds({ dir, acked }: Writing, rounds: number): Promise<void> {
  const kept: { reader: CoreEngine; commit: number; round: number }[] = [];
  let last = 0;
  try {
    for (let round = 0; round < rounds; round++) {
      const acknowledged = acked();
      const reader = await read(dir);
      kept.push({ reader, commit: 0, round });
      const commit = commitShown(reader);
      kept.at(-1)!.commit = commit;
      assert.ok(
        commit >= acknowledged,
        `round ${round}: shows ${commit}, though ${acknowledged} was acknowledged before`,
      );
      assert.ok(commit >= last, `round ${round}: shows ${commit}, after ${last}`);
      last = commit;
      if (round % 10 === 0) assert.deepEqual(reader.verifyGraph(), []);
      for (const one of [...kept]) {
        if (round - one.round < (one.round % 7) * 3) continue;
        assert.equal(commitShown(one.reader), one.commit, `opened in round ${one.round}, in round ${round}`);
        kept.splice(kept.indexOf(one), 1);
        await one.reader.close();
      }
    }
    for (const { reader, commit, round } of kept) {
      assert.equal(commitShown(reader), commit, `opened in round ${round}, at the end`);
    }
  } finally {
    for (const { reader } of kept) await reader.close();
  }
}

/** Revision of the newest checkpoint. */
async function checkpointIn(path: string): Promise<number> {
  const dbs = await openDatabases(path, true);
  try {
    return readState(dbs)?.checkpoint?.revision ?? 0;
  } finally {
    await dbs.env.close();
  }
}

test('given an owner that writes without a pause, when opened read-only many times, then each state is one of its commits, and none is old', async (t) => {
  const writing = await startWriting(t);
  const path = join(writing.dir, 'meta.mdb');
  const before = { transaction: newestTransaction(path), checkpoint: await checkpointIn(path) };
  // Until there was a checkpoint meanwhile, too.
  for (let i = 0; i < 5 && (i === 0 || (await checkpointIn(path)) === before.checkpoint); i++) {
    await readInRounds(writing, ROUNDS);
  }
  assert.notEqual(await checkpointIn(path), before.checkpoint, 'there was no checkpoint');
  const transactions = newestTransaction(path) - before.transaction;
  assert.ok(transactions > 20, `the tree was written in ${transactions} transactions only`);
});

test('given an owner that closes and opens again and again, when opened read-only meanwhile, then each state is one of its commits, and none is old', async (t) => {
  const { dir, acked } = await startWriting(t, 'restarts');
  for (let round = 0; round < ROUNDS; round++) {
    const acknowledged = acked();
    const reader = await read(dir);
    const commit = commitShown(reader);
    await reader.close();
    assert.ok(
      commit >= acknowledged,
      `round ${round}: shows ${commit}, though ${acknowledged} was acknowledged before`,
    );
    await sleep(round % 5);
  }
});

test('given an owner that does not look for readers, when opened read-only many times, then what they see falls apart', async (t) => {
  const writing = await startWriting(t, 'blind');
  await assert.rejects(readInRounds(writing, 20 * ROUNDS));
});

async function own(t: TestContext, dir: string): Promise<CoreEngine> {
  const engine = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph() });
  t.after(() => engine.close());
  return engine;
}

/** Commits that change many pages of the tree, and bring them there. */
async function churn(engine: CoreEngine, round: number): Promise<void> {
  assert.ok(engine.storage instanceof LmdbStorage);
  await engine.update((tx) => {
    for (let i = 0; i < 500; i++)
      tx.put(key('images', 'ns', `i${i}`), { size: round, text: 'x'.repeat(200) });
  });
  await engine.storage.drain();
}

const roundOf = (engine: CoreEngine): Set<unknown> =>
  new Set([...engine.scan(key('images', 'ns'))].map(([, value]) => typeof value === 'object' && value.size));

test('given readers of which there is always one, when the owner goes on, then each keeps its state, and the tree does not grow for good', async (t) => {
  const dir = await tempDir(t);
  const owner = await own(t, dir);
  await churn(owner, 0);
  const pages = (): number => owner.stats().fileBytes - owner.stats().logBytes;
  let former = await read(dir);
  let most = 0;
  for (let round = 1; round <= 60; round++) {
    await churn(owner, round);
    const next = await read(dir);
    assert.deepEqual(roundOf(former), new Set([round - 1]));
    assert.deepEqual(roundOf(next), new Set([round]));
    await former.close();
    former = next;
    if (round === 20) most = pages();
  }
  await former.close();
  assert.ok(pages() <= most, `${pages()} bytes of pages after 60 rounds, ${most} after 20`);
});

test('given a reader of a state that a former owner kept, when another one opens the store, then the reader leaves', async (t) => {
  const dir = await tempDir(t);
  const owner = await own(t, dir);
  await churn(owner, 1);
  const older = await read(dir);
  await churn(owner, 2);
  await owner.close();
  const newer = await read(dir);
  const next = await own(t, dir);
  await churn(next, 3);
  await churn(next, 4);
  assert.throws(() => roundOf(older), {
    kind: 'Unavailable',
    message: /opened for writing by another process/,
  });
  assert.deepEqual(roundOf(newer), new Set([2]));
  for (const reader of [older, newer]) await reader.close();
});

test('given a reader, when the store is opened for writing and closed, then it goes on with what it found', async (t) => {
  const dir = await tempDir(t);
  await (await own(t, dir)).close();
  const reader = await read(dir);
  const owner = await own(t, dir);
  for (let round = 1; round < 5; round++) await churn(owner, round);
  assert.deepEqual(roundOf(reader), new Set());
  await owner.close();
  assert.deepEqual(roundOf(reader), new Set());
  await reader.close();
});

test('given an owner of an earlier version, which locks all of the lock file, when opened read-only, then Unavailable', async (t) => {
  const dir = await tempDir(t);
  await (await own(t, dir)).close();
  const lock = openSync(join(dir, 'lock'), 'r+');
  try {
    assert.ok(tryLock(lock, 0, 0));
    await assert.rejects(read(dir), { kind: 'Unavailable', message: /in use by this process, of a version/ });
  } finally {
    closeSync(lock);
  }
});
