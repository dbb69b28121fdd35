/**
 * What the mount manager does when something is in its way: files and mounts of others, a failing disk, damaged records, a process without the right to mount,
 * another mount namespace; as root.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isPlaceAlive } from '../../src/backends/mount-points.js';
import { mountAt } from '../../src/backends/mounts.js';
import { sys } from '../../src/backends/sys.js';
import type { Transaction } from '../../src/engine/contract.js';
import { leaseKey, mountKey, namespaceKey, Relation } from '../../src/engine/schema/keys.js';
import { EbbtideError, isKind, OutcomeUnknown } from '../../src/errors.js';
import { layout } from '../../src/open.js';
import { testDB } from '../support/db.js';
import { asRoot, bind, ctx, kind, place, recordOf } from './mount-place.js';

test(
  'given files of others in the directory of mounts, when collected, then they stay, mounted or not',
  asRoot,
  async (t) => {
    const { db, root, directory, mounted } = await place(t);
    await db.mounts.activate(ctx, 'm', [bind(directory('low'))], { temporary: true });
    const place_ = layout.mounts(root);
    const foreign = join(place_, 'foreign');
    mkdirSync(foreign);
    mountAt([bind(directory('other'))], foreign);
    mkdirSync(join(place_, '0123456789abcdef'));
    writeFileSync(join(place_, '0123456789abcdef', 'file'), '');
    const { backendErrors } = await db.garbageCollect();
    // A directory that has the name of an activation and is not empty is reported.
    assert.deepEqual([backendErrors, mounted()], [1, [foreign]]);
    assert.deepEqual(readdirSync(place_).sort(), ['0123456789abcdef', 'foreign']);
  },
);

test(
  'given two activations of one name at once, then one is made and the other AlreadyExists',
  asRoot,
  async (t) => {
    const { db, directory, mounted } = await place(t);
    const low = directory('low');
    await db.leases.create(ctx, { id: 'l' });
    const activate = () => db.mounts.activate({ ...ctx, lease: 'l' }, 'm', [bind(low)], { temporary: true });
    // Collections beside them take nothing that is being made.
    const [one, two] = await Promise.allSettled([
      activate(),
      activate(),
      db.garbageCollect(),
      db.garbageCollect(),
    ]);
    assert.deepEqual([one.status, two.status], ['fulfilled', 'rejected']);
    assert.ok(isKind((two as PromiseRejectedResult).reason, 'AlreadyExists'));
    assert.equal(mounted().length, 1);
    await Promise.allSettled([db.mounts.deactivate(ctx, 'm'), activate(), db.garbageCollect()]);
    assert.equal(mounted().length, (await db.mounts.list(ctx)).length);
  },
);

// ----------------------------------------------------------------------------------------------------------- failures

test(
  'given a failing disk or commit, when mounts are activated, then it fails and nothing is left',
  asRoot,
  async (t) => {
    const { db, root, directory, mounted, activations } = await place(t);
    const low = directory('low');
    const activate = (ctx_ = ctx) =>
      db.mounts.activate(ctx_, 'm', [bind(low), bind(low)], { temporary: true });
    const nothing = () =>
      assert.deepEqual([mounted(), activations(), recordOf(db, 'm')], [[], [], undefined]);
    const { engine } = db;
    const update = engine.update.bind(engine);
    const failAt = (call: number, error: Error, isMade: boolean): void => {
      let calls = 0;
      engine.update = (async (...args: Parameters<typeof update>) => {
        if (++calls !== call) return update(...args);
        if (isMade) await update(...args);
        throw error;
      }) as typeof engine.update;
    };
    for (const call of [1, 2]) {
      failAt(call, new EbbtideError('Unavailable', 'the disk is full'), false);
      await assert.rejects(activate(), kind('Unavailable', /disk is full/));
      nothing();
    }
    // Whether it was made is not known, and seen afterwards.
    failAt(2, new OutcomeUnknown('who knows'), true);
    await assert.rejects(activate(), kind('Unavailable', /who knows/));
    engine.update = update;
    assert.equal((await db.mounts.info(ctx, 'm')).active.length, 2);
    await db.garbageCollect();
    nothing();
    failAt(2, new OutcomeUnknown('who knows'), false);
    await assert.rejects(activate(), kind('Unavailable', /who knows/));
    engine.update = update;
    assert.equal(mounted().length, 2);
    // The name is not in use: nothing was promised.
    await activate();
    await db.mounts.deactivate(ctx, 'm');
    await db.garbageCollect();
    nothing();
    const cancelled = { ...ctx, signal: AbortSignal.abort() };
    await assert.rejects(activate(cancelled));
    nothing();

    await db.close();
    sys.mount('tmpfs', layout.mounts(root), 'tmpfs', 0, 'nr_inodes=3');
    const full = await testDB(t, { root, engine: 'lmdb' });
    await assert.rejects(
      full.mounts.activate(ctx, 'm', [bind(low), bind(low)], { temporary: true }),
      kind('Unavailable', /ENOSPC/),
    );
    assert.deepEqual([mounted(), activations(), recordOf(full, 'm')], [[layout.mounts(root)], [], undefined]);
  },
);

test(
  'given a record that goes, or another one that comes, while its mounts are made, then it is entered again, or taken back',
  asRoot,
  async (t) => {
    const { db, directory, mounted } = await place(t);
    const low = directory('low');
    await db.leases.create(ctx, { id: 'l' });
    const { engine } = db;
    const update = engine.update.bind(engine);
    const before = (second: (tx: Transaction) => void): void => {
      let calls = 0;
      engine.update = (async (...args: Parameters<typeof update>) => {
        if (++calls === 2) await update(second);
        return update(...args);
      }) as typeof engine.update;
    };
    const activate = () => db.mounts.activate({ ...ctx, lease: 'l' }, 'm', [bind(low)], { temporary: true });
    // As a collection does, and namespaces that are deleted.
    before((tx) => {
      tx.unlink(leaseKey('ns1', 'l'), Relation.holds, mountKey('ns1', 'm'));
      tx.delete(mountKey('ns1', 'm'));
      tx.delete(namespaceKey('ns1'));
    });
    await activate();
    engine.update = update;
    await db.garbageCollect();
    assert.equal((await db.mounts.list(ctx)).length, 1);
    assert.ok((await db.namespaces.list({})).includes('ns1'));
    await db.mounts.deactivate(ctx, 'm');
    const other = { createdat: 1n, updatedat: 1n, directory: 'f'.repeat(16) };
    before((tx) => tx.put(mountKey('ns1', 'm'), other));
    await assert.rejects(activate(), kind('Unavailable', /another host/));
    assert.deepEqual([mounted(), recordOf(db, 'm')], [[], other]);
  },
);

test(
  'given another file system over the directory of mounts, or the root, then nothing is mounted or unmounted until it is gone',
  asRoot,
  async (t) => {
    const { db, root, directory, mounted } = await place(t);
    const low = directory('low');
    await db.mounts.activate(ctx, 'm', [bind(low)], { temporary: true });
    const before = mounted();
    for (const over of [layout.mounts(root), root]) {
      sys.mount('tmpfs', over, 'tmpfs', 0);
      try {
        const refused = kind('Unavailable', /replaced/);
        await assert.rejects(db.mounts.activate(ctx, 'new', [bind(low)], { temporary: true }), refused);
        assert.match((await db.mounts.sweep()).join(), /replaced/);
        assert.deepEqual(readdirSync(over), []);
      } finally {
        sys.umount(over);
      }
      assert.deepEqual(mounted(), before);
    }
    assert.equal((await db.mounts.list(ctx)).length, 1);
    await db.mounts.deactivate(ctx, 'm');
    assert.deepEqual(mounted(), []);
  },
);

test(
  'given a damaged record whose directory leads elsewhere, when it is deactivated, then nothing there is touched',
  asRoot,
  async (t) => {
    const { db, root, directory } = await place(t);
    await db.mounts.activate(ctx, 'm', [bind(directory('low'))], { temporary: true });
    const foreign = join(root, 'foreign');
    mkdirSync(join(foreign, '1'), { recursive: true });
    for (const leading of ['../foreign', foreign, '']) {
      const damaged = { createdat: 1n, updatedat: 1n, directory: leading, place: 'x/y' };
      await db.update((tx) => tx.put(mountKey('ns1', 'damaged'), damaged));
      await db.mounts.deactivate(ctx, 'damaged');
      assert.deepEqual(readdirSync(foreign), ['1'], leading);
    }
    assert.equal((await db.mounts.list(ctx)).length, 1);
  },
);

/** Opens the store of a root in another process, and runs a body there. */
function elsewhere(root: string, how: readonly string[], body: string): string {
  const open = fileURLToPath(new URL('../../src/open.js', import.meta.url));
  const script = `
    const { openDB } = await import(${JSON.stringify(open)});
    const db = await openDB({ root: ${JSON.stringify(root)}, snapshotters: ['native'], log: () => {} });
    const ctx = { namespace: 'ns1' };
    ${body}
    await db.close();`;
  const [command = '', ...args] = [...how, process.execPath, '--input-type=module', '-e', script];
  const { stdout, stderr, status } = spawnSync(command, args);
  assert.equal(status, 0, stderr.toString());
  return stdout.toString();
}

test(
  'given no right to mount, when mounts are activated, then it is refused by name and nothing is left',
  asRoot,
  async (t) => {
    const { db, root, directory, activations } = await place(t);
    const low = directory('low');
    await db.close();
    const said = elsewhere(
      root,
      ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin'],
      `const mounts = [{ type: 'bind', source: ${JSON.stringify(low)}, options: ['rbind'] }];
    const error = await db.mounts.activate(ctx, 'm', mounts, { temporary: true }).catch((error) => error);
    console.log(error.kind, error.message, (await db.mounts.list(ctx)).length);`,
    );
    assert.match(said, /^FailedPrecondition .*EPERM.* 0\n$/);
    assert.deepEqual(activations(), []);
  },
);

test(
  'given a mount of another mount namespace, when collected, then it stays while that lives, and its record goes afterwards',
  asRoot,
  async (t) => {
    const { db, root, directory, mounted, activations } = await place(t);
    const low = directory('low');
    await db.leases.create(ctx, { id: 'l' });
    await db.mounts.activate({ ...ctx, lease: 'l' }, 'here', [bind(low)], { temporary: true });
    await db.close();
    const said = elsewhere(
      root,
      ['unshare', '--mount', '--propagation', 'private'],
      `await db.garbageCollect();
    const before = (await db.mounts.list(ctx)).map(({ name }) => name);
    const mounts = [{ type: 'bind', source: ${JSON.stringify(low)}, options: ['rbind'] }];
    await db.mounts.activate({ ...ctx, lease: 'l' }, 'there', mounts, { temporary: true });
    console.log(JSON.stringify([before, (await db.mounts.list(ctx)).map(({ name }) => name)]));`,
    );
    assert.deepEqual(JSON.parse(said), [['here'], ['here', 'there']]);
    assert.deepEqual([mounted().length, activations().length], [1, 2]);
    const again = await testDB(t, { root, engine: 'lmdb' });
    // The system gives a namespace's number again: another test's may have it for a while.
    const gone = String(recordOf(again, 'there')?.place);
    for (const end = Date.now() + 120_000; isPlaceAlive(gone) && Date.now() < end; ) await sleep(50);
    const { findings } = await again.check({}, { graph: false });
    assert.deepEqual(
      findings.map(({ kind, object, severity }) => [kind, object, severity]),
      [['mount-missing', 'there', 'leftover']],
    );
    await again.garbageCollect();
    assert.deepEqual(
      (await again.mounts.list(ctx)).map(({ name }) => name),
      ['here'],
    );
    assert.deepEqual([mounted().length, activations().length], [1, 1]);
    mkdirSync(join(layout.mounts(root), '00000000000000ff'));
    const { findings: orphans } = await again.check({}, { graph: false });
    assert.deepEqual(
      orphans.map(({ kind, object }) => [kind, object]),
      [['mount-orphan', '00000000000000ff']],
    );
  },
);
