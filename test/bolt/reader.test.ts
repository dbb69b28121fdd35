/**
 * Reading bbolt files: as bbolt itself wrote them, beside a bbolt that writes, and damaged. EBBTIDE_BOLT_READS (default 100) and
 * EBBTIDE_BOLT_DAMAGES (default 500) are how often; EBBTIDE_BOLT_SEED replays damages.
 */
import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { rootBucket } from '../../src/bolt/bucket.js';
import { BoltDamage } from '../../src/bolt/format.js';
import { boltTransaction, readBolt } from '../../src/bolt/snapshot.js';
import { isKind } from '../../src/errors.js';
import { Random } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { damage } from './damage.js';
import { fill, missing, type Tree, Writer } from './program.js';
import { numbersIn, treeOf } from './tree.js';

const skip = missing ?? false;
const reads = Number(process.env.EBBTIDE_BOLT_READS ?? 100);
const damages = Number(process.env.EBBTIDE_BOLT_DAMAGES ?? 500);
const firstSeed = Number(process.env.EBBTIDE_BOLT_SEED ?? 1);

for (const pageSize of [1024, 4096, 16384, 65536]) {
  for (const keys of [3, 4000]) {
    test(`given a file with pages of ${pageSize} bytes and ${keys} keys, then all is read as bbolt reads it`, {
      skip,
    }, async (t) => {
      const path = join(await tempDir(t), 'file.db');
      const theirs = fill(path, pageSize, keys);
      const before = statSync(path, { bigint: true });
      const snapshot = await readBolt(path);
      assert.equal(snapshot.meta.pageSize, pageSize);
      assert.deepEqual(treeOf(rootBucket(snapshot)), theirs);

      const root = rootBucket(snapshot);
      for (const name of ['inline', 'none', 'many', 'deep'])
        assert.ok(
          root.find(name, (entry) => assert.equal(entry.isBucket, true)),
          name,
        );
      assert.equal(
        root.find('nothing', () => assert.fail()),
        false,
      );
      root.find('inline', (entry) => assert.equal(entry.bucket?.sequence, 7n));
      root.find('many', (entry) => {
        const many = theirs.many as Tree;
        for (const key of Object.keys(many).slice(0, 200))
          assert.ok(
            entry.bucket?.find(key, (one) => assert.equal(one.text, many[key])),
            key,
          );
      });
      const after = statSync(path, { bigint: true });
      assert.deepEqual(
        [after.mtimeNs, after.ctimeNs, after.size],
        [before.mtimeNs, before.ctimeNs, before.size],
      );
    });
  }
}

test(`given a bbolt that commits all the time, then each of ${reads} readings is of one moment`, {
  skip,
}, async (t) => {
  const path = join(await tempDir(t), 'file.db');
  await using _ = await Writer.start(path);
  const seen = new Set<string>();
  let last = 0;
  let retries = 0;
  for (let n = 0; n < reads; n++) {
    const snapshot = await readBolt(path, { readingsMax: 100_000 });
    const [number, ...others] = numbersIn(snapshot);
    assert.deepEqual(others, []);
    assert.ok(Number(number) >= last);
    last = Number(number);
    seen.add(number!);
    retries += snapshot.retries;
  }
  t.diagnostic(`${seen.size} moments, ${retries} readings were done again`);
  assert.ok(seen.size > reads / 20);
});

test('given a file that never stands still, then the reading gives up with Unavailable', {
  skip,
}, async (t) => {
  const path = join(await tempDir(t), 'file.db');
  await using _ = await Writer.start(path);
  let refused = 0;
  for (let n = 0; n < 500 && refused === 0; n++)
    await readBolt(path, { readingsMax: 1 }).catch((error: unknown) => {
      assert.ok(isKind(error, 'Unavailable'));
      refused++;
    });
  assert.ok(refused > 0);
});

test('given what is not a bbolt file, then the error says so', async (t) => {
  const dir = await tempDir(t);
  const path = join(dir, 'file.db');
  await assert.rejects(readBolt(path), { kind: 'NotFound' });
  await assert.rejects(readBolt(dir), { kind: 'FailedPrecondition' });
  writeFileSync(path, '');
  await assert.rejects(readBolt(path), { kind: 'FailedPrecondition', message: /is empty/ });
  writeFileSync(path, Buffer.alloc(100_000, 7));
  await assert.rejects(readBolt(path), (error) => error instanceof BoltDamage && error.page === undefined);
});

test('given a torn newest meta page, then the transaction before it is read', { skip }, async (t) => {
  const path = join(await tempDir(t), 'file.db');
  fill(path, 4096, 100);
  const newest = await boltTransaction(path);
  const file = readFileSync(path);
  file.fill(0xff, Number(newest % 2n) * 4096 + 40, Number(newest % 2n) * 4096 + 50);
  writeFileSync(path, file);
  const snapshot = await readBolt(path);
  assert.equal(snapshot.meta.transaction, newest - 1n);
});

test(`given ${damages} damaged files, then a walk ends, with all there is or the page that is damaged`, {
  skip,
}, async (t) => {
  const dir = await tempDir(t);
  const whole = join(dir, 'whole.db');
  const path = join(dir, 'file.db');
  fill(whole, 1024, 300);
  const original = readFileSync(whole);
  const outcomes = { read: 0, damaged: 0 };
  for (let seed = firstSeed; seed < firstSeed + damages; seed++) {
    writeFileSync(path, damage(Buffer.from(original), 1024, new Random(seed)));
    try {
      treeOf(rootBucket(await readBolt(path)));
      outcomes.read++;
    } catch (error) {
      assert.ok(error instanceof BoltDamage && error.page !== undefined, `seed ${seed}: ${String(error)}`);
      outcomes.damaged++;
    }
  }
  t.diagnostic(JSON.stringify(outcomes));
  assert.ok(outcomes.damaged > damages / 10);
});
