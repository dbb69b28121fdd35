/** The write-ahead log: what a crash may tear, what is damage, the switch of the files, and a process that ends at any time. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { BATCH_HEAD_BYTES, batchAt } from '../../src/engine/lmdb/wal/format.js';
import { recoverLog } from '../../src/engine/lmdb/wal/recovery.js';
import { Wal } from '../../src/engine/lmdb/wal/wal.js';
import { key } from '../../src/engine/schema/keys.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { EbbtideError } from '../../src/errors.js';
import { createGraph } from '../../src/graph/carriers.js';
import { digestOf } from '../../src/model/digest.js';
import { tempDir } from './temp.js';

const image = (i: number): string => key('images', 'ns', `i${String(i).padStart(5, '0')}`);

async function open(t: TestContext, dir: string, readOnly = false): Promise<CoreEngine> {
  const engine = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph(), readOnly });
  t.after(() => engine.close());
  return engine;
}

/** A store as a crash leaves it, with commits 0 … count - 1 in its log, one batch each. */
async function crashed(t: TestContext, count: number, size = 100): Promise<string> {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  for (let i = 0; i < count; i++) {
    await engine.update((tx) =>
      tx.put(image(i), { size: i, value: 'x'.repeat(size), refs: { a: image(i + 1) } }),
    );
  }
  const copy = join(await tempDir(t), 'crashed');
  cpSync(dir, copy, { recursive: true });
  await engine.close();
  return copy;
}

/** Where the batches of a log file begin, after its mark, and where the last one ends. */
function batchesIn(path: string): number[] {
  const log = readFileSync(path);
  const starts = [BATCH_HEAD_BYTES];
  for (let at = BATCH_HEAD_BYTES, next = batchAt(log, at); next !== undefined; next = batchAt(log, at)) {
    at += next.batch.length;
    starts.push(at);
  }
  return starts;
}

function flip(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes[offset]! ^= 0x40;
  writeFileSync(path, bytes);
}

/** Without LMDB's list of readers. */
const digestsOf = (dir: string): string[] =>
  ['log.0', 'meta.mdb'].map((name) => `${name} ${digestOf(readFileSync(join(dir, name)))}`);

const imagesIn = (engine: CoreEngine): number => [...engine.scan('images')].length;

/** After a clean close: nothing in it, and the blocks with which a full disk takes removals. */
function assertEmptyLog(dir: string): void {
  for (const name of ['log.0', 'log.1']) {
    const bytes = readFileSync(join(dir, name));
    assert.equal(bytes.length, 1024 * 1024);
    assert.ok(
      bytes.every((byte) => byte === 0),
      `${name} is not empty`,
    );
  }
}

test('given a crash, when the last batch is torn anywhere, then the store opens with all before it', async (t) => {
  const dir = await crashed(t, 12);
  const log = join(dir, 'log.0');
  const starts = batchesIn(log);
  assert.equal(starts.length, 13, 'one batch a commit');
  const last = starts[11]!;
  const size = starts[12]! - last;
  for (const offset of [0, 5, 9, 13, 20, 33, 41, Math.floor(size / 2), size - 1]) {
    const torn = join(await tempDir(t), 'torn');
    cpSync(dir, torn, { recursive: true });
    flip(join(torn, 'log.0'), last + offset);
    for (const readOnly of [true, false]) {
      const engine = await open(t, torn, readOnly);
      assert.equal(imagesIn(engine), 11, `offset ${offset}`);
      assert.equal(engine.cleanStart, false);
      assert.deepEqual(engine.verifyGraph(), []);
      await engine.close();
    }
    assertEmptyLog(torn);
  }
});

for (const [what, damage] of [
  ['its mark', (log) => flip(log, 5)],
  ['its first batch', (log) => flip(log, batchesIn(log)[0]! + 60)],
  ['a batch in the middle', (log) => flip(log, batchesIn(log)[4]! + 60)],
  ['the length of a batch', (log) => flip(log, batchesIn(log)[4]! + 11)],
  [
    'everything up to the last batch',
    (log) => writeFileSync(log, readFileSync(log).fill(7, 0, batchesIn(log)[11])),
  ],
  [
    'the first batch of a file without a mark',
    (log) => {
      writeFileSync(log, readFileSync(log).subarray(BATCH_HEAD_BYTES));
      flip(log, 60);
    },
  ],
] as readonly [string, (log: string) => void][]) {
  test(`given a log of which ${what} is damaged, when opened, then Unknown names the file, and nothing is changed`, async (t) => {
    const dir = await crashed(t, 12);
    const log = join(dir, 'log.0');
    damage(log);
    const before = digestsOf(dir);
    await assert.rejects(open(t, dir), (error) => {
      assertKind('Unknown')(error);
      assert.ok(error instanceof EbbtideError && error.object === log && error.remedy !== undefined);
      return true;
    });
    assert.deepEqual(digestsOf(dir), before);
  });
}

test('given a batch that can be read but is not on disk, when the log goes on after it, then it is written again', async (t) => {
  const dir = await crashed(t, 3, 10_000);
  const path = join(dir, 'log.0');
  const [, , last, end] = batchesIn(path);
  const read = readFileSync(path);
  // Its write failed, or its owner ended before: the system has it in memory, and takes it for written.
  writeFileSync(path, Buffer.from(read).fill(0, last, end));
  const recovered = recoverLog(dir, { flushed: 0 }, [read, readFileSync(join(dir, 'log.1'))]);
  assert.equal(recovered.batches.length, 3);
  const log = new Wal(dir, recovered.generation, 0);
  log.resume(recovered);
  await log.close(false);
  assert.deepEqual(readFileSync(path).subarray(0, end), read.subarray(0, end));
});

test('given more commits than one file takes, when the process dies, then both files have all of them', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  const names = new Set<string>();
  for (let i = 0; i < 90; i++) {
    await engine.update((tx) => tx.put(image(i), { size: i, value: `${i}`.repeat(100_000) }));
    if (i % 9 !== 8) continue;
    const copy = join(await tempDir(t), 'copy');
    cpSync(dir, copy, { recursive: true });
    for (const name of readdirSync(copy)) if (name.startsWith('log.')) names.add(name);
    const again = await open(t, copy);
    assert.equal(imagesIn(again), i + 1);
    await again.close();
  }
  assert.deepEqual([...names].sort(), ['log.0', 'log.1']);
  // An old file beside newer ones is nothing new.
  await engine.close();
  assertEmptyLog(dir);
});

test('given a log of which a file is missing, when opened, then Unknown: what was acknowledged is gone', async (t) => {
  const dir = await crashed(t, 12);
  const log = join(dir, 'log.0');
  const [, , third] = batchesIn(log);
  // The first commits are only in this file.
  writeFileSync(log, readFileSync(log).subarray(third));
  await assert.rejects(open(t, dir), assertKind('Unknown'));
});

test('given files of an earlier crash that came back, when opened, then they are passed over', async (t) => {
  const dir = await crashed(t, 6);
  const kept = join(await tempDir(t), 'kept');
  copyFileSync(join(dir, 'log.0'), kept);
  const engine = await open(t, dir);
  await engine.update((tx) => tx.put(image(50), { size: 50 }));
  const copy = join(await tempDir(t), 'copy');
  cpSync(dir, copy, { recursive: true });
  copyFileSync(kept, join(copy, 'log.1'));
  await engine.close();
  const again = await open(t, copy);
  assert.equal(imagesIn(again), 7);
  await again.close();
});

for (const how of ['exit', 'end', 'throw']) {
  test(`given commits on their way to the tree, when the process comes to its end by ${how}, then it ends, and all is there`, async (t) => {
    const dir = await tempDir(t);
    const script = fileURLToPath(import.meta.resolve('./lmdb-child.js'));
    const child = spawn(process.execPath, [script, dir, how], { stdio: ['ignore', 'pipe', 'ignore'] });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    const [code] = await once(child, 'close');
    assert.equal(code, how === 'throw' ? 1 : 0);
    const engine = await open(t, dir);
    const acknowledged = Number(output.trim().split('\n').at(-1));
    assert.ok(acknowledged > 0);
    assert.ok(imagesIn(engine) >= acknowledged, `${imagesIn(engine)} of ${acknowledged}`);
    assert.deepEqual(engine.verifyGraph(), []);
    await engine.close();
  });
}

test('given a store that was written and closed, then its files have nothing that only the log has', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  for (let i = 0; i < 50; i++) await engine.update((tx) => tx.put(image(i), { size: i }));
  assert.ok(statSync(join(dir, 'log.0')).size > 0);
  await engine.close();
  assert.deepEqual(readdirSync(dir).sort(), ['lock', 'log.0', 'log.1', 'meta.mdb']);
  assertEmptyLog(dir);
  for (const name of ['log.0', 'log.1']) rmSync(join(dir, name));
  assert.equal(imagesIn(await open(t, dir)), 50);
});

for (const [how, lose] of [
  ['missing', (path: string) => rmSync(path)],
  ['empty', (path: string) => writeFileSync(path, '')],
] as const) {
  test(`given a data file that is ${how} beside a log that goes on with it, when opened, then it is refused and nothing is made`, async (t) => {
    const first = await crashed(t, 5);
    await (await open(t, first)).close();
    const engine = await open(t, first);
    await engine.update((tx) => tx.put(image(7), { size: 7 }));
    const dir = join(await tempDir(t), 'copy');
    cpSync(first, dir, { recursive: true });
    const whole = readFileSync(join(dir, 'meta.mdb'));
    lose(join(dir, 'meta.mdb'));
    for (let i = 0; i < 2; i++) {
      await assert.rejects(open(t, dir), assertKind('FailedPrecondition'));
      assert.equal(existsSync(join(dir, 'meta.mdb')), how === 'empty');
    }
    writeFileSync(join(dir, 'meta.mdb'), whole);
    assert.deepEqual((await open(t, dir)).get(image(7)), { size: 7 });
  });
}

test('given a data file that is missing beside a log from the first commit on, when opened, then all commits are there', async (t) => {
  const dir = await crashed(t, 5);
  rmSync(join(dir, 'meta.mdb'));
  const engine = await open(t, dir);
  for (let i = 0; i < 5; i++) assert.ok(engine.has(image(i)));
});

test('given a log that a power cut left half emptied, when opened, then nothing is missing: the tree has its commits', async (t) => {
  const dir = await crashed(t, 12, 3000);
  const log = join(dir, 'log.0');
  const written = readFileSync(log);
  await (await open(t, dir)).close();
  // The tree has all of it; of the zeros over the file one page reached the disk, in the middle of the batches.
  const starts = batchesIn(log).length;
  assert.equal(starts, 1, 'the log is empty');
  written.fill(0, 8192, 12_288);
  writeFileSync(log, written);
  const engine = await open(t, dir);
  for (let i = 0; i < 12; i++) assert.ok(engine.get(image(i)), image(i));
});
