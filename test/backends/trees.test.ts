import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { chmod, link, lutimes, mkdir, open, readdir, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { RemovalReport } from '../../src/backends/contract.js';
import { copyTree, major, minor } from '../../src/backends/copy-tree.js';
import { diskUsage } from '../../src/backends/disk-usage.js';
import { exists } from '../../src/backends/files.js';
import { canMount } from '../../src/backends/mounts.js';
import {
  addReport,
  emptyReport,
  inlineJobs,
  removalSteps,
  removeLittle,
  removeTreeSync,
} from '../../src/backends/remove-tree.js';
import { supportsEntryTypes } from '../../src/backends/snapshotters/entry-types.js';
import { mappedRoot } from '../../src/backends/snapshotters/id-map.js';
import { sys } from '../../src/backends/sys.js';
import { describeTree, treeDifferences } from '../support/tree.js';
import { failsWith, recordingLog, tempDir } from './temp.js';

const isRoot = process.geteuid?.() === 0;

test('given a tree with everything a container has, when copied, then nothing is different', async (t) => {
  const root = await tempDir(t);
  const from = join(root, 'from');
  const path = (name: string): string => join(from, name);
  await mkdir(from);
  await writeFile(path('plain'), 'content');
  await writeFile(path('setuid'), '#!', { mode: 0o755 });
  await chmod(path('setuid'), 0o6755);
  await writeFile(path('secret'), 'x', { mode: 0o000 });
  await mkdir(path('sealed'));
  await writeFile(path('sealed/inside'), 'x');
  await symlink('/nowhere/at all', path('dangling'));
  await symlink('sealed', path('to-directory'));
  await link(path('plain'), path('again'));
  await mkdir(path('deep'));
  await link(path('plain'), path('deep/third'));
  sys.mknod(path('fifo'), 0o010640);
  const server = createServer().listen(path('socket'));
  await new Promise((resolve) => server.once('listening', resolve));
  t.after(() => server.close());
  if (isRoot) {
    sys.mknod(path('null'), 0o020666, 1, 3);
    sys.mknod(path('big-numbers'), 0o060600, 4095, 1048575);
    execFileSync('chown', ['1234:5678', path('setuid')]);
    await chmod(path('setuid'), 0o6755);
  }
  if (sys.xattrSupported) sys.lsetxattr(path('plain'), 'user.note', Buffer.from([0, 255, 10]));
  await lutimes(path('dangling'), 1e9, 1.5e9);
  for (const name of ['plain', 'sealed', 'deep']) sys.utimes(path(name), 1_000_000_001_234_567_891n, 3n);
  if (!isRoot) await chmod(path('secret'), 0o400);
  await chmod(path('sealed'), 0o1500);
  await chmod(from, 0o2711);

  const { log, lines } = recordingLog();
  const to = join(root, 'to');
  await copyTree(from, to, { log });
  assert.deepEqual(treeDifferences(describeTree(from), describeTree(to)), []);
  assert.deepEqual(lines, []);
  const [a, b] = await Promise.all([path('plain'), join(to, 'plain')].map((p) => stat(p, { bigint: true })));
  assert.deepEqual([b!.mtimeNs, b!.nlink], [a!.mtimeNs, 3n]);
  assert.notEqual(a!.ino, b!.ino);
  for (const tree of [from, to]) await chmod(join(tree, 'sealed'), 0o700);
});

test('given names that are not UTF-8, when measured, copied and removed, then they are not lost', async (t) => {
  const root = await tempDir(t);
  const from = join(root, 'from');
  const odd = Buffer.concat([Buffer.from(`${from}/`), Buffer.from([0x66, 0xe9, 0xff])]);
  await mkdir(odd, { recursive: true });
  await writeFile(Buffer.concat([odd, Buffer.from('/'), Buffer.from([0xfe])]), 'x');
  await copyTree(from, join(root, 'to'), recordingLog());
  assert.deepEqual(await readdir(join(root, 'to'), { encoding: 'buffer' }), [
    Buffer.from([0x66, 0xe9, 0xff]),
  ]);
  assert.deepEqual(await diskUsage(from), await diskUsage(join(root, 'to')));
  const { removed, errors } = removeTreeSync(join(root, 'to'));
  assert.deepEqual([removed, errors, await exists(join(root, 'to'))], [1, [], false]);
});

test('given a sparse file, when copied, then its holes stay holes', async (t) => {
  const root = await tempDir(t);
  await mkdir(join(root, 'from'));
  const handle = await open(join(root, 'from/sparse'), 'w');
  await handle.write(Buffer.from('begin'), 0, 5, 0);
  await handle.write(Buffer.from('end'), 0, 3, 40_000_000);
  await handle.truncate(50_000_000);
  await handle.close();
  await copyTree(join(root, 'from'), join(root, 'to'), recordingLog());
  assert.deepEqual(treeDifferences(describeTree(join(root, 'from')), describeTree(join(root, 'to'))), []);
  assert.ok((await diskUsage(join(root, 'to'))).size < 1_000_000);
});

test('given a copy to an existing target, or from nowhere, then the error names the path', async (t) => {
  const root = await tempDir(t);
  const { log } = recordingLog();
  await mkdir(join(root, 'from'));
  await mkdir(join(root, 'to'));
  await failsWith(copyTree(join(root, 'from'), join(root, 'to'), { log }), 'Unknown', /cannot copy .*from/);
  await failsWith(copyTree(join(root, 'missing'), join(root, 'new'), { log }), 'Unknown', /missing/);
});

test('given a file with several names, when measured, then it counts once, and directories count', async (t) => {
  const root = await tempDir(t);
  await mkdir(join(root, 'a/b'), { recursive: true });
  await writeFile(join(root, 'a/file'), Buffer.alloc(10_000, 1));
  await link(join(root, 'a/file'), join(root, 'a/b/again'));
  let size = 0;
  for (const name of ['a', 'a/b', 'a/file']) size += (await stat(join(root, name))).blocks * 512;
  assert.deepEqual(await diskUsage(join(root, 'a')), { inodes: 3, size });
  assert.deepEqual(await diskUsage(join(root, 'missing')), { inodes: 0, size: 0 });
});

test('given linked files, when trees are removed, then only bytes of last links count', async (t) => {
  const root = await tempDir(t);
  await mkdir(join(root, 'a'));
  await writeFile(join(root, 'a/twice'), Buffer.alloc(8192, 1));
  await link(join(root, 'a/twice'), join(root, 'a/again'));
  await writeFile(join(root, 'a/outside'), Buffer.alloc(8192, 1));
  await link(join(root, 'a/outside'), join(root, 'kept'));
  const blocks = async (name: string): Promise<number> => (await stat(join(root, name))).blocks * 512;
  const bytes = (await blocks('a')) + (await blocks('a/twice'));
  const report = await inlineJobs.removeTrees('s', [join(root, 'a'), join(root, 'missing')]);
  assert.deepEqual(report, { removed: 2, bytes, errors: [] });
  assert.deepEqual(await readdir(root), ['kept']);
});

test('given a tree that is deeper than a path can say, then it is removed, and measuring does not fail', async (t) => {
  const root = await tempDir(t);
  // Made with relative paths, as a process in a container can.
  const script =
    'mkdir top && cd top && for i in $(seq 300); do mkdir dddddddddddddddddddd{,x} && cd dddddddddddddddddddd; done; touch f';
  execFileSync('bash', ['-c', script], { cwd: root });
  const top = join(root, 'top');
  assert.ok((await diskUsage(top)).inodes > 100);
  await failsWith(copyTree(top, join(root, 'copy'), recordingLog()), 'FailedPrecondition', /ENAMETOOLONG/);
  const { removed, errors } = removeTreeSync(top);
  assert.deepEqual([removed, errors], [1, []]);
  assert.ok(!(await exists(top)));
});

test('given a link to a directory, when removed, then what it points at stays', async (t) => {
  const root = await tempDir(t);
  await mkdir(join(root, 'outside'));
  await writeFile(join(root, 'outside/file'), 'x');
  await mkdir(join(root, 'tree'));
  await symlink('../outside', join(root, 'tree/link'));
  await symlink('outside', join(root, 'top-link'));
  removeTreeSync(join(root, 'tree'));
  removeTreeSync(join(root, 'top-link'));
  assert.deepEqual(await readdir(root), ['outside']);
  assert.deepEqual(await readdir(join(root, 'outside')), ['file']);
});

/** Milliseconds that are always enough. */
const LONG = 60_000;

test('given what is more than a little, then the rest is left: many files, a large one, many trees', async (t) => {
  const root = await tempDir(t);
  const files = async (tree: string, count: number, bytes: number): Promise<string> => {
    await mkdir(join(root, tree));
    for (let i = 0; i < count; i++) await writeFile(join(root, tree, String(i)), Buffer.alloc(bytes));
    return join(root, tree);
  };
  const many = await files('many', 100, 1);
  const large = await files('large', 1, 5 * 1024 * 1024);
  const trees = await Promise.all(Array.from({ length: 40 }, (_, i) => files(`t${i}`, 1, 1)));
  const sum = emptyReport();
  assert.deepEqual(removeLittle([many, large], sum, LONG), [many, large]);
  assert.deepEqual(removeLittle([large, many], sum, LONG), [large, many]);
  assert.deepEqual(removeLittle([join(large, '0')], sum, LONG), [join(large, '0')]);
  assert.deepEqual(removeLittle(trees, sum, LONG), trees.slice(32));
  assert.deepEqual([(await readdir(large)).length, sum.removed, sum.errors], [1, 32, []]);
  const [slow = '', ...more] = trees.slice(32);
  assert.deepEqual(removeLittle([slow, ...more], sum, 0), [slow, ...more], 'it takes too long');
  const left = (await readdir(many)).length;
  assert.ok(left > 0 && left < 100, `${left} files are left`);
  for (const path of [many, large, ...trees]) addReport(sum, removeTreeSync(path));
  assert.deepEqual(await readdir(root), []);
  assert.ok(sum.bytes >= 5 * 1024 * 1024 + 140 * 4096, 'what was removed in part counts');
});

/** Steps of the removal one by one; `change` is called after the first. */
function removeWhile(tree: string, change: () => void): RemovalReport {
  const report = emptyReport();
  const steps = removalSteps(tree, report);
  steps.next();
  change();
  while (!steps.next().done);
  return report;
}

for (const directory of ['d', 'd/deep']) {
  test(`given ${directory} that becomes a link while it is emptied, then nothing outside of the tree is removed`, async (t) => {
    const root = await tempDir(t);
    const names = Array.from({ length: 600 }, (_, i) => `file-${i}`);
    for (const place of [`tree/${directory}`, 'outside']) {
      await mkdir(join(root, place), { recursive: true });
      for (const name of names) await writeFile(join(root, place, name), '');
    }
    const tree = join(root, 'tree');
    const report = removeWhile(tree, () => {
      renameSync(join(tree, directory), join(root, 'moved'));
      symlinkSync(join(root, 'outside'), join(tree, directory));
    });
    assert.equal((await readdir(join(root, 'outside'))).length, 600);
    assert.deepEqual(report.errors, []);
    assert.ok(!(await exists(tree)));
  });
}

test('given a directory of the same file system mounted inside, when a tree is removed, then it keeps its files', async (t) => {
  const can = await canMount();
  if (!can.ok) return t.skip(`mounts are not permitted: ${can.reason}`);
  const root = await tempDir(t);
  const tree = join(root, 'tree');
  await mkdir(join(tree, 'etc/mnt'), { recursive: true });
  await mkdir(join(root, 'host/deep'), { recursive: true });
  await writeFile(join(root, 'host/deep/precious'), 'x');
  await writeFile(join(tree, 'config'), '');
  await writeFile(join(root, 'host-config'), 'x');
  const mounts = [
    ['host', 'etc/mnt'],
    ['host-config', 'config'],
  ] as const;
  for (const [from, to] of mounts) sys.mountWithOptions('', join(root, from), join(tree, to), ['bind']);
  try {
    const { removed, errors } = removeTreeSync(tree);
    assert.equal(removed, 0);
    assert.ok(errors.some(({ path, message }) => path.endsWith('etc/mnt') && /mounted here/.test(message)));
    assert.deepEqual(await readdir(join(root, 'host/deep')), ['precious']);
    assert.ok(await exists(join(root, 'host-config')));
  } finally {
    for (const [, to] of mounts) sys.umount(join(tree, to));
  }
  assert.deepEqual(removeTreeSync(tree).errors, []);
});

test('given device numbers as stat returns them, then major and minor are those of mknod', () => {
  assert.deepEqual([major(0x103n), minor(0x103n)], [1, 3]);
  assert.deepEqual([major(0xffff_ffffn), minor(0xffff_ffffn)], [4095, 1_048_575]);
});

test('given this file system, then entry types are known and the probe leaves nothing', async (t) => {
  const root = await tempDir(t);
  assert.equal(supportsEntryTypes(root), true);
  assert.deepEqual(await readdir(root), []);
});

test('given id mappings, then the host id of root is found or the mapping refused', () => {
  assert.equal(mappedRoot('0:5:1'), 5);
  assert.equal(mappedRoot('1:5:9,0:7:1'), 7);
  assert.equal(mappedRoot('0:0:4294967295'), 0);
  for (const bad of [
    '',
    '0',
    '0:1',
    '0:1:0',
    '1:0:5',
    '0:1:1,',
    ' 0:1:1',
    '-1:0:1',
    '0:1:4294967296',
    '0:1:1:1',
  ]) {
    assert.throws(() => mappedRoot(bad), { kind: 'InvalidArgument' }, bad);
  }
});

for (const changes of [true, false]) {
  test(`given a directory that becomes a link while its tree is copied, ${changes ? 'as one that changes, then it is left out' : 'as one that does not, then the copy fails'}`, async (t) => {
    const root = await tempDir(t);
    const from = join(root, 'from');
    await mkdir(join(from, 'dir'), { recursive: true });
    await mkdir(join(root, 'outside'));
    await writeFile(join(from, 'dir', 'file'), 'inside');
    await writeFile(join(from, 'other'), 'kept');
    await writeFile(join(root, 'outside', 'file'), 'outside');
    let directories = 0;
    // Looked at before each directory; `dir` is the second, and was one when its parent was listed.
    const signal = {
      get aborted() {
        if (++directories === 2) {
          renameSync(join(from, 'dir'), join(root, 'moved'));
          symlinkSync(join(root, 'outside'), join(from, 'dir'));
        }
        return false;
      },
    } as AbortSignal;
    const copy = copyTree(from, join(root, 'to'), { ...recordingLog(), changes, signal });
    if (changes) await copy;
    else await failsWith(copy, 'FailedPrecondition', /dir/);
    assert.equal(directories, 2);
    assert.deepEqual(await readdir(join(root, 'to', 'dir')), []);
    assert.deepEqual((await readdir(join(root, 'to'))).sort(), ['dir', 'other']);
  });
}

test('given more files than one call counts, several names and marked files, then the usage is that of du, and the marks are seen', async (t) => {
  const tree = join(await tempDir(t), 'tree');
  await mkdir(join(tree, 'deep/er'), { recursive: true });
  const nameOf = (n: number): string => `number ${n}`.padEnd(200, '.');
  for (let n = 0; n < 700; n++) writeFileSync(join(tree, 'deep', nameOf(n)), '');
  await writeFile(join(tree, 'deep/er/large'), Buffer.alloc(100_000, 1));
  await link(join(tree, 'deep/er/large'), join(tree, 'again'));
  await link(join(tree, 'deep/er/large'), join(tree, 'deep/and again'));
  await symlink('deep', join(tree, 'to'));
  const usage = await diskUsage(tree);
  assert.equal(usage.inodes, 705);
  const du = execFileSync('du', ['-s', '--block-size=1', tree], { encoding: 'utf8' });
  assert.equal(usage.size, Number.parseInt(du, 10));
  const see = (): void => undefined;
  assert.deepEqual(await diskUsage(tree, { see }), usage, 'one by one');
  if (!sys.xattrSupported) return t.diagnostic('no marks: extended attributes do not work here');
  const marked = join(tree, 'deep', nameOf(690));
  for (const path of [marked, join(tree, 'deep/er/large')])
    sys.lsetxattr(path, 'user.overlay.metacopy', Buffer.alloc(0));
  const found: string[] = [];
  await diskUsage(tree, {
    marked: { attribute: 'user.overlay.metacopy', found: (path) => found.push(path.toString()) },
  });
  // Those with content, under each of their names.
  const names = ['again', 'deep/and again', 'deep/er/large'].map((name) => join(tree, name));
  assert.deepEqual(found.sort(), names);
});

test('given a directory that is replaced by a link while its tree is measured, then nothing outside counts', async (t) => {
  const root = await tempDir(t);
  const tree = join(root, 'tree');
  await mkdir(join(tree, 'inner'), { recursive: true });
  await mkdir(join(root, 'outside'));
  await writeFile(join(root, 'outside/large'), Buffer.alloc(1_000_000, 1));
  const seen: string[] = [];
  const see = (path: Buffer): void => {
    seen.push(path.toString());
    if (!path.equals(Buffer.from(join(tree, 'inner')))) return;
    renameSync(join(tree, 'inner'), join(root, 'away'));
    symlinkSync(join(root, 'outside'), join(tree, 'inner'));
  };
  const { inodes } = await diskUsage(tree, { see });
  assert.deepEqual([inodes, seen], [2, [tree, join(tree, 'inner')]]);
});

/** A process with a mount of the source: again and again another thing under each of two names. */
const swapping = `
  while :; do
    mv inner away; ln -s ../outside inner; rm inner; mv away inner
    mv file gone; ln -s ../outside/secret file; rm file; mv gone file
  done`;

test('given a tree whose entries are replaced by links while it is copied, then nothing from outside is in the copy', async (t) => {
  const root = await tempDir(t);
  const tree = join(root, 'tree');
  await mkdir(join(tree, 'inner'), { recursive: true });
  for (const name of ['file', 'inner/file']) await writeFile(join(tree, name), 'mine');
  // Time passes between the look at a directory and the look into it.
  for (let i = 0; i < 30; i++) await mkdir(join(tree, `other-${i}/deeper`), { recursive: true });
  await mkdir(join(root, 'outside'));
  await writeFile(join(root, 'outside/secret'), 'secret');
  const container = spawn('bash', ['-c', swapping], { cwd: tree, stdio: 'ignore' });
  const ended = once(container, 'exit');
  t.after(async () => {
    container.kill('SIGKILL');
    await ended;
  });
  let copied = 0;
  let refused = 0;
  for (let round = 0; round < 2000 && (copied < 20 || refused < 20); round++) {
    const to = join(root, `copy-${round}`);
    await copyTree(tree, to, recordingLog()).then(
      () => copied++,
      () => refused++,
    );
    const inside = execFileSync('find', [to, '-type', 'f', '-exec', 'cat', '{}', ';'], { encoding: 'utf8' });
    assert.doesNotMatch(inside, /secret/);
    removeTreeSync(to);
  }
  t.diagnostic(`${copied} copied, ${refused} refused`);
  assert.ok(copied > 0);
});
