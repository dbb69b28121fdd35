import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { DiskJobs } from '../../src/backends/contract.js';
import { MetastoreFile } from '../../src/backends/snapshotters/metastore-file.js';
import { openNative } from '../../src/backends/snapshotters/native.js';
import { addLayer, snapshotterSuite } from './snapshotter-suite.js';
import { failsWith, recordingLog, tempDir } from './temp.js';

async function open(t: TestContext, root?: string) {
  const snapshotter = await openNative(root ?? (await tempDir(t)));
  t.after(() => snapshotter.close());
  return snapshotter;
}

snapshotterSuite('native', (t) => open(t));

const directories = async (root: string): Promise<string[]> =>
  (await readdir(join(root, 'snapshots'))).sort();

test('given an active on a parent, then it is a copy; a view shows the parent itself [#165]', async (t) => {
  const root = await tempDir(t);
  const s = await open(t, root);
  const path = (id: number): string => join(root, 'snapshots', String(id));
  assert.deepEqual(await s.prepare('a', ''), [{ type: 'bind', source: path(1), options: ['rbind', 'rw'] }]);
  await writeFile(join(path(1), 'file'), 'parent');
  await s.commit('base', 'a');

  assert.deepEqual(await s.prepare('b', 'base'), [
    { type: 'bind', source: path(2), options: ['rbind', 'rw'] },
  ]);
  assert.equal(await readFile(join(path(2), 'file'), 'utf8'), 'parent');
  await writeFile(join(path(2), 'file'), 'child');
  assert.equal(await readFile(join(path(1), 'file'), 'utf8'), 'parent');

  assert.deepEqual(await s.view('v', 'base'), [{ type: 'bind', source: path(1), options: ['rbind', 'ro'] }]);
  assert.deepEqual(await s.view('w', ''), [{ type: 'bind', source: path(4), options: ['rbind', 'ro'] }]);
  assert.deepEqual(await directories(root), ['1', '2', '4']);
  await s.remove('v');
  assert.deepEqual(await directories(root), ['1', '2', '4']);
});

test('given removals, then directories are gone at once, and cleanup reports the bytes they freed', async (t) => {
  const root = await tempDir(t);
  const s = await open(t, root);
  const [mount] = await s.prepare('a', '');
  await writeFile(join(mount!.source, 'data'), Buffer.alloc(64 * 1024, 1));
  const { size } = await s.usage('a');
  await s.remove('a');
  assert.ok(!(await directories(root)).includes('1'));
  assert.deepEqual(await s.cleanup(), { removed: 1, bytes: size, errors: [] });
  assert.deepEqual(await directories(root), []);
  assert.deepEqual(await s.cleanup(), { removed: 0, bytes: 0, errors: [] });
});

test('given a removal that has taken the directory and not the record, when inspected, then it is no problem', async (t) => {
  const root = await tempDir(t);
  const s = await open(t, root);
  await s.prepare('lost', '');
  await rm(join(root, 'snapshots', '1'), { recursive: true });
  await s.prepare('a', '');
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const { write } = MetastoreFile.prototype;
  t.mock.method(MetastoreFile.prototype, 'write', async function (this: MetastoreFile, ...args: never[]) {
    await released;
    return write.apply(this, args as never);
  });
  const removing = s.remove('a');
  while ((await directories(root)).includes('2')) await new Promise(setImmediate);
  const found: string[] = [];
  const inspecting = s.inspect(({ kind, name }) => void found.push(`${kind} ${name}`));
  // Long enough for a look that does not wait.
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  release();
  await Promise.all([removing, inspecting]);
  assert.deepEqual(found, ['directory lost']);
});

test('given what crashes leave, when opened, then half-made ones go and half-removed ones come back', async (t) => {
  const root = await tempDir(t);
  const first = await openNative(root);
  await addLayer(first, 'base', '', (directory) => writeFile(join(directory, 'file'), 'x'));
  await first.prepare('work', 'base');
  await first.close();
  const snapshots = join(root, 'snapshots');
  // Crashes: while building; between rename and record; after record and before deletion; before the record went.
  await mkdir(join(snapshots, 'new-0123'));
  await mkdir(join(snapshots, '7/deep'), { recursive: true });
  await mkdir(join(snapshots, 'rm-5'));
  await rename(join(snapshots, '2'), join(snapshots, 'rm-2'));

  const s = await open(t, root);
  await s.cleanup();
  assert.deepEqual(await directories(root), ['1', '2']);
  assert.equal(await readFile(join(snapshots, '2/file'), 'utf8'), 'x');
  await s.prepare('next', '');
  assert.deepEqual(await directories(root), ['1', '2', '8']);
});

test('given the metadata file is lost, when opened, then the directories are left alone and said so', async (t) => {
  const root = await tempDir(t);
  const first = await openNative(root);
  await first.prepare('a', '');
  await first.close();
  await rm(join(root, 'metadata.db'));
  const { log, lines } = recordingLog();
  const s = await openNative(root, { log });
  t.after(() => s.close());
  await s.cleanup();
  await s.prepare('a', '');
  assert.deepEqual(await directories(root), ['1', '2']);
  assert.match(lines.join(), /metadata file is gone/);
});

test('given an open snapshotter, when opened again, then Unavailable; after close it works', async (t) => {
  const root = await tempDir(t);
  const s = await openNative(root);
  await failsWith(openNative(root), 'Unavailable', /in use/);
  await s.close();
  await failsWith(s.stat('x'), 'FailedPrecondition', /closed/);
  await failsWith(s.prepare('x', ''), 'FailedPrecondition', /closed/);
  await open(t, root);
});

test('given a parent whose directory is gone, then nothing is recorded, its rest is deleted, and the key is free', async (t) => {
  const root = await tempDir(t);
  const s = await open(t, root);
  await addLayer(s, 'base', '');
  await rename(join(root, 'snapshots/1'), join(root, 'away'));
  const error = await failsWith(s.prepare('x', 'base'), 'FailedPrecondition', /snapshots\/1/);
  assert.ok('remedy' in error && error.remedy !== undefined);
  await failsWith(s.stat('x'), 'NotFound');
  assert.deepEqual(await directories(root), []);
  await rename(join(root, 'away'), join(root, 'snapshots/1'));
  await s.prepare('x', 'base');
});

test('given deletions that fail, then removal succeeds, it is logged, and the next open deletes', async (t) => {
  const root = await tempDir(t);
  const jobs: DiskJobs = {
    removeTrees: async (_stream, paths) => ({
      removed: 0,
      bytes: 0,
      errors: paths.map((path) => ({ path, message: 'disk is tired' })),
    }),
  };
  const { log, lines } = recordingLog();
  const s = await openNative(root, { jobs, log });
  await s.prepare('a', '');
  await s.remove('a');
  await s.close();
  assert.match(lines.join(), /rm-1/);
  assert.deepEqual(await directories(root), ['rm-1']);
  const again = await open(t, root);
  await again.cleanup();
  assert.deepEqual(await directories(root), []);
});
