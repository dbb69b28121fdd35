/** Files that we write, judged by bbolt: its own check, its own reading, its own changes afterwards. */
import assert from 'node:assert/strict';
import { copyFileSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Bucket, rootBucket } from '../../src/bolt/bucket.js';
import { copyBucket } from '../../src/bolt/copy.js';
import { FileHeap } from '../../src/bolt/heap.js';
import { readBolt } from '../../src/bolt/snapshot.js';
import { BoltWriter } from '../../src/bolt/writer.js';
import { inTurns } from '../../src/system/turns.js';
import { Random } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { dump, fill, judge, missing, type Tree } from './program.js';

const skip = missing ?? false;

/** Every 1,000 steps a drain, so that writing in pieces is tried as well. */
async function copy(from: Bucket, path: string, pageSize: number): Promise<number> {
  await using writer = await BoltWriter.create(path, { pageSize });
  await inTurns(copyBucket(from, writer));
  return await writer.finish();
}

for (const pageSize of [512, 1024, 4096, 65536]) {
  test(`given a file of bbolt, when it is written again with pages of ${pageSize} bytes, then bbolt finds it sound and the same`, {
    skip,
  }, async (t) => {
    const dir = await tempDir(t);
    for (const keys of [3, 4000]) {
      const [from, path] = [join(dir, `from-${keys}.db`), join(dir, `to-${keys}.db`)];
      const theirs = fill(from, 4096, keys);
      const size = await copy(rootBucket(await readBolt(from)), path, pageSize);
      assert.equal(statSync(path).size, size);
      assert.ok(size < statSync(from).size || pageSize > 4096);
      const snapshot = await readBolt(path);
      rootBucket(snapshot).find('inline', (entry) => assert.equal(entry.bucket?.sequence, 7n));
      assert.deepEqual(dump(path), theirs);
      assert.deepEqual(judge([path]), ['sound']);
    }
    assert.deepEqual(readdirSync(dir).sort(), ['from-3.db', 'from-4000.db', 'to-3.db', 'to-4000.db']);
  });
}

/** Buckets in buckets, some of one entry, some of thousands; keys and values from one byte to several pages. */
function grow(writer: BoltWriter, random: Random, depth: number): Tree {
  const tree: Tree = {};
  const names = new Set<string>();
  const count = [0, 1, 2, 3, 50, 2000][random.int(depth === 0 ? 6 : 5)]!;
  for (let n = 0; n < count; n++)
    names.add(`${random.int(1e9)}`.repeat(1 + random.int(random.int(40) === 0 ? 300 : 3)));
  for (const name of [...names].sort()) {
    const key = Buffer.from(name);
    if (depth < 4 && random.int(10) === 0) {
      writer.openBucket(key, random.int(9));
      tree[`=${name}`] = grow(writer, random, depth + 1);
      writer.closeBucket();
    } else {
      const value = 'v'.repeat(random.int(random.int(30) === 0 ? 20_000 : 100));
      writer.put(key, Buffer.from(value));
      tree[`=${name}`] = value;
    }
  }
  return tree;
}

/** Names of digits alone are put in another order by objects. */
const named = (tree: Tree): Tree =>
  Object.fromEntries(
    Object.entries(tree).map(([name, one]) => [`=${name}`, typeof one === 'string' ? one : named(one)]),
  );

test('given random trees, when written, then bbolt finds each sound and the same, before and after changes', {
  skip,
}, async (t) => {
  const dir = await tempDir(t);
  const paths: string[] = [];
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed);
    const path = join(dir, `${seed}.db`);
    await using writer = await BoltWriter.create(path, { pageSize: 512 << random.int(5) });
    writer.openBucket(Buffer.from('all'));
    const tree = grow(writer, random, 0);
    writer.closeBucket();
    await writer.finish();
    if (seed % 4 === 0) assert.deepEqual(named(dump(path)), { '=all': tree }, `seed ${seed}`);
    paths.push(path);
  }
  const verdicts = judge(paths);
  assert.deepEqual(
    verdicts.map((verdict, n) => `${n + 1}: ${verdict}`),
    paths.map((_, n) => `${n + 1}: sound`),
  );
});

test('given a bucket that fits into a page, but not into nine tenths of it, when written, then it is in one page', async (t) => {
  const path = join(await tempDir(t), 'file.db');
  await using writer = await BoltWriter.create(path);
  writer.openBucket(Buffer.from('bucket'));
  for (let n = 0; n < 38; n++) writer.put(Buffer.from(String(n).padStart(2, '0')), Buffer.alloc(85, 'x'));
  writer.closeBucket();
  // Two metas, the freelist, the bucket, the root.
  assert.equal(await writer.finish(), 5 * 4096);
});

test('given a damaged file, when bbolt judges it, then it is not sound', { skip }, async (t) => {
  const path = join(await tempDir(t), 'file.db');
  fill(path, 4096, 300);
  const { meta } = await readBolt(path);
  copyFileSync(path, `${path}.sound`);
  // A page that belongs to two places.
  const file = readFileSync(path);
  file.writeUInt32LE(meta.highWater + 1, 40 + 16);
  file.fill(0, meta.root * meta.pageSize, meta.root * meta.pageSize + 8);
  writeFileSync(path, file);
  const verdicts = judge([`${path}.sound`, path]);
  assert.equal(verdicts[0], 'sound');
  assert.notEqual(verdicts[1], 'sound');
});

test('given what bbolt would not take, then it is refused, and no file is left', async (t) => {
  const dir = await tempDir(t);
  const path = join(dir, 'file.db');
  {
    await using writer = await BoltWriter.create(path);
    writer.put(Buffer.from('b'), Buffer.from('1'));
    for (const key of ['b', 'a', '', 'k'.repeat(32_769)])
      assert.throws(() => writer.put(Buffer.from(key), Buffer.alloc(0)), { kind: 'InvalidArgument' }, key);
    writer.openBucket(Buffer.from('c'));
    assert.throws(() => writer.openBucket(Buffer.alloc(0)), { kind: 'InvalidArgument' });
    await assert.rejects(writer.finish(), { kind: 'InvalidArgument', message: /still open/ });
  }
  assert.deepEqual(readdirSync(dir), []);
  await assert.rejects(BoltWriter.create(path, { pageSize: 1000 }), { kind: 'InvalidArgument' });
  writeFileSync(path, 'mine');
  {
    await using writer = await BoltWriter.create(path);
    await assert.rejects(writer.finish(), { kind: 'AlreadyExists' });
  }
  assert.deepEqual(readdirSync(dir), ['file.db']);
  assert.equal(statSync(path).size, 4);
});

test('given pages in a file instead of memory, when they are copied, then the copy is the same, and nothing else is left', async (t) => {
  const dir = await tempDir(t);
  const [from, path, again, kept] = ['from', 'path', 'again', 'kept'].map((name) => join(dir, name));
  {
    await using writer = await BoltWriter.create(from!);
    for (const [n, length] of [6_000_000, 10, 3_000_000, 3_000_000, 9_000_000].entries()) {
      writer.openBucket(Buffer.from(`${n}`));
      for (let key = 0; key < 300; key++)
        writer.put(Buffer.from(`${key}`.padStart(4)), Buffer.alloc(2000, `${n}${key} `));
      writer.put(Buffer.from('long'), Buffer.alloc(length, `${n}`));
      writer.closeBucket();
    }
    await writer.finish();
  }
  await copy(rootBucket(await readBolt(from!)), path!, 4096);
  await using heap = await FileHeap.create(kept!);
  // What the first reading has put there is not in the way of the second one.
  for (let n = 0; n < 2; n++) {
    const snapshot = await readBolt(from!, { heap });
    rmSync(again!, { force: true });
    await copy(rootBucket(snapshot), again!, 4096);
    assert.ok(readFileSync(again!).equals(readFileSync(path!)));
  }
  assert.deepEqual(readdirSync(dir).sort(), ['again', 'from', 'path']);
});
