/** What is kept of a file's pages: values of many pages, and pages that are not in use and lie about others. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { rootBucket } from '../../src/bolt/bucket.js';
import { Pages } from '../../src/bolt/pages.js';
import { type BoltSnapshot, readBolt } from '../../src/bolt/snapshot.js';
import { BoltWriter } from '../../src/bolt/writer.js';
import { tempDir } from '../support/temp.js';

const PAGE = 4096;

/** `count` values, each of its own bytes. */
async function write(path: string, count: number, sizeOf: (n: number) => number): Promise<Buffer[]> {
  const values = Array.from({ length: count }, (_, n) => Buffer.alloc(sizeOf(n), `value ${n} `));
  await using writer = await BoltWriter.create(path, { pageSize: PAGE });
  writer.openBucket(Buffer.from('values'));
  for (const [n, value] of values.entries()) {
    writer.put(Buffer.from(String(n).padStart(4, '0')), value);
    await writer.drain();
  }
  writer.closeBucket();
  await writer.finish();
  return values;
}

function valuesIn(snapshot: BoltSnapshot): Buffer[] {
  const values: Buffer[] = [];
  rootBucket(snapshot).each(({ bucket }) => bucket?.each(({ value }) => values.push(Buffer.from(value))));
  return values;
}

test('given values of many pages, longer than what is read and kept at once, then all of their bytes are read', async (t) => {
  const path = join(await tempDir(t), 'file.db');
  const values = await write(path, 24, (n) => (n % 6 === 5 ? 5 << 20 : 400_000 * (n % 6)));
  assert.deepEqual(valuesIn(await readBolt(path)), values);
});

test('given pages that nothing uses, which say that they go on in others, then the others are read as they are', async (t) => {
  const path = join(await tempDir(t), 'file.db');
  const values = await write(path, 600, (n) => 10 * (n % 60));
  const { meta } = await readBolt(path);
  const file = readFileSync(path);
  const bytes = Buffer.concat([file, Buffer.alloc(PAGE)]);
  for (const overflow of [1, 3, meta.highWater - 2, 0xffffffff]) {
    // Each page moves by one, behind one that is free: the numbers in the pages move with them.
    const moved = Buffer.concat([bytes.subarray(0, 2 * PAGE), Buffer.alloc(PAGE), bytes.subarray(2 * PAGE)]);
    moved.writeUInt32LE(2, 2 * PAGE);
    moved.writeUInt16LE(2, 2 * PAGE + 8);
    moved.writeUInt32LE(overflow, 2 * PAGE + 12);
    renumber(moved, meta.highWater);
    const grown = { ...meta, root: meta.root + 1, highWater: meta.highWater + 1 };
    const pages = new Pages(path, grown, moved.length);
    for (let at = 0; at < moved.length; at += 3 * PAGE) pages.keep(moved.subarray(at, at + 3 * PAGE));
    assert.deepEqual(valuesIn({ pages, meta: grown, retries: 0 }), values, `overflow ${overflow}`);
  }
});

/** Adds one to the numbers of pages from 3 on, where pages have them: their own, those of children, and of roots of buckets. */
function renumber(file: Buffer, last: number): void {
  for (let page = 3; page <= last; page++) {
    const at = page * PAGE;
    const [id, flags, count] = [file.readUInt32LE(at), file.readUInt16LE(at + 8), file.readUInt16LE(at + 10)];
    if (id !== page - 1) continue;
    file.writeUInt32LE(page, at);
    for (let n = 0; n < count; n++) {
      const element = at + 16 + 16 * n;
      if (flags === 1) file.writeUInt32LE(file.readUInt32LE(element + 8) + 1, element + 8);
      if (flags !== 2 || file.readUInt32LE(element) !== 1) continue;
      const value = element + file.readUInt32LE(element + 4) + file.readUInt32LE(element + 8);
      if (file.readUInt32LE(value) !== 0) file.writeUInt32LE(file.readUInt32LE(value) + 1, value);
    }
  }
}
