/** Files of more bytes, and more pages, than 32 bits count: most of them without bytes on disk. What has these bytes is `bench -- any-host-large`. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { rootBucket } from '../../src/bolt/bucket.js';
import { copyBucket } from '../../src/bolt/copy.js';
import { PageScan } from '../../src/bolt/scan.js';
import { readBolt } from '../../src/bolt/snapshot.js';
import { BoltWriter } from '../../src/bolt/writer.js';
import { inTurns } from '../../src/system/turns.js';
import { tempDir } from '../support/temp.js';
import { dump, judge, makeFar, missing } from './program.js';
import { treeOf } from './tree.js';

const skip = missing ?? false;

for (const [pageSize, pages] of [
  [65536, 2 ** 17 + 3],
  [1024, 2 ** 32 + 5],
] as const)
  test(`given a bbolt file of ${pages} pages of ${pageSize} bytes, then it is read as bbolt reads it, and written again`, {
    skip,
  }, async (t) => {
    const dir = await tempDir(t);
    const [path, copy] = [join(dir, 'file.db'), join(dir, 'copy.db')];
    const theirs = makeFar(path, pageSize, pages);
    const snapshot = await readBolt(path);
    assert.ok(snapshot.meta.root > pages);
    assert.deepEqual(treeOf(rootBucket(snapshot)), theirs);
    using scan = new PageScan(path);
    const root = scan.page(snapshot.meta.root);
    assert.deepEqual(root?.kind === 'leaf' && root.entries.map(({ key }) => key), Object.keys(theirs).sort());
    await using writer = await BoltWriter.create(copy, { pageSize });
    await inTurns(copyBucket(rootBucket(snapshot), writer));
    await writer.finish();
    assert.deepEqual(dump(copy), theirs);
    assert.deepEqual(judge([copy]), ['sound']);
  });
