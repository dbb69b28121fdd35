/** The history of collections: what is kept of a run, and the file that keeps it through kills and full disks. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { CollectionRecord } from '../../src/gc/report/collection-record.js';
import { RemovedNames, recordOf } from '../../src/gc/report/collection-record.js';
import { emptyStats } from '../../src/gc/stats.js';
import { History } from '../../src/history/history.js';
import { HALF_BYTES, RecordFile } from '../../src/history/record-file.js';
import { digestOf } from '../../src/model/digest.js';
import { openDB } from '../../src/open.js';
import { HeldDirectory } from '../../src/system/held-directory.js';
import { Random } from '../support/random.js';
import { tempDir } from '../support/temp.js';

const ctx = { namespace: 'test' };
const record = (n: number, more: Partial<CollectionRecord> = {}): CollectionRecord => ({
  startedAt: '2026-11-29T10:00:00Z',
  durationMs: n,
  outcome: 'ok',
  removed: { content: 1 },
  orphans: {},
  bytesFreed: 1,
  backendErrors: 0,
  planned: false,
  names: [{ kind: 'content', namespace: 'test', key: 'x'.repeat(2000) }],
  unnamed: 0,
  ...more,
});
const numbers = (records: readonly unknown[]): number[] =>
  records.map((one) => (one as CollectionRecord).durationMs);
const noWarning = (message: string): void => assert.fail(message);

test('given collections that remove and one that finds nothing, when the store is opened again, then its history names what went', async (t) => {
  const root = await tempDir(t);
  const blob = Buffer.from('a blob');
  {
    await using db = await openDB({ root, log: () => undefined });
    const writer = await db.content.writer(ctx, 'ref', {});
    await writer.write(blob);
    await writer.commit(blob.length, digestOf(blob));
    await db.garbageCollect();
    await db.garbageCollect();
    const orphan = digestOf(Buffer.from('nobody names it'));
    writeFileSync(
      join(root, 'io.containerd.content.v1.content/blobs/sha256', orphan.slice(7)),
      'nobody names it',
    );
    await db.garbageCollect({}, { fullSweep: true, orphanGuard: { floor: 5 } });
    await db.garbageCollect({}, { dryRun: true, fullSweep: true });
  }
  for (const readOnly of [false, true]) {
    await using db = await openDB({ root, readOnly, log: () => undefined });
    const [second, first, ...others] = await db.history();
    assert.deepEqual(others, []);
    assert.deepEqual(first?.names, [{ kind: 'content', namespace: 'test', key: digestOf(blob) }]);
    assert.deepEqual([first?.removed, first?.outcome], [{ content: 1 }, 'ok']);
    assert.ok(first?.bytesFreed);
    const key = digestOf(Buffer.from('nobody names it'));
    assert.deepEqual(second?.names, [{ kind: 'content', namespace: '', key, orphan: true }]);
    assert.deepEqual([second?.removed, second?.orphans], [{}, { content: 1 }]);
    assert.deepEqual(numbers(await db.history({ limit: 1 })), [second?.durationMs]);
    await assert.rejects(db.history({ limit: 0 }), /a limit of 0/);
  }
  const { size, mode } = statSync(join(root, 'io.containerd.metadata.v1.ebbtide/history'));
  assert.deepEqual([size, mode & 0o777], [2 * HALF_BYTES, 0o600]);
});

test('given a run that removes very much, then its record has the first names of each kind, and is small', () => {
  const names = new RemovedNames();
  const stats = emptyStats();
  for (const kind of ['content', 'snapshot', 'image', 'ingest']) {
    stats.removed[kind] = 100_000;
    // The worst of a client: every character takes six as JSON.
    const key = kind === 'ingest' ? '\u0001'.repeat(1000) : `${kind}-0`;
    for (let i = 0; i < 1000 && names.wants(kind); i++)
      names.add({ kind, namespace: 'n', key: `${key}${i}` });
    assert.ok(!names.wants(kind), 'a million more are not looked at');
  }
  const kept = recordOf({ startedAt: 0n, durationMs: 1, stats, names, planned: false });
  assert.deepEqual(
    ['content', 'snapshot', 'image', 'ingest'].map(
      (kind) => kept.names.filter((n) => n.kind === kind).length,
    ),
    [64, 64, 64, 1],
  );
  assert.equal(kept.unnamed, 400_000 - 193);
  assert.ok(JSON.stringify(kept).length < 40_000);
});

describe('the file of the history', () => {
  const file = async (directory: string) => {
    const held = HeldDirectory.open(directory);
    const opened = await RecordFile.open(held, 'history');
    return {
      opened,
      async [Symbol.asyncDispose]() {
        await opened.close();
        held.release();
      },
    };
  };

  test('given more records than it has room for, then it keeps the newest, in order, whenever it is opened', async (t) => {
    const dir = await tempDir(t);
    for (let n = 0; n < 300; ) {
      await using of = await file(dir);
      for (const end = n + 50; n < end; n++) await of.opened.append(record(n));
    }
    const kept = numbers(await RecordFile.read(join(dir, 'history')));
    assert.deepEqual(
      kept,
      Array.from({ length: kept.length }, (_, i) => 300 - kept.length + i),
    );
    // At least the half that is not being filled.
    assert.ok(kept.length >= Math.floor(HALF_BYTES / 2300), String(kept.length));
    assert.equal(statSync(join(dir, 'history')).size, 2 * HALF_BYTES);
  });

  test('given a write that was cut off anywhere, then every record before it is there, it is there or not, and the next one follows', async (t) => {
    const dir = await tempDir(t);
    const random = new Random(1);
    const path = join(dir, 'history');
    let n = 0;
    for (let round = 0; round < 40; round++) {
      await using of = await file(dir);
      for (const end = n + 1 + random.int(30); n < end; n++) await of.opened.append(record(n));
      const before = readFileSync(path);
      await of.opened.append(record(n));
      const after = readFileSync(path);
      // The first bytes of the write are in the file, the rest is not.
      const first = before.findIndex((byte, i) => byte !== after[i]);
      const changed =
        after.length -
        [...after].reverse().findIndex((byte, i) => byte !== before[before.length - 1 - i]) -
        first;
      const cut = first + random.int(changed);
      writeFileSync(path, Buffer.concat([after.subarray(0, cut), before.subarray(cut)]));
      const kept = numbers(await RecordFile.read(path));
      assert.ok(kept.length === 0 || kept.at(-1)! >= n - 1, `round ${round}: ${kept.at(-1)} of ${n}`);
      assert.deepEqual(
        kept,
        Array.from({ length: kept.length }, (_, i) => kept[0]! + i),
      );
    }
  });

  test('given anything in its place, then it is read as far as it makes sense, and written from there', async (t) => {
    const dir = await tempDir(t);
    const random = new Random(2);
    const path = join(dir, 'history');
    for (let round = 0; round < 20; round++) {
      const bytes = Buffer.alloc(random.int(3 * HALF_BYTES), random.int(256));
      for (let i = 0; i < 50 && bytes.length > 0; i++) bytes[random.int(bytes.length)] = random.int(256);
      if (bytes.length > 16) bytes.write('EBH1', 0);
      writeFileSync(path, bytes);
      assert.deepEqual(await RecordFile.read(path), []);
      await using of = await file(dir);
      await of.opened.append(record(round));
      assert.deepEqual(numbers(await RecordFile.read(path)), [round]);
    }
  });
});

test('given a disk without space, when runs end, then their records wait, bounded, and are written when there is some', {
  skip: process.getuid?.() === 0 ? false : 'mounting a file system needs root',
}, async (t) => {
  const dir = join(await tempDir(t), 'small');
  mkdirSync(dir);
  assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=832k', 'tmpfs', dir]).status, 0);
  writeFileSync(join(dir, 'full'), Buffer.alloc(700 * 1024));
  const warnings: string[] = [];
  const history = new History(dir, false, (message) => void warnings.push(message));
  t.after(async () => {
    await history.close();
    spawnSync('umount', [dir]);
  });
  for (let n = 0; n < 100; n++) {
    history.add(record(n, { names: [] }));
    if (n % 10 === 0) await history.read();
  }
  assert.deepEqual(warnings, ['the history of collections is not written']);
  assert.deepEqual(
    numbers(await history.read()).slice(0, 64),
    Array.from({ length: 64 }, (_, i) => 99 - i),
  );
  assert.deepEqual(await RecordFile.read(join(dir, 'history')), []);
  // What a collection freed.
  writeFileSync(join(dir, 'full'), '');
  history.add(record(100));
  assert.equal((await history.read()).length, 64);
  assert.equal((await RecordFile.read(join(dir, 'history'))).length, 64);
  // Its blocks are its own from now on.
  spawnSync('dd', ['if=/dev/zero', `of=${join(dir, 'full')}`, 'bs=64k']);
  for (let n = 101; n < 200; n++) {
    history.add(record(n));
    await history.read({ limit: 1 });
  }
  assert.equal(numbers(await RecordFile.read(join(dir, 'history'))).at(-1), 199);
});

test('given a run that fails again and again for one reason, then it is kept once', async () => {
  const history = new History(undefined, false, noWarning);
  const failed = record(1, {
    outcome: 'FailedPrecondition',
    error: 'the guard',
    removed: {},
    bytesFreed: 0,
    names: [],
  });
  for (let n = 0; n < 5; n++) history.add({ ...failed, durationMs: n });
  history.add(record(7));
  history.add({ ...failed, durationMs: 8 });
  history.add({ ...failed, outcome: 'Canceled', durationMs: 9 });
  history.add(record(10, { removed: {}, bytesFreed: 0 }));
  assert.deepEqual(numbers(await history.read()), [8, 7, 0]);
  await history.close();
});
