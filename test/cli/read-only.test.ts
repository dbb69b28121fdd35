/**
 * Verbs that read, where the store cannot be opened for writing: they say so once and read it. Those that write fail as before.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { canMount } from '../../src/backends/mounts.js';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import { bytesOf } from '../db/whole-store.js';
import { tempDir } from '../support/db.js';
import { Cli, cli, type Layout, layout, MAIN } from './support.js';

const OWNER = `
  const { openDB } = await import(process.argv[1]);
  const db = await openDB({ root: process.argv[2] });
  process.stdout.write('open');
  await new Promise((done) => process.stdin.resume().on('end', done));
  await db.close();
`;
const INDEX = new URL('../../src/index.js', import.meta.url).href;

interface Filled {
  readonly command: Cli;
  readonly files: Layout;
  readonly home: string;
}

async function filled(t: TestContext): Promise<Filled> {
  const command = await cli(t);
  const files = await layout(t);
  await command.ok('import', files.path, '--unpack', 'native');
  await command.ok('leases', 'create', 'held');
  await command.ok('snapshots', 'prepare', 'work');
  await command.ok('images', 'rm', 'example.com/two:1');
  return { command, files, home: await tempDir(t) };
}

/** Of each verb that reads. */
const reads = ({ files, home }: Filled): string[][] => [
  ['images', 'ls'],
  ['images', 'show', 'example.com/one:1'],
  ['content', 'ls'],
  ['content', 'ls', '--ingests'],
  ['content', 'info', files.manifest],
  ['content', 'cat', files.manifest],
  ['containers', 'ls'],
  ['leases', 'ls'],
  ['namespaces', 'ls'],
  ['snapshots', 'ls'],
  ['snapshots', 'info', 'work'],
  ['snapshots', 'mounts', 'work'],
  ['du'],
  ['du', '--by', 'namespace'],
  ['why', files.manifest],
  ['check', '--hash'],
  ['gc', '--dry-run'],
  ['gc', '--dry-run', '--full'],
  ['gc', '--plan', join(home, 'plan')],
  ['export', 'example.com/one:1', '-o', join(home, 'export')],
  ['doctor', '--check'],
];

/** Of verbs that write. */
const writes: readonly (readonly string[])[] = [
  ['init'],
  ['images', 'rm', 'example.com/one:1'],
  ['snapshots', 'prepare', 'other'],
  ['gc'],
  ['check', '--repair'],
];

async function readsAll(store: Filled, command: Cli, note: RegExp, verbs = reads(store)): Promise<void> {
  for (const args of verbs) {
    const { code, stdout, stderr } = await command.run(...args);
    assert.equal(code, 0, `ebbtide ${args.join(' ')}: ${stderr}`);
    assert.match(stderr, note, args.join(' '));
    assert.ok(stdout !== '' || args.includes('--ingests'), args.join(' '));
  }
}

test('given a store that another process has open, when verbs run, then they read it and name the process, or fail as before', async (t) => {
  const store = await filled(t);
  const owner = spawn(process.execPath, ['--input-type=module', '-e', OWNER, INDEX, store.command.root]);
  t.after(() => owner.kill('SIGKILL'));
  await once(owner.stdout, 'data');
  const note = new RegExp(`^ebbtide: read-only: process ${owner.pid} \\(node\\) has the store open\n$`);
  await readsAll(store, store.command, note, [
    ['images', 'ls'],
    ['gc', '--dry-run'],
    ['snapshots', 'ls'],
  ]);
  for (const args of writes.slice(0, 2)) {
    await store.command.fails(6, new RegExp(`in use by process ${owner.pid}`), ...args);
  }
  await store.command.fails(3, /not found/, 'images', 'show', 'none');
});

test('given a root that is mounted read-only, when verbs run, then they read it, or fail because of that', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount: ${reason}`);
  const store = await filled(t);
  const place = join(store.home, 'read-only');
  mkdirSync(place);
  sys.mountWithOptions('none', store.command.root, place, ['bind']);
  t.after(() => sys.umount(place, UmountFlag.detach));
  sys.mountWithOptions('none', store.command.root, place, ['remount', 'bind', 'ro']);
  const command = new Cli(place);
  const before = bytesOf(store.command.root);
  await readsAll(store, command, /^ebbtide: read-only: \S+ is on a read-only file system\n$/);
  for (const args of writes) await command.fails(5, /read-only file system/, ...args);
  assert.deepEqual(bytesOf(store.command.root), before);
});

test('given --read-only, when verbs run, then those that read do so without a word and a byte, and the others are refused', async (t) => {
  const store = await filled(t);
  const { command } = store;
  const stray = 'f'.repeat(64);
  writeFileSync(join(command.root, 'io.containerd.content.v1.content/blobs/sha256', stray), '');
  const before = bytesOf(command.root);
  await readsAll(
    store,
    command,
    /^ebbtide: these may include changes by another process .*: run it again\n$/,
    [['--read-only', 'check']],
  );
  const asked = [['images', 'ls'], ['du'], ['doctor', '--check']].map((verb) => ['--read-only', ...verb]);
  await readsAll(store, command, /^$/, asked);
  for (const args of [...writes, ['serve']]) {
    await command.fails(5, /read-only|a daemon writes to its store/, '--read-only', ...args);
  }
  await command.fails(2, /--read-only .*--address/, '--read-only', '--address', '/nowhere', 'images', 'ls');
  await command.fails(2, /readOnly and etcd/, '--read-only', '--etcd', 'http://127.0.0.1:1', 'images', 'ls');
  assert.deepEqual(bytesOf(command.root), before);
});

test('given a user that may read the root and not write to it, when a verb reads, then it does', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('only root can act as another user here');
  try {
    execFileSync('test', ['-r', MAIN], { uid: 65534, gid: 65534 });
  } catch {
    return t.skip(`another user cannot read ${MAIN}`);
  }
  const { command } = await filled(t);
  chmodSync(join(command.root, '..'), 0o755);
  execFileSync('chmod', ['-R', 'a+rX', command.root]);
  const before = bytesOf(command.root);
  const run = (...args: string[]): string =>
    execFileSync(process.execPath, [MAIN, '--root', command.root, '-n', 'test', ...args], {
      uid: 65534,
      gid: 65534,
      cwd: '/',
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  assert.match(run('images', 'ls', '-q'), /^example\.com\/one:1\n$/);
  assert.match(run('du'), /example\.com\/one:1/);
  assert.throws(() => run('images', 'rm', 'example.com/one:1'), /EACCES/);
  assert.deepEqual(bytesOf(command.root), before);
});
