/** A write-ahead log that is lost, or comes back older, after an end that was not clean: it is reported, never ignored. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import {
  BATCH_HEAD_BYTES,
  BatchBuilder,
  decodeMark,
  encodeMark,
  sealBatch,
} from '../../src/engine/lmdb/wal/format.js';
import { recoverLog } from '../../src/engine/lmdb/wal/recovery.js';
import { Wal } from '../../src/engine/lmdb/wal/wal.js';
import { key } from '../../src/engine/schema/keys.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { EbbtideError, kindOf } from '../../src/errors.js';
import { createGraph } from '../../src/graph/carriers.js';
import { digestOf } from '../../src/model/digest.js';
import { tempDir } from './temp.js';

const LOGS = ['log.0', 'log.1'];
const MEBIBYTE = 1024 * 1024;
const image = (i: number): string => key('images', 'ns', `i${i}`);

async function open(t: TestContext, dir: string, options: { readOnly?: boolean; warnings?: string[] } = {}) {
  const { readOnly = false, warnings = [] } = options;
  const warn = (message: string) => void warnings.push(message);
  const engine = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph(), readOnly, warn });
  t.after(() => engine.close());
  return engine;
}

const put = (engine: CoreEngine, i: number, size = 10): Promise<unknown> =>
  engine.update((tx) => tx.put(image(i), { size: i, value: 'x'.repeat(size) }));

const imagesIn = (engine: CoreEngine): number => [...engine.scan('images')].length;

const storageOf = ({ storage }: CoreEngine): LmdbStorage => {
  assert.ok(storage instanceof LmdbStorage);
  return storage;
};

async function copyOf(t: TestContext, dir: string): Promise<string> {
  const copy = join(await tempDir(t), 'copy');
  cpSync(dir, copy, { recursive: true });
  return copy;
}

/**
 * A store after a crash: ten images in the tree, ten in the log alone. `before`: the directory after the second opening,
 * before its first commit; `earlier`: at the end of the first one.
 */
async function crashed(t: TestContext): Promise<{ dir: string; before: string; earlier: string }> {
  const dir = await tempDir(t);
  const first = await open(t, dir);
  for (let i = 0; i < 10; i++) await put(first, i);
  const earlier = await copyOf(t, dir);
  await first.close();
  const engine = await open(t, dir);
  const before = await copyOf(t, dir);
  for (let i = 10; i < 20; i++) await put(engine, i);
  return { dir: await copyOf(t, dir), before, earlier };
}

const treeOf = (dir: string): string[] =>
  ['meta.mdb', ...LOGS].map((name) => {
    const path = join(dir, name);
    return existsSync(path) ? `${name} ${digestOf(readFileSync(path))}` : name;
  });

/** Refused by name, read-only too, and left as it is. */
async function assertRefused(t: TestContext, dir: string, kinds: readonly string[]): Promise<void> {
  const before = treeOf(dir);
  for (const readOnly of [true, false]) {
    await assert.rejects(open(t, dir, { readOnly }), (error) => {
      assert.ok(kinds.includes(kindOf(error)), String(error));
      assert.ok(
        error instanceof EbbtideError && error.object?.startsWith(dir) && error.message.includes(dir),
      );
      assert.match(error.remedy ?? '', /log\.lost/);
      return true;
    });
  }
  assert.deepEqual(treeOf(dir), before);
}

const losses: Readonly<Record<string, (dir: string, copies: { earlier: string }) => void>> = {
  'both files are gone': (dir) => LOGS.forEach((name) => void rmSync(join(dir, name))),
  'the file in use is gone': (dir) => rmSync(join(dir, 'log.0')),
  'both files are empty': (dir) => LOGS.forEach((name) => void writeFileSync(join(dir, name), '')),
  'the file in use has only zeros': (dir) => writeFileSync(join(dir, 'log.0'), Buffer.alloc(MEBIBYTE)),
  'both files are those of an earlier opening': (dir, { earlier }) =>
    LOGS.forEach((name) => void cpSync(join(earlier, name), join(dir, name))),
};

for (const [how, lose] of Object.entries(losses)) {
  test(`given a crash, when ${how}, then opening fails until they are back, or the loss is accepted`, async (t) => {
    const { dir, earlier } = await crashed(t);
    const whole = await copyOf(t, dir);
    lose(dir, { earlier });
    await assertRefused(t, dir, ['FailedPrecondition']);

    const restored = await copyOf(t, dir);
    for (const name of LOGS) cpSync(join(whole, name), join(restored, name));
    const again = await open(t, restored);
    assert.equal(imagesIn(again), 20);
    await again.close();

    writeFileSync(join(dir, 'log.lost'), '');
    const warnings: string[] = [];
    const engine = await open(t, dir, { warnings });
    assert.equal(imagesIn(engine), 10);
    assert.equal(engine.cleanStart, false);
    assert.equal(
      warnings.filter((text) => /acknowledged commits are missing.*accepted/.test(text)).length,
      1,
    );
    assert.equal(existsSync(join(dir, 'log.lost')), false);
    await put(engine, 30);
    // Nothing is accepted for good.
    const later = await copyOf(t, dir);
    for (const name of LOGS) rmSync(join(later, name));
    await assertRefused(t, later, ['FailedPrecondition']);
    await engine.close();
    const last = await open(t, dir);
    assert.equal(imagesIn(last), 11);
  });
}

test('given a crash, when the log is a copy that the tree has passed, then opening fails', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  await put(engine, 0);
  const old = await copyOf(t, dir);
  for (let i = 1; i < 5; i++) await put(engine, i);
  await storageOf(engine).drain();
  await put(engine, 5);
  const copy = await copyOf(t, dir);
  for (const name of LOGS) cpSync(join(old, name), join(copy, name));
  await assertRefused(t, copy, ['FailedPrecondition']);
});

test('given a damaged log, when its loss is accepted, then what comes before the damage is there', async (t) => {
  const { dir } = await crashed(t);
  const log = join(dir, 'log.0');
  const bytes = readFileSync(log);
  const fourth = bytes.indexOf('i13');
  bytes[fourth]! ^= 0x40;
  writeFileSync(log, bytes);
  await assertRefused(t, dir, ['Unknown']);
  writeFileSync(join(dir, 'log.lost'), '');
  const engine = await open(t, dir);
  assert.equal(imagesIn(engine), 13);
  await put(engine, 30);
  assert.equal(imagesIn(await open(t, await copyOf(t, dir))), 14);
});

/** Ten images of a mebibyte, most of them in the first generation of the log: its files as a crash leaves them. */
async function turned(t: TestContext): Promise<string> {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  for (let i = 0; i < 10; i++) await put(engine, i, MEBIBYTE);
  const copy = await copyOf(t, dir);
  await engine.close();
  return copy;
}

test('given a log in its second generation, when either file is lost, then opening fails', async (t) => {
  const dir = await turned(t);
  for (const name of LOGS) {
    const without = await copyOf(t, dir);
    rmSync(join(without, name));
    await assertRefused(t, without, ['FailedPrecondition', 'Unknown']);
  }
  assert.equal(imagesIn(await open(t, dir)), 10);
});

test('given a crash at any moment of a switch, when opened, then nothing that was acknowledged is missing', async (t) => {
  const dir = await turned(t);
  const [first, second] = LOGS.map((name) => readFileSync(join(dir, name))) as [Buffer, Buffer];
  const begun = decodeMark(first);
  const next = decodeMark(second);
  assert.deepEqual([begun.generation, next.generation, begun.salt === next.salt], [1, 2, false]);
  const inUse = encodeMark(begun, false);
  const left = encodeMark(begun, true);
  const mark = encodeMark(next, false);
  assert.ok(first.subarray(0, left.length).equals(left) && second.subarray(0, mark.length).equals(mark));
  const states: [string, Buffer, Buffer][] = [
    ['no file yet', inUse, Buffer.alloc(0)],
    ['a mark that is torn', inUse, Buffer.from(mark).fill(0, 20)],
    ['the mark of the next generation', inUse, mark],
    ['the file is left', left, mark],
    ['the first batch is torn', left, second.subarray(0, 1000)],
  ];
  for (const [state, firstMark, secondBytes] of states) {
    const crash = await copyOf(t, dir);
    firstMark.copy(first);
    writeFileSync(join(crash, 'log.0'), first);
    writeFileSync(join(crash, 'log.1'), Buffer.concat([secondBytes, Buffer.alloc(4096)]));
    const engine = await open(t, crash);
    const count = imagesIn(engine);
    assert.ok(count > 5 && count < 10, `${state}: ${count}`);
    await put(engine, 20);
    await engine.close();
  }
});

test('given a close that could not be stored in the tree, when opened, then nothing is missing', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  await put(engine, 0);
  storageOf(engine).onClose = async () => false;
  await engine.close();
  const again = await open(t, dir);
  assert.equal(imagesIn(again), 1);
  assert.equal(again.cleanStart, false);
});

test('given a checkpoint while the store is open, when the process dies, then the end was not clean', async (t) => {
  const dir = await tempDir(t);
  await (await open(t, dir)).close();
  const engine = await open(t, dir);
  // More than a journal may have without a checkpoint.
  for (let i = 0; i < 8; i++) {
    await engine.update((tx) => {
      for (let k = 0; k < 2500; k++) tx.put(image(i * 2500 + k), { refs: { a: image(k), b: image(k + 1) } });
    });
  }
  const storage = storageOf(engine);
  await storage.drain();
  while (storage.journalBytes() > 512 * 1024) await new Promise((resolve) => setTimeout(resolve, 5));
  const copy = await copyOf(t, dir);
  assert.equal((await open(t, copy)).cleanStart, false);
});

function batchOf(revision: number, bytes: Uint8Array): Buffer {
  const entries = new Map([
    [image(revision), { before: undefined, after: { id: 2 ** 32 - 1, adjacency: undefined, bytes } }],
  ]);
  const nothing = {
    links: new Map(),
    formerChildren: [],
    counters: new Map(),
    ops: new Uint32Array(),
    recordDelta: 1,
    freed: new Map(),
  };
  const builder = new BatchBuilder();
  builder.add({ revision, entries, ...nothing });
  return builder.finish(revision - 1);
}

/** What a client may have stored as a value: whole batches and beginnings of some, of all generations that may come. */
function forged(): Buffer {
  const batches: Buffer[] = [];
  for (let generation = 0; generation < 100; generation++) {
    const batch = batchOf(1e6 + generation, new Uint8Array());
    sealBatch(batch, generation);
    batches.push(batch, encodeMark({ generation, revision: 1e6, salt: 0 }, false));
    // At any alignment a head without the rest.
    for (let pad = 0; pad < 8; pad++) batches.push(Buffer.concat([batch.subarray(0, 8), Buffer.alloc(pad)]));
  }
  return Buffer.concat(batches);
}

test('given values that look like batches, when the process dies in whatever generation of the log, then nothing is missing', async (t) => {
  const dir = await tempDir(t);
  const log = new Wal(dir, 0, 0);
  assert.ok(log.begin());
  const value = Buffer.concat(Array.from({ length: 8 }, forged));
  let revision = 0;
  const recovered = (flushed = revision) => recoverLog(dir, { flushed, begun: log.generation });
  for (let generation = 0; generation < 8; generation++) {
    // Enough for the next generation to begin in the other file, over what is there of an earlier one.
    for (let i = 0; i < 20 + generation; i++) await log.append(batchOf(++revision, value));
    const { batches, loss } = recoverLog(dir, { flushed: revision - 5, begun: 1 });
    assert.deepEqual([batches.length, loss], [5, undefined]);
    log.flushed(revision);
  }
  assert.ok(log.generation > 2);
  await log.close(false);

  // The batch that was written last is torn, anywhere.
  const names = LOGS.map((name) => join(dir, name));
  const contents = names.map((name) => readFileSync(name));
  const { filled } = recoverLog(dir, { flushed: revision });
  const current = filled.findIndex((file) => file?.revision === revision);
  const { used } = filled[current]!;
  const last = batchOf(revision, value).length;
  for (let cut = used - last + BATCH_HEAD_BYTES; cut < used; cut += Math.floor(last / 17)) {
    writeFileSync(
      names[current]!,
      Buffer.from(contents[current]!).fill(0, used - last, used - last + BATCH_HEAD_BYTES),
    );
    assert.equal(recovered(revision - 1).loss, undefined);
    writeFileSync(names[current]!, Buffer.from(contents[current]!).fill(0, cut, used));
    assert.equal(recovered(revision - 1).loss, undefined);
  }
  writeFileSync(names[current]!, contents[current]!);

  // A file that is being emptied: zeros before what was there.
  for (const [i, name] of names.entries()) {
    writeFileSync(name, Buffer.from(contents[i]!).fill(0, 0, MEBIBYTE));
    assert.equal(recoverLog(dir, { flushed: revision, hasMarks: true }).loss, undefined);
    writeFileSync(name, contents[i]!);
  }
});

test('given blocks that the log gives back on a full disk, when the process dies then, then nothing is missing', async (t) => {
  const dir = await tempDir(t);
  const log = new Wal(dir, 0, 0);
  assert.ok(log.begin());
  for (let revision = 1; revision <= 3; revision++)
    await log.append(batchOf(revision, new Uint8Array(MEBIBYTE)));
  log.flushed(3);
  // Not while zeros are written ahead.
  while (!log.giveBack()) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(recoverLog(dir, { flushed: 3, begun: log.generation }).loss, undefined);
  await log.close(false);
});
