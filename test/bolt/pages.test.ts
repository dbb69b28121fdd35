/** What is kept of a file's pages. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { rootBucket } from '../../src/bolt/bucket.js';
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
