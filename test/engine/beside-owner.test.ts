/** A store that is read beside the process that owns it and goes on writing: read-only.ts, lmdb-readers.ts. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/gc/graph.js';
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

async function startWriting(t: TestContext): Promise<Writing> {
  const home = await tempDir(t);
  const [dir, acked] = [join(home, 'store'), join(home, 'acked')];
  const program = fileURLToPath(import.meta.resolve('./hard-writer.js'));
  const child = spawn(process.execPath, [program, dir, acked], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  const ackedNow = (): number => {
    const bytes = readFileSync(acked);
    return bytes.length < 8 ? 0 : Number(bytes.readBigUInt64LE());
  };
  while (ackedNow() < 1000) await sleep(20);
  return { dir, process: child, acked: ackedNow };
}

test('given an owner that writes without a pause, when opened read-only many times, then each state is one of its commits, and none is old', async (t) => {
  const writing = await startWriting(t);
  const kept: { reader: CoreEngine; commit: number; opened: number }[] = [];
  let last = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const acked = writing.acked();
    const reader = await read(writing.dir);
    const commit = commitShown(reader);
    assert.ok(commit >= acked, `round ${round}: shows ${commit}, though ${acked} was acknowledged before`);
    assert.ok(commit >= last);
    last = commit;
    if (round % 10 === 0) assert.deepEqual(reader.verifyGraph(), []);
    kept.push({ reader, commit, opened: round });
    // Some stay open for long, while the owner goes on.
    for (const [i, one] of [...kept.entries()].reverse()) {
      if (round - one.opened < (one.opened % 7) * 3) continue;
      assert.equal(commitShown(one.reader), one.commit, `opened in round ${one.opened}, in round ${round}`);
      await one.reader.close();
      kept.splice(i, 1);
    }
  }
  for (const { reader, commit } of kept) {
    assert.equal(commitShown(reader), commit);
    await reader.close();
  }
});
