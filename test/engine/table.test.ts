/** Keys of any length in the order of their bytes, beside a sorted list that says the same. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Table } from '../../src/engine/lmdb/tree/table.js';
import { open, type RootDatabase } from '../../src/system/lmdb/lmdb.js';
import { Random } from '../support/random.js';
import { tempDir } from './temp.js';

async function openTable(t: TestContext) {
  const env: RootDatabase = open({
    path: join(await tempDir(t), 'table.mdb'),
    noSubdir: true,
    overlappingSync: false,
    eventTurnBatching: false,
  });
  t.after(() => env.close());
  const db = env.openDB<Uint8Array, Uint8Array>('t', { keyEncoding: 'binary', encoding: 'binary' });
  return { env, db, table: new Table(db) };
}

/** Few beginnings, cuts and ends, so that keys are alike up to where a group begins, and beyond. */
function someKey(random: Random): Buffer {
  const parts = [Buffer.from([2 + random.int(3)])];
  const lengths = [0, 1, 1022, 1023, 1024, 1018, 2042, 4000];
  parts.push(Buffer.alloc(random.pick(lengths), 0x61));
  for (let i = random.int(3); i >= 0; i--)
    parts.push(Buffer.from([random.pick([0, 1, 2, 0x61, 0xfe, 0xff])]));
  if (random.chance(0.3)) parts.push(Buffer.alloc(random.pick(lengths), random.pick([0, 0x62, 0xff])));
  return Buffer.concat(parts);
}

test('given keys of any length, when they come and go, then gets and ranges are those of a sorted list', async (t) => {
  const { env, db, table } = await openTable(t);
  const random = new Random(11);
  const rows = new Map<string, { key: Buffer; value: Buffer }>();
  const compared = (): { key: Buffer; value: Buffer }[] =>
    [...rows.values()].sort((a, b) => Buffer.compare(a.key, b.key));
  for (let round = 0; round < 200; round++) {
    env.transactionSync(() => {
      for (let i = 0; i < 8; i++) {
        const key =
          random.chance(0.4) && rows.size > 0 ? random.pick([...rows.values()]).key : someKey(random);
        const name = key.toString('latin1');
        if (random.chance(0.4)) {
          table.remove(key);
          rows.delete(name);
        } else {
          const value = Buffer.from(`${round}.${i}`);
          table.put(key, value);
          rows.set(name, { key, value });
        }
      }
    });
    for (let i = 0; i < 5; i++) {
      const key = random.chance(0.5) && rows.size > 0 ? random.pick([...rows.values()]).key : someKey(random);
      const found = table.get(key);
      const bytes = found === undefined ? undefined : Buffer.from(found.subarray(0, table.lastSize));
      assert.deepEqual(bytes, rows.get(key.toString('latin1'))?.value);
    }
    const all = compared();
    const lower = random.chance(0.2) ? Buffer.alloc(0) : someKey(random);
    const upper = random.chance(0.3) ? undefined : someKey(random);
    const exclusive = random.chance(0.5);
    const limit = random.pick([1, 2, 5, 1000]);
    const expected = all
      .filter(({ key }) => {
        const order = Buffer.compare(key, lower);
        if (order < 0 || (exclusive && order === 0)) return false;
        return upper === undefined || Buffer.compare(key, upper) < 0;
      })
      .slice(0, limit);
    const ranged = table.range(lower, exclusive, upper, limit);
    assert.deepEqual(
      ranged.map(([key, value]) => [key.toString('hex'), value.toString()]),
      expected.map(({ key, value }) => [key.toString('hex'), value.toString()]),
    );
    // Walked in steps, each from where the last one ended.
    if (round % 20 !== 0) continue;
    const walked: string[] = [];
    for (let from: Buffer = Buffer.alloc(0), isAfter = false; ; isAfter = true) {
      const step = table.range(from, isAfter, undefined, 3);
      walked.push(...step.map(([key]) => key.toString('hex')));
      if (step.length < 3) break;
      from = Buffer.from(step[2]![0]);
    }
    assert.deepEqual(
      walked,
      all.map(({ key }) => key.toString('hex')),
    );
  }
  env.transactionSync(() => {
    for (const { key } of rows.values()) table.remove(key);
  });
  // Of groups without keys nothing stays but the number given last.
  assert.deepEqual(
    [...db.getKeys()].map((key) => Buffer.from(key).toString('hex')),
    ['01'],
  );
});

test('given long keys as layouts before 3 have them, when they are moved, then they are found and in order', async (t) => {
  const { env, db, table } = await openTable(t);
  const long = Array.from({ length: 50 }, (_, i) =>
    Buffer.from(`\x28${'x'.repeat(1023)}${String((i * 7) % 50).padStart(2, '0')}`),
  );
  env.transactionSync(() => {
    for (const key of long) {
      const size = Buffer.alloc(4);
      size.writeUInt32LE(key.length);
      const hash = createHash('sha256').update(key).digest();
      void db.put(
        Buffer.concat([key.subarray(0, 1024), hash]),
        Buffer.concat([size, key, Buffer.from('value')]),
      );
    }
    table.put(Buffer.from('\x28short'), Buffer.from('plain'));
    table.moveHashedKeys();
  });
  const rows = table.range(Buffer.alloc(0), false, undefined, 1000);
  assert.deepEqual(
    rows.map(([key, value]) => [key.toString(), value.toString()]),
    [
      ['\x28short', 'plain'],
      ...long
        .map((key) => key.toString())
        .sort()
        .map((key) => [key, 'value']),
    ],
  );
});
