/**
 * A reader of a store with pipes in it, in a process of its own: one that waits for a writer that never comes waits
 * for ever, and the test (pipes.test.ts) ends the process. The last line on standard output names what it was about to do.
 *
 * Usage: node pipes-program.js DIRECTORY
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { diffLayer } from '../../src/backends/archive/diff.js';
import { openContent } from '../../src/backends/content/store.js';
import { sys } from '../../src/backends/sys.js';
import { openLayout } from '../../src/images/layout.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { bind } from '../archive/support.js';
import { failsWith, recordingLog } from '../backends/temp.js';

const pipe = (path: string): void => sys.mknod(path, 0o010600);
const about = (what: string): void => void process.stdout.write(`${what}\n`);

/** It is listed as none, the others are, and its ref can be opened. */
async function ingests(root: string): Promise<void> {
  const { log } = recordingLog();
  const content = await openContent(root, { log });
  await (await content.writer('other', {})).close();
  for (const name of ['ref', 'data', 'startedat', 'updatedat', 'total']) {
    about(`look at an ingest whose ${name} is a pipe`);
    const directory = join(root, 'ingest', createHash('sha256').update('r').digest('hex'));
    await (await content.writer('r', { size: 4 })).close();
    await rm(join(directory, name), { force: true });
    pipe(join(directory, name));
    const listed = await content.listStatuses();
    assert.deepEqual(
      listed.map(({ ref }) => ref),
      ['other'],
    );
    await failsWith(content.status('r'), name === 'data' ? 'NotFound' : 'Unknown');
    const refs: string[] = [];
    await content.walkStatusRefs((ref) => void refs.push(ref));
    assert.ok(refs.includes('other'));
    await content.damagedIngests();
    await content.cleanup();
    const writer = await content.writer('r', { size: 4 });
    await writer.write(Buffer.from(name.slice(0, 4).padEnd(4)));
    await writer.commit(4, '');
  }
  about('read a blob that is a pipe');
  const digest = digestOf(Buffer.from('a blob'));
  pipe(join(root, 'blobs', 'sha256', digest.slice(7)));
  await failsWith(content.readerAt(digest), 'FailedPrecondition', /is not a regular file/);
  await content.close();
}

/** The error names it. */
async function stores(root: string): Promise<void> {
  const open = () => openDB({ root, snapshotters: ['native'], log: () => {} });
  await (await open()).close();
  const files = [
    ...['meta.mdb', 'log.0', 'log.1'].map((name) => join(layout.database(root), name)),
    join(layout.snapshotter(root, 'native'), 'metadata.db'),
  ];
  for (const path of files) {
    about(`open a store whose ${path.slice(root.length + 1)} is a pipe`);
    await rename(path, `${path}.kept`);
    pipe(path);
    await failsWith(open(), 'FailedPrecondition', /is not a regular file/);
    await rename(`${path}.kept`, path);
  }
  about('open a store whose mark of the content directory is a pipe');
  const mark = join(layout.content(root), '.tree');
  if (existsSync(mark)) await rm(mark);
  pipe(mark);
  const db = await open();
  await db.namespaces.create({}, 'test');
  await db.garbageCollect();
  await db.close();
}

async function layouts(root: string): Promise<void> {
  mkdirSync(root);
  about('open an image layout whose index is a pipe');
  await writeFile(join(root, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  pipe(join(root, 'index.json'));
  await failsWith(openLayout(root), 'InvalidArgument', /is not a regular file/);
}

/**
 * A file becomes a pipe after it was looked at: when some of what comes before its bytes has been written. Contents of small
 * files are known by then, so it is a larger one.
 */
async function layers(root: string): Promise<void> {
  for (let pieces = 1; pieces <= 4; pieces++) {
    about(`write a layer of a tree in which a file becomes a pipe (${pieces})`);
    const tree = join(root, String(pieces));
    mkdirSync(tree, { recursive: true });
    await writeFile(join(tree, 'file'), 't'.repeat(100_000));
    let left = pieces;
    const writing = diffLayer([], [bind(tree)], async () => {
      if (--left !== 0) return;
      await rm(join(tree, 'file'));
      pipe(join(tree, 'file'));
    });
    await assert.rejects(writing, /ESPIPE/);
  }
}

const directory = process.argv[2]!;
await ingests(join(directory, 'content'));
await stores(join(directory, 'store'));
await layouts(join(directory, 'layout'));
await layers(join(directory, 'layers'));
about('end');
