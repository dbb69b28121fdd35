/** Backups of a store at rest: what is in one, what it shares, where it may be made, and what makes a store of it again. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, lstatSync } from 'node:fs';
import { chmod, link, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { canMount } from '../../src/backends/mounts.js';
import { DirectorySnapshotter } from '../../src/backends/snapshotters/snapshotter.js';
import { sys } from '../../src/backends/sys.js';
import { MANIFEST, readManifest, storeIn } from '../../src/backup/manifest.js';
import { restoreBackup } from '../../src/backup/restore.js';
import { DBHost } from '../../src/db-host.js';
import { layout, openDB } from '../../src/open.js';
import { failsWith } from '../backends/temp.js';
import { smallDisk } from '../environment/small-disk.js';
import { tempDir } from '../support/temp.js';
import { describeTree, diskUsage, treeDifferences } from '../support/tree.js';
import { assertSound, blob, blobFile, ctx, drafts, filesOf, open, read, root } from './support.js';

/** All but the directory itself, which gets new entries. */
function entriesOf(directory: string): Map<string, string> {
  const tree = describeTree(directory);
  tree.delete('.');
  return tree;
}

const isRoot = process.geteuid?.() === 0;
const NOT_ROOT = 'needs root: devices and trusted attributes';

for (const snapshotter of ['native', 'overlayfs'] as const) {
  test(`given ${snapshotter} snapshots with whiteouts, attributes and hard links, when backed up and restored, then every file is as it was`, async (t) => {
    if (!isRoot) return t.skip(NOT_ROOT);
    const place = await tempDir(t);
    const store = join(place, 'store');
    const db = await open(store, { snapshotters: [snapshotter] });
    const snapshots = db.snapshotter(snapshotter)!;
    await snapshots.prepare(ctx, 'building', '');
    const files = await filesOf(db, snapshotter, 'building');
    await mkdir(join(files, 'dir'));
    await writeFile(join(files, 'dir', 'one'), 'text', { mode: 0o640 });
    await chmod(join(files, 'dir', 'one'), 0o4751);
    await link(join(files, 'dir', 'one'), join(files, 'two'));
    await symlink('/etc/passwd', join(files, 'link'));
    execFileSync('mkfifo', [join(files, 'pipe')]);
    sys.mknod(join(files, 'removed'), 0o20000, 0, 0);
    sys.lsetxattr(join(files, 'dir'), 'trusted.overlay.opaque', Buffer.from('y'));
    sys.lsetxattr(join(files, 'two'), 'user.note', Buffer.from('n'));
    execFileSync('truncate', ['-s', '1M', join(files, 'sparse')]);
    sys.utimes(join(files, 'dir'), 1n, 1_000_000_000_123_456_789n);
    await snapshots.commit(ctx, 'layer', 'building', { labels: root });
    await snapshots.prepare(ctx, 'container', 'layer', { labels: root });
    await writeFile(join(await filesOf(db, snapshotter, 'container'), 'written'), 'by a container');
    const trees = layout.snapshotter(store, snapshotter);
    const before = entriesOf(join(trees, 'snapshots'));

    const report = await db.backup(join(place, 'copied'));
    const fresh = await db.backup(join(place, 'fresh'), { activeSnapshots: 'fresh' });
    await db.close();
    assert.equal(report.activeSnapshots, 1);
    assert.deepEqual([report.problems, fresh.problems, report.snapshots], [0, 0, 2]);

    const restored = join(place, 'restored');
    await restoreBackup(join(place, 'copied'), restored);
    const there = layout.snapshotter(restored, snapshotter);
    assert.deepEqual(treeDifferences(before, entriesOf(join(there, 'snapshots'))), []);
    const contents = snapshotter === 'native' ? '1' : join('1', 'fs');
    const opaque = sys.lgetxattr(join(there, 'snapshots', contents, 'dir'), 'trusted.overlay.opaque');
    assert.equal(opaque?.toString(), 'y');
    assert.equal(lstatSync(join(there, 'snapshots', contents, 'sparse')).blocks, 0, 'holes stay holes');

    await using again = await open(restored, { snapshotters: [snapshotter] });
    await assertSound(again);
    assert.equal((await again.snapshotter(snapshotter)!.stat(ctx, 'container')).kind, 'active');
    await restoreBackup(join(place, 'fresh'), join(place, 'prepared'));
    await using prepared = await open(join(place, 'prepared'), { snapshotters: [snapshotter] });
    await assertSound(prepared);
    const fromParent = await readdir(await filesOf(prepared, snapshotter, 'container'));
    assert.equal(fromParent.includes('written'), false);
    assert.equal(fromParent.includes('two'), snapshotter === 'native');
  });
}

test('given a backup as base, when the store is backed up again, then what has not changed is one file in both, and only the rest takes room', async (t) => {
  const place = await tempDir(t);
  const store = join(place, 'store');
  const db = await open(store);
  const old = await blob(db, 'old '.repeat(50_000));
  const snapshots = db.snapshotter('native')!;
  await snapshots.prepare(ctx, 'building', '');
  await writeFile(join(await filesOf(db, 'native', 'building'), 'big'), 'b'.repeat(500_000));
  await snapshots.commit(ctx, 'layer', 'building', { labels: root });
  const [first, second] = [join(place, 'first'), join(place, 'second')];
  const one = await db.backup(first);
  assert.deepEqual([one.linked, one.copiedBytes], [1, 500_000], 'the blob is linked, the snapshot copied');
  const added = await blob(db, 'new '.repeat(50_000));
  const two = await db.backup(second, { base: first });
  assert.deepEqual([two.blobs, two.files, two.linked, two.copiedBytes], [2, 1, 3, 0]);
  const inode = (path: string): bigint => lstatSync(path, { bigint: true }).ino;
  for (const digest of [old, added]) {
    assert.equal(inode(blobFile(storeIn(second), digest)), inode(blobFile(store, digest)));
  }
  assert.equal(lstatSync(blobFile(store, old)).nlink, 3);
  const big = join('snapshots', '1', 'big');
  const of = (backup: string): string => join(layout.snapshotter(storeIn(backup), 'native'), big);
  assert.equal(inode(of(second)), inode(of(first)));
  assert.notEqual(inode(of(first)), inode(join(layout.snapshotter(store, 'native'), big)), 'not what runs');
  const both = join(place, 'both');
  await mkdir(both);
  for (const backup of [first, second]) execFileSync('mv', [backup, both]);
  const alone = diskUsage(join(both, 'first'));
  // Its own metadata and directories.
  assert.ok(diskUsage(both) - alone < 700_000, `${diskUsage(both) - alone} bytes more`);
  await db.close();
  await rm(join(both, 'first'), { recursive: true });
  await rm(store, { recursive: true });
  await restoreBackup(join(both, 'second'), store, { hash: true });
  await using restored = await open(store);
  assert.equal(await read(restored, old), 'old '.repeat(50_000));
  await assertSound(restored);
});

test('given a snapshot whose commit has reached its backend alone, when backed up, then it is there as its record has it', async (t) => {
  const place = await tempDir(t);
  const db = await open(join(place, 'store'));
  await db.snapshotter('native')!.prepare(ctx, 'building', '', { labels: root });
  await writeFile(join(await filesOf(db, 'native', 'building'), 'file'), 'text');
  const backend = db.host.backends.get('native')!;
  assert.ok(backend instanceof DirectorySnapshotter);
  const names: string[] = [];
  await backend.walk(({ name }) => void names.push(name));
  await backend.commit('test/9/layer', names[0]!);
  assert.equal((await db.backup(join(place, 'backup'))).problems, 0);
  await db.close();
  await restoreBackup(join(place, 'backup'), join(place, 'restored'));
  await using restored = await open(join(place, 'restored'));
  await assertSound(restored);
  assert.equal((await restored.snapshotter('native')!.stat(ctx, 'building')).kind, 'active');
  assert.equal(await readFile(join(await filesOf(restored, 'native', 'building'), 'file'), 'utf8'), 'text');
});

test('given suspended sweeps, when a blob loses its record and is collected, then its bytes stay until they are let go', async (t) => {
  const place = await tempDir(t);
  await using db = await open(join(place, 'store'));
  const digest = await blob(db, 'bytes');
  const heard: boolean[] = [];
  const { host } = db;
  assert.ok(host instanceof DBHost);
  const release = host.suspendSweeps();
  db.registerMutationCallback((deleted) => heard.push(deleted));
  await db.content.delete(ctx, digest);
  assert.equal((await db.garbageCollect()).sweepsHeld, true);
  await db.garbageCollect({}, { fullSweep: true });
  assert.ok(existsSync(blobFile(join(place, 'store'), digest)));
  heard.length = 0;
  release();
  assert.deepEqual(heard, [true], 'a scheduler hears that there is something to collect');
  await db.garbageCollect();
  assert.equal(existsSync(blobFile(join(place, 'store'), digest)), false);
});

test('given an upload, and a store that lacks a blob, when backed up, then the rest is, and the report says what is missing', async (t) => {
  const place = await tempDir(t);
  const store = join(place, 'store');
  const db = await open(store);
  const [kept, lost] = [await blob(db, 'kept'), await blob(db, 'lost')];
  const writer = await db.content.writer(ctx, 'upload', {});
  await writer.write(Buffer.from('part'));
  await writer.close();
  await rm(blobFile(store, lost));
  const report = await db.backup(join(place, 'backup'));
  assert.deepEqual(
    [report.problems, report.problemList],
    [1, [{ kind: 'blob', object: lost, found: 'no file of 4 bytes' }]],
  );
  await db.close();
  const restored = join(place, 'restored');
  assert.equal((await restoreBackup(join(place, 'backup'), restored)).problems, 1, 'as the backup says');
  await using again = await open(restored);
  assert.equal(await read(again, kept), 'kept');
  assert.deepEqual((await again.check()).counts, { 'blob-missing': 1 });
  const resumed = await again.content.writer(ctx, 'upload', {});
  assert.equal((await resumed.status()).offset, 0, 'the upload begins again');
  await resumed.close();
});

test('given a container that has made a tree too deep for any path, when backed up, then that snapshot is as it was prepared, and the report says so', async (t) => {
  const place = await tempDir(t);
  const db = await open(join(place, 'store'));
  const digest = await blob(db, 'bytes');
  await db.snapshotter('native')!.prepare(ctx, 'container', '', { labels: root });
  const files = await filesOf(db, 'native', 'container');
  const script = 'for i in $(seq 280); do mkdir dddddddddddddd && cd dddddddddddddd; done';
  execFileSync('bash', ['-c', script], { cwd: files });
  // Node's own removal cannot.
  t.after(() => execFileSync('rm', ['-rf', files]));
  const { problems, problemList } = await db.backup(join(place, 'backup'));
  await db.close();
  assert.equal(problems, 1);
  assert.match(problemList[0]!.object, /^native\/test\/\d+\/container$/);
  assert.match(problemList[0]!.found, /ENAMETOOLONG/);
  await restoreBackup(join(place, 'backup'), join(place, 'restored'));
  await using restored = await open(join(place, 'restored'));
  assert.deepEqual(await readdir(await filesOf(restored, 'native', 'container')), []);
  assert.equal(await read(restored, digest), 'bytes');
  await assertSound(restored);
});

test('given places where no backup belongs, when one is made there, then it is refused and nothing changes', async (t) => {
  const place = await tempDir(t);
  const store = join(place, 'store');
  await using db = await open(store);
  await blob(db, 'bytes');
  await db.backup(join(place, 'first'));
  const before = [describeTree(join(place, 'first')).size, (await readdir(store)).sort()];
  await failsWith(db.backup(join(place, 'first')), 'AlreadyExists', /is there already/);
  await writeFile(join(place, 'file'), '');
  await failsWith(db.backup(join(place, 'file')), 'AlreadyExists');
  await failsWith(db.backup(join(store, 'inside')), 'InvalidArgument', /inside of what is backed up/);
  await symlink(store, join(place, 'way'));
  await failsWith(db.backup(join(place, 'way', 'inside')), 'InvalidArgument', /inside of what is backed up/);
  await failsWith(db.backup(join(place, 'none', 'deep')), 'NotFound');
  await failsWith(db.backup(join(place, 'second'), { base: store }), 'NotFound', /is not a backup/);
  const stopped = AbortSignal.abort();
  await failsWith(db.backup(join(place, 'second'), { signal: stopped }), 'Canceled');
  assert.deepEqual([describeTree(join(place, 'first')).size, (await readdir(store)).sort()], before);
  assert.deepEqual(await drafts(place), []);
  await mkdir(join(place, 'empty'));
  await db.backup(join(place, 'empty'));
  assert.ok(existsSync(join(place, 'empty', MANIFEST)));
  const memory = await openDB({ root: join(place, 'memory'), engine: 'memory', log: () => {} });
  await failsWith(memory.backup(join(place, 'second')), 'NotImplemented', /in memory/);
  await memory.close();
});

test('given a backup under way, when the store is closed, then the backup ends and leaves nothing', async (t) => {
  const place = await tempDir(t);
  const db = await open(join(place, 'store'));
  for (let n = 0; n < 30; n++) await blob(db, `bytes ${n}`);
  const running = failsWith(db.backup(join(place, 'backup')), 'FailedPrecondition', /closed/);
  await db.close();
  await running;
  assert.deepEqual((await readdir(place)).sort(), ['store']);
});

test('given another file system, when the store is backed up there, then bytes are copied, with their times and modes, and a base must be there too', async (t) => {
  const disk = await smallDisk(t, 'tmpfs', 'bytes');
  if (disk === undefined) return;
  const place = await tempDir(t);
  const store = join(place, 'store');
  await using db = await open(store);
  const digest = await blob(db, 'bytes '.repeat(1000));
  const backup = join(disk.path, 'backup');
  const report = await db.backup(backup);
  assert.deepEqual([report.linked, report.copiedBytes], [0, 6000]);
  const [from, to] = [await stat(blobFile(store, digest)), await stat(blobFile(storeIn(backup), digest))];
  assert.deepEqual([to.mode, to.mtimeMs], [from.mode, from.mtimeMs]);
  const second = await db.backup(join(disk.path, 'second'), { base: backup });
  assert.deepEqual([second.linked, second.copiedBytes], [1, 0]);
  await failsWith(
    db.backup(join(place, 'second'), { base: backup }),
    'InvalidArgument',
    /another file system/,
  );
  await failsWith(db.backup(disk.path), 'FailedPrecondition', /mounted at/);
});

test('given a target without room, when the store is backed up there, then that is Unavailable and nothing is left', async (t) => {
  const disk = await smallDisk(t, 'tmpfs', 'bytes');
  if (disk === undefined) return;
  const place = await tempDir(t);
  await using db = await open(join(place, 'store'));
  await blob(db, 'bytes '.repeat(400_000));
  disk.fill();
  const target = join(disk.path, 'backup');
  const error = await failsWith(db.backup(target), 'Unavailable', /no space left|ENOSPC/i);
  assert.match((error as { remedy?: string }).remedy ?? '', /free disk space/);
  assert.deepEqual(await drafts(disk.path), []);
  disk.free();
  // Room for the metadata alone.
  execFileSync('dd', ['if=/dev/zero', `of=${join(disk.path, 'most')}`, 'bs=1M', 'count=63'], {
    stdio: 'ignore',
  });
  await failsWith(db.backup(target), 'Unavailable');
  assert.deepEqual(await readdir(disk.path), ['most']);
  await rm(join(disk.path, 'most'));
  await db.backup(target);
  await assertSound(db);
});

test('given a store whose own disk is full, when it is backed up to another, then the backup is whole', async (t) => {
  const disk = await smallDisk(t, 'ext4', 'bytes');
  if (disk === undefined) return;
  const place = await tempDir(t);
  const db = await open(join(disk.path, 'store'));
  const digest = await blob(db, 'bytes');
  disk.fill();
  assert.equal((await db.backup(join(place, 'backup'))).problems, 0);
  await db.close();
  await restoreBackup(join(place, 'backup'), join(place, 'restored'));
  await using restored = await open(join(place, 'restored'));
  assert.equal(await read(restored, digest), 'bytes');
  await assertSound(restored);
});

test('given a backup that is damaged, when it is restored, then it is refused and the root is as it was', async (t) => {
  const place = await tempDir(t);
  const db = await open(join(place, 'store'));
  const [changed, gone] = [await blob(db, 'changed'), await blob(db, 'gone')];
  const backup = join(place, 'backup');
  await db.backup(backup);
  await db.close();
  await rm(join(place, 'store'), { recursive: true });
  const to = join(place, 'restored');
  const nothing = async (): Promise<void> => assert.equal(existsSync(to), false);

  const bad = blobFile(storeIn(backup), changed);
  await rm(bad);
  await writeFile(bad, 'chanGed');
  await failsWith(
    restoreBackup(backup, to, { hash: true }),
    'FailedPrecondition',
    /1 objects .*damaged.*bytes of/,
  );
  await nothing();
  await rm(blobFile(storeIn(backup), gone));
  await failsWith(restoreBackup(backup, to), 'FailedPrecondition', /no file of 4 bytes/);
  await nothing();
  const report = await restoreBackup(backup, to, { damaged: true, hash: true });
  assert.deepEqual([report.problems, report.blobs], [2, 0]);
  await failsWith(restoreBackup(backup, to, { damaged: true }), 'AlreadyExists', /is not empty/);
  await rm(to, { recursive: true });

  const { metadata } = await readManifest(backup);
  const file = join(backup, metadata[0]!.path);
  const bytes = await readFile(file);
  bytes[bytes.length - 5]! ^= 1;
  await writeFile(file, bytes);
  await failsWith(restoreBackup(backup, to, { damaged: true }), 'Unknown', /is damaged/);
  await failsWith(restoreBackup(place, to), 'NotFound', /is not a backup/);
  const manifest = JSON.parse(await readFile(join(backup, MANIFEST), 'utf8')) as { version: number };
  await writeFile(join(backup, MANIFEST), JSON.stringify({ ...manifest, version: 2 }));
  await failsWith(restoreBackup(backup, to), 'FailedPrecondition', /version 2/);
  assert.equal(existsSync(to), false);
});

test('given a root that a killed restore has left, when it is restored again, then what was left is gone and the store is there', async (t) => {
  const place = await tempDir(t);
  const db = await open(join(place, 'store'));
  const digest = await blob(db, 'bytes');
  await db.backup(join(place, 'backup'));
  await db.close();
  const to = join(place, 'restored');
  // As a restore that was killed between two of its last steps.
  const draft = join(to, '.ebbtide-draft-0123456789abcdef');
  await mkdir(draft, { recursive: true, mode: 0o700 });
  await mkdir(join(draft, 'store', 'io.containerd.metadata.v1.ebbtide'), { recursive: true });
  await mkdir(join(layout.content(to), 'blobs', 'sha256'), { recursive: true });
  await writeFile(join(draft, 'unfinished'), '');
  await writeFile(join(draft, 'moving'), JSON.stringify(['io.containerd.content.v1.content']));
  await failsWith(open(to, { create: false }), 'NotFound');
  await restoreBackup(join(place, 'backup'), to);
  assert.deepEqual(await drafts(to), []);
  await using restored = await open(to);
  assert.equal(await read(restored, digest), 'bytes');
});

test('given something that another user has put beside the target in the place of a draft, when a backup is made, then it is left alone', async (t) => {
  const place = await tempDir(t);
  await using db = await open(join(place, 'store'));
  const draft = join(place, '.ebbtide-draft-0123456789abcdef');
  await mkdir(draft, { mode: 0o755 });
  await writeFile(join(place, 'precious'), 'kept', { mode: 0o644 });
  await symlink(join(place, 'precious'), join(draft, 'unfinished'));
  await db.backup(join(place, 'backup'));
  assert.deepEqual(await readdir(draft), ['unfinished']);
  assert.equal((await stat(join(place, 'precious'))).mode & 0o777, 0o644);
  await chmod(draft, 0o700);
  await rm(join(draft, 'unfinished'));
  await writeFile(join(draft, 'unfinished'), '');
  await db.backup(join(place, 'second'));
  assert.deepEqual(await drafts(place), [], 'one of our own goes');
});

test('given a file system that is mounted at the root, when a backup is restored there, then the store is on it', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount: ${reason}`);
  const disk = await smallDisk(t, 'ext4', 'bytes');
  if (disk === undefined) return;
  const place = await tempDir(t);
  const db = await open(join(place, 'store'));
  const digest = await blob(db, 'bytes');
  await db.backup(join(place, 'backup'));
  await db.close();
  assert.deepEqual(await readdir(disk.path), ['lost+found']);
  await restoreBackup(join(place, 'backup'), disk.path);
  const restored = await open(disk.path);
  assert.equal(await read(restored, digest), 'bytes');
  await assertSound(restored);
  await restored.close();
});

test('given a root whose owner was killed, when it is copied with cp or tar, then the copy is a store with all that was acknowledged', async (t) => {
  if (!isRoot) return t.skip(NOT_ROOT);
  const place = await tempDir(t);
  const store = join(place, 'store');
  const db = await open(store, { snapshotters: ['overlayfs'] });
  const digest = await blob(db, 'bytes');
  await db.snapshotter('overlayfs')!.prepare(ctx, 'building', '');
  const files = await filesOf(db, 'overlayfs', 'building');
  sys.mknod(join(files, 'removed'), 0o20000, 0, 0);
  await mkdir(join(files, 'dir'));
  sys.lsetxattr(join(files, 'dir'), 'trusted.overlay.opaque', Buffer.from('y'));
  await db.snapshotter('overlayfs')!.commit(ctx, 'layer', 'building', { labels: root });
  await db.close();
  const child = `import { openDB } from ${JSON.stringify(new URL('../../src/open.js', import.meta.url).href)};
    const db = await openDB({ root: process.argv[1], snapshotters: ['overlayfs'], log: () => {} });
    await db.put('last', 'acknowledged');
    process.kill(process.pid, 'SIGKILL');`;
  spawnSync(process.execPath, ['--input-type=module', '-e', child, store]);
  execFileSync('cp', ['-a', store, join(place, 'cp')]);
  await mkdir(join(place, 'tar'));
  const script = 'tar --xattrs --xattrs-include="*" -cC "$1" . | tar --xattrs --xattrs-include="*" -xC "$2"';
  execFileSync('bash', ['-c', script, 'copy', store, join(place, 'tar')]);
  for (const copy of ['cp', 'tar']) {
    await using there = await open(join(place, copy), { snapshotters: ['overlayfs'], create: false });
    assert.equal((await there.get('last')).get('last'), 'acknowledged', copy);
    assert.equal(await read(there, digest), 'bytes');
    await assertSound(there);
    const layer = join(layout.snapshotter(join(place, copy), 'overlayfs'), 'snapshots', '1', 'fs');
    assert.equal(lstatSync(join(layer, 'removed')).rdev, 0);
    assert.equal(sys.lgetxattr(join(layer, 'dir'), 'trusted.overlay.opaque')?.toString(), 'y', copy);
  }
});
