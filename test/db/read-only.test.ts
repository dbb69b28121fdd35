/**
 * A store that is only read: beside its owner, after it has closed or was killed, on a file system that is mounted read-only, by
 * a user that may only read. All of it is there, every change is refused, and not a byte, nor a time, is another one afterwards.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { canMount } from '../../src/backends/mounts.js';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import type { DB } from '../../src/db.js';
import type { OpenOptions } from '../../src/db-options.js';
import { EbbtideError } from '../../src/errors.js';
import { layout, openDB } from '../../src/open.js';
import { tempDir } from '../support/temp.js';
import { bytesOf, everythingRead, everythingThatChanges } from './whole-store.js';

const OWNER = fileURLToPath(import.meta.resolve('./whole-store-owner.js'));

interface Owned {
  readonly root: string;
  readonly process: ChildProcess;
  /** What the owner read itself. */
  readonly read: string;
}

async function ownedStore(t: TestContext): Promise<Owned> {
  const root = join(await tempDir(t), 'root');
  const child = spawn(process.execPath, [OWNER, root], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const [line] = await once(createInterface(child.stdout), 'line');
  return { root, process: child, read: Buffer.from(String(line), 'base64').toString() };
}

const ends: Record<string, (owner: ChildProcess) => Promise<unknown>> = {
  'that its owner has closed': (owner) => {
    owner.stdin!.end();
    return once(owner, 'exit');
  },
  'whose owner was killed': (owner) => {
    owner.kill('SIGKILL');
    return once(owner, 'exit');
  },
  'that its owner has open': () => Promise.resolve(),
};

const warnings: string[] = [];
const read = (root: string, options: Partial<OpenOptions> = {}): Promise<DB> =>
  openDB({ root, readOnly: true, log: (_, message) => warnings.push(message), ...options });

async function readAll(root: string, expected: string): Promise<void> {
  await using db = await read(root);
  assert.equal(db.isReadOnly, true);
  assert.equal(await everythingRead(db), expected);
}

async function refusesChanges(root: string): Promise<void> {
  await using db = await read(root);
  for (const [name, change] of Object.entries(everythingThatChanges(db))) {
    await assert.rejects(
      change(),
      (error) =>
        error instanceof EbbtideError &&
        error.kind === 'FailedPrecondition' &&
        error.message === 'the store was opened read-only' &&
        error.remedy !== undefined,
      name,
    );
  }
}

for (const [state, end] of Object.entries(ends)) {
  test(`given a store ${state}, when opened read-only, then all of it is read, changes are refused, and no byte is written`, async (t) => {
    const owned = await ownedStore(t);
    await end(owned.process);
    // The owner would go on meanwhile.
    const isOpen = owned.process.exitCode === null && owned.process.signalCode === null;
    if (isOpen) owned.process.kill('SIGSTOP');
    const before = bytesOf(owned.root);
    await readAll(owned.root, owned.read);
    await refusesChanges(owned.root);
    assert.deepEqual(bytesOf(owned.root), before);
    assert.deepEqual(warnings, []);
  });

  test(`given a store ${state}, when its root is mounted read-only, then all of it is read all the same`, async (t) => {
    const { ok, reason } = await canMount();
    if (!ok) return t.skip(`cannot mount: ${reason}`);
    const owned = await ownedStore(t);
    await end(owned.process);
    const place = join(await tempDir(t), 'read-only');
    mkdirSync(place);
    sys.mountWithOptions('none', owned.root, place, ['bind']);
    t.after(() => sys.umount(place, UmountFlag.detach));
    sys.mountWithOptions('none', owned.root, place, ['remount', 'bind', 'ro']);
    await readAll(place, owned.read);
    await refusesChanges(place);
    await assert.rejects(
      openDB({ root: place, create: false }),
      /read-only file system|is in use by process/,
    );
  });
}

test('given a user that may only read, when a store is opened read-only, then all of it is read, and nothing else', async (t) => {
  const { seteuid, setegid, getuid } = process;
  if (getuid?.() !== 0) return t.skip('only root can act as another user here');
  const owned = await ownedStore(t);
  await ends['whose owner was killed']!(owned.process);
  chmodSync(join(owned.root, '..'), 0o755);
  for (const name of ['', ...readdirSync(owned.root, { recursive: true }).map(String)]) {
    const path = join(owned.root, name);
    const stats = lstatSync(path);
    chmodSync(path, stats.isDirectory() ? 0o755 : 0o644);
  }
  const before = bytesOf(owned.root);
  setegid!(65534);
  seteuid!(65534);
  try {
    await assert.rejects(openDB({ root: owned.root, create: false }), /EACCES/);
    await readAll(owned.root, owned.read);
  } finally {
    seteuid!(0);
    setegid!(0);
  }
  assert.deepEqual(bytesOf(owned.root), before);
});

test('given what cannot be read, when opened read-only, then the error says what it is, and nothing is made', async (t) => {
  const home = await tempDir(t);
  const root = join(home, 'root');
  await assert.rejects(read(root), { kind: 'NotFound' });
  await assert.rejects(read(root, { create: true }), {
    kind: 'InvalidArgument',
    message: /readOnly and create/,
  });
  await assert.rejects(read(root, { engine: 'memory' }), {
    kind: 'InvalidArgument',
    message: /engine: memory/,
  });
  await assert.rejects(read(root, { etcd: { hosts: 'http://127.0.0.1:1' } }), {
    kind: 'InvalidArgument',
    message: /etcd/,
  });
  assert.deepEqual(readdirSync(home), []);
  mkdirSync(root);
  await assert.rejects(read(root), { kind: 'NotFound' });
  assert.deepEqual(readdirSync(root), []);
});

test('given a copy without lock files, and with one snapshotter, when opened read-only, then it is read', async (t) => {
  const owned = await ownedStore(t);
  await ends['that its owner has closed']!(owned.process);
  const copy = join(await tempDir(t), 'copy');
  cpSync(owned.root, copy, { recursive: true, filter: (path) => !/(lock|-lock)$/.test(path) });
  await readAll(copy, owned.read);
  rmSync(layout.snapshotter(copy, 'overlayfs'), { recursive: true });
  await using db = await read(copy);
  assert.deepEqual([...db.snapshotters().keys()], ['native']);
});
