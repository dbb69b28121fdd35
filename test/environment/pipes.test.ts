/** Pipes where files of a store belong: nobody who reads them may wait for a writer that never comes. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openContent } from '../../src/backends/content/store.js';
import { sys } from '../../src/backends/sys.js';
import { layout, openDB } from '../../src/open.js';
import { failsWith, recordingLog, tempDir } from '../backends/temp.js';

const pipe = (path: string): void => sys.mknod(path, 0o010600);

for (const name of ['ref', 'data', 'startedat', 'updatedat', 'total']) {
  test(`given an ingest whose ${name} is a pipe, then it is listed as none, and its ref can be opened`, async (t) => {
    const root = await tempDir(t);
    const { log } = recordingLog();
    const content = await openContent(root, { log });
    t.after(() => content.close());
    const directory = join(root, 'ingest', createHash('sha256').update('r').digest('hex'));
    await (await content.writer('r', { size: 4 })).close();
    await rm(join(directory, name), { force: true });
    pipe(join(directory, name));
    assert.deepEqual(await content.listStatuses(), []);
    await failsWith(content.status('r'), name === 'data' ? 'NotFound' : 'Unknown');
    await content.walkStatusRefs(() => {});
    await content.cleanup();
    const writer = await content.writer('r', { size: 4 });
    await writer.write(Buffer.from('text'));
    await writer.commit(4, '');
  });
}

test('given a pipe in the place of a file of the store, when it is opened, then the error names it', async (t) => {
  const root = await tempDir(t);
  const open = () => openDB({ root, snapshotters: ['native'], log: () => {} });
  await (await open()).close();
  const files = [
    ...['meta.mdb', 'log.0', 'log.1'].map((name) => join(layout.database(root), name)),
    join(layout.snapshotter(root, 'native'), 'metadata.db'),
  ];
  for (const path of files) {
    await rename(path, `${path}.kept`);
    pipe(path);
    await failsWith(open(), 'FailedPrecondition', /is no regular file/);
    await rename(`${path}.kept`, path);
  }
  const db = await open();
  await db.close();
  const mark = join(layout.content(root), '.tree');
  if (existsSync(mark)) await rm(mark);
  pipe(mark);
  await (await open()).close();
});
