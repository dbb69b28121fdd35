/**
 * The mount manager on real bind and overlay mounts; as root. What a crash leaves: test/crash/mounts.test.ts; over gRPC:
 * test/server/mounts.test.ts.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Mount } from '../../src/backends/contract.js';
import { isPlaceAlive } from '../../src/backends/mount-points.js';
import { mountAt, unmountAt } from '../../src/backends/mounts.js';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import type { Transaction } from '../../src/engine/contract.js';
import { leaseKey, mountKey, namespaceKey, Relation } from '../../src/engine/schema/keys.js';
import { EbbtideError, type ErrorKind, isKind, OutcomeUnknown } from '../../src/errors.js';
import { layout } from '../../src/open.js';
import { testDB } from '../support/db.js';
import { mountedBelow } from '../support/mounted.js';
import { tempDir } from '../support/temp.js';

const asRoot = { skip: process.getuid?.() === 0 ? false : 'needs root' };
const ctx: CallContext = { namespace: 'ns1' };
const bind = (source: string, ...options: string[]): Mount => ({
  type: 'bind',
  source,
  options: ['rbind', ...options],
});
const kind = (wanted: ErrorKind, words: RegExp) => (error: unknown) =>
  isKind(error, wanted) && words.test((error as Error).message);

interface Place {
  db: DB;
  root: string;
  /** A directory with a file of its name in it. */
  directory(name: string): string;
  /** What is mounted below the root now. */
  mounted(): string[];
  activations(): string[];
}

async function place(t: TestContext): Promise<Place> {
  const base = await tempDir(t);
  const root = join(base, 'root');
  mkdirSync(root);
  const mounted = mountedBelow(t, root);
  const db = await testDB(t, { root, engine: 'lmdb' });
  const directory = (name: string): string => {
    const path = join(base, name);
    mkdirSync(path);
    writeFileSync(join(path, name), name);
    return path;
  };
  const activations = (): string[] => {
    const path = layout.mounts(root);
    return existsSync(path) ? readdirSync(path) : [];
  };
  return { db, root, directory, mounted, activations };
}

const recordOf = (db: DB, name: string): Record<string, unknown> | undefined =>
  db.engine.get(mountKey('ns1', name)) as Record<string, unknown> | undefined;

test(
  'given a temporary activation, when it is made, then all is mounted, and one bind gives it',
  asRoot,
  async (t) => {
    const { db, directory, mounted, activations } = await place(t);
    const options = [`lowerdir=${directory('up')}:${directory('low')}`];
    const overlay: Mount = { type: 'overlay', source: 'overlay', options };
    const made = await db.mounts.activate(ctx, 'view', [overlay], { temporary: true, labels: { a: 'b' } });
    const point = made.active[0]!.mountPoint;
    assert.deepEqual(made, {
      name: 'view',
      active: [{ ...overlay, mountPoint: point, mountedAt: made.active[0]!.mountedAt }],
      system: [{ type: 'bind', source: point, options: ['rbind'] }],
      labels: { a: 'b' },
    });
    assert.deepEqual(readdirSync(point).sort(), ['low', 'up']);
    assert.deepEqual([await db.mounts.info(ctx, 'view'), await db.mounts.list(ctx)], [made, [made]]);
    assert.deepEqual(
      [await db.mounts.list(ctx, 'labels.a==b'), await db.mounts.list(ctx, 'name==x')],
      [[made], []],
    );
    assert.deepEqual(await db.mounts.list({ namespace: 'ns2' }), []);
    await assert.rejects(
      db.mounts.activate(ctx, 'view', [overlay], { temporary: true }),
      kind('AlreadyExists', /"view"/),
    );
    await db.mounts.deactivate(ctx, 'view');
    assert.deepEqual([mounted(), activations()], [[], []]);
    await assert.rejects(db.mounts.info(ctx, 'view'), kind('NotFound', /"view"/));
    await assert.rejects(db.mounts.deactivate(ctx, 'view'), kind('NotFound', /"view"/));
  },
);

test(
  'given transformers, when activated, then what comes before them is mounted and the rest is the caller’s',
  asRoot,
  async (t) => {
    const { db, directory, mounted } = await place(t);
    const [low, data, other] = [directory('low'), directory('data'), directory('other')];
    const made = await db.mounts.activate(ctx, 'c1', [
      bind(low, 'ro'),
      bind(data),
      {
        type: 'format/mkdir/overlay',
        source: 'overlay',
        options: [
          'X-containerd.mkdir.path={{ mount 1 }}/upper:0750',
          'X-containerd.mkdir.path={{mount 1}}/upper/deep:0755:7:8',
          'X-containerd.mkdir.path={{ mount 1 }}/work',
          'lowerdir={{ overlay 0 0 }}',
          'upperdir={{ mount 1 }}/upper',
          'workdir={{ mount 1 }}/work',
        ],
      },
      bind(other),
    ]);
    const [first, second] = made.active.map(({ mountPoint }) => mountPoint);
    assert.deepEqual(mounted(), [first, second]);
    assert.deepEqual(made.system, [
      {
        type: 'overlay',
        source: 'overlay',
        options: [`lowerdir=${first}`, `upperdir=${second}/upper`, `workdir=${second}/work`],
      },
      bind(other),
    ]);
    const stat = spawnSync('stat', [
      '-c',
      '%a %u %g',
      join(data, 'upper'),
      join(data, 'upper/deep'),
      join(data, 'work'),
    ]);
    assert.equal(stat.stdout.toString(), '750 0 0\n755 7 8\n700 0 0\n');
    // The caller's part works.
    const target = directory('target');
    mountAt(made.system.slice(0, 1), target);
    assert.deepEqual(readdirSync(target).sort(), ['deep', 'low']);
    unmountAt(target);
    await db.mounts.deactivate(ctx, 'c1');
    assert.deepEqual(mounted(), []);
  },
);

test(
  'given one mount with a transformer, when activated, then nothing is mounted, and the name is in use all the same',
  asRoot,
  async (t) => {
    const { db, directory, mounted } = await place(t);
    await db.leases.create(ctx, { id: 'l' });
    const options = [`lowerdir=${directory('low')}`];
    const mount: Mount = { type: 'format/overlay', source: 'overlay', options };
    const made = await db.mounts.activate({ ...ctx, lease: 'l' }, 'm', [mount]);
    assert.deepEqual(made, { name: 'm', active: [], system: [{ ...mount, type: 'overlay' }], labels: {} });
    await db.garbageCollect();
    assert.deepEqual([await db.mounts.info(ctx, 'm'), mounted()], [made, []]);
    await assert.rejects(db.mounts.activate(ctx, 'm', [mount]), kind('AlreadyExists', /"m"/));
    await db.mounts.deactivate(ctx, 'm');
  },
);

test('given what cannot be activated, then it is refused by name and nothing is left', asRoot, async (t) => {
  const { db, directory, mounted, activations } = await place(t);
  const low = directory('low');
  symlinkSync('/', join(low, 'link'));
  const temporary = { temporary: true };
  const format = (option: string): Mount[] => [
    bind(low),
    { type: 'format/overlay', source: 'o', options: [option] },
  ];
  const mkdir = (path: string): Mount[] => [
    bind(low),
    { type: 'format/mkdir/overlay', source: 'o', options: [`X-containerd.mkdir.path=${path}`] },
  ];
  const refused: [Mount[], object, ErrorKind, RegExp][] = [
    [[], temporary, 'NotImplemented', /nothing to activate/],
    [[bind(low)], {}, 'NotImplemented', /nothing to activate/],
    [[{ type: 'loop', source: '/x', options: [] }], temporary, 'NotImplemented', /"loop"/],
    [[{ type: 'erofs/x', source: '/x', options: [] }], temporary, 'NotImplemented', /"erofs\/x"/],
    [[{ type: 'mkfs/loop', source: '/x', options: [] }, bind(low)], {}, 'NotImplemented', /"mkfs\/"/],
    [[{ ...bind(low), target: '/x' }], temporary, 'NotImplemented', /target/],
    [[bind(join(low, 'nothing'))], temporary, 'NotFound', /nothing/],
    [[bind(low), bind(low, 'uidmap=0:1:1')], temporary, 'NotImplemented', /mapped ids/],
    [[bind(low)], { ...temporary, labels: { a: 'x'.repeat(5000) } }, 'InvalidArgument', /label/],
    [[bind(`${low}\0/etc`)], temporary, 'InvalidArgument', /NUL/],
    [Array.from({ length: 256 }, () => bind(low)), temporary, 'InvalidArgument', /256 mounts/],
    [format('lowerdir={{ mount 1 }}'), {}, 'InvalidArgument', /mount 1: 1 are mounted/],
    [format('lowerdir={{ overlay 0 4 }}'), {}, 'InvalidArgument', /0 to 4/],
    [format('lowerdir={{ .Env }}'), {}, 'InvalidArgument', /template/],
    [format('lowerdir={{ mount 0 1 }}'), {}, 'InvalidArgument', /template/],
    [mkdir(join(low, 'up')), {}, 'NotImplemented', /in no mount of the activation/],
    [mkdir('{{ mount 0 }}/../../x'), {}, 'InvalidArgument', /not valid/],
    [mkdir('{{ mount 0 }}/x:9'), {}, 'InvalidArgument', /not valid/],
    [mkdir('{{ mount 0 }}/link/made-by-a-test'), {}, 'FailedPrecondition', /link/],
    [mkdir('{{ mount 0 }}/low'), {}, 'FailedPrecondition', /not a directory/],
  ];
  for (const [mounts, options, wanted, words] of refused) {
    await assert.rejects(db.mounts.activate(ctx, 'm', mounts, options), kind(wanted, words), String(words));
    assert.deepEqual([mounted(), activations(), recordOf(db, 'm')], [[], [], undefined], String(words));
  }
  assert.ok(!existsSync('/made-by-a-test'));
  await assert.rejects(
    db.update((tx) => db.mounts.activate(db.withTransactionContext(ctx, tx), 'm', [bind(low)], temporary)),
    kind('FailedPrecondition', /transaction/),
  );
  await assert.rejects(
    db.mounts.activate({ ...ctx, lease: 'none' }, 'm', [bind(low)], temporary),
    kind('NotFound', /lease/),
  );
});

// ------------------------------------------------------------------------------------------------------- collections

const image = { name: 'i', target: { mediaType: 'a/b', digest: `sha256:${'1'.repeat(64)}`, size: 1 } };
const container = { id: 'c', runtime: { name: 'r' }, spec: { typeUrl: 't', value: new Uint8Array() } };

test(
  'given leases, labels and back references, when collected, then a mount lives as long as one of them keeps it',
  asRoot,
  async (t) => {
    const { db, directory, mounted } = await place(t);
    const low = directory('low');
    const activate = (name: string, labels: Record<string, string> = {}, lease?: string) =>
      db.mounts.activate({ ...ctx, ...(lease && { lease }) }, name, [bind(low)], { temporary: true, labels });
    const kept = async (): Promise<string[]> => {
      await db.garbageCollect();
      const names = (await db.mounts.list(ctx)).map(({ name }) => name);
      // What is not kept is not mounted either.
      assert.equal(mounted().length, names.length);
      return names;
    };
    const native = db.snapshotter('native')!;
    await native.prepare(ctx, 'snap', '');
    await db
      .snapshotter('native')!
      .update(ctx, { ...(await native.stat(ctx, 'snap')), labels: { 'containerd.io/gc.root': '1' } });
    await db.leases.create(ctx, { id: 'plain' });
    await db.leases.create(ctx, { id: 'flat', labels: { 'containerd.io/gc.flat': '1' } });
    await db.images.create(ctx, image);
    await db.containers.create(ctx, { ...container, labels: { 'containerd.io/gc.ref.mount/x': 'by-label' } });
    await activate('alone', { 'containerd.io/gc.root': '1', 'containerd.io/gc.ref.image': 'i' });
    await activate('leased', {}, 'plain');
    await activate('flat', {}, 'flat');
    await activate('by-label');
    const refersTo: Record<string, Record<string, string>> = {
      container: { 'containerd.io/gc.bref.container': 'c' },
      image: { 'containerd.io/gc.bref.image.x': 'i' },
      snapshot: { 'containerd.io/gc.bref.snapshot.native/x': 'snap' },
    };
    for (const [name, labels] of Object.entries(refersTo)) await activate(name, labels);
    for (const [name, labels] of Object.entries(refersTo)) {
      const dead = Object.fromEntries(Object.keys(labels).map((label) => [label, 'nobody']));
      await activate(`dead-${name}`, { ...dead, 'containerd.io/gc.bref.sandbox': 'c' });
    }
    const why = await db.why(ctx, { name: 'container', kind: 'mount' });
    assert.deepEqual(
      why.paths[0]?.map(({ kind, key, via }) => [kind, key, via]),
      [
        ['container', 'c', 'root'],
        ['mount', 'container', 'back label'],
      ],
    );
    assert.deepEqual(await kept(), ['by-label', 'container', 'flat', 'image', 'leased', 'snapshot']);
    assert.deepEqual(await db.leases.listResources(ctx, 'plain'), []);
    await db.leases.delete(ctx, 'plain');
    await db.leases.delete(ctx, 'flat');
    assert.deepEqual(await kept(), ['by-label', 'container', 'image', 'snapshot']);
    await db.images.delete(ctx, 'i');
    await native.remove(ctx, 'snap');
    assert.deepEqual(await kept(), ['by-label', 'container']);
    await db.containers.delete(ctx, 'c');
    const plan = await db.planCollection();
    const planned = plan.objects.map(({ kind, key }) => `${kind} ${key}`);
    assert.deepEqual(planned.sort(), ['mount by-label', 'mount container']);
    await db.applyPlan(plan);
    assert.deepEqual(mounted(), []);
    assert.deepEqual(await kept(), []);
  },
);

test(
  'given a name that was deactivated, when it is activated again without a lease, then the lease does not keep it',
  asRoot,
  async (t) => {
    const { db, directory } = await place(t);
    const low = directory('low');
    await db.leases.create(ctx, { id: 'l' });
    const leased = { ...ctx, lease: 'l' };
    await db.mounts.activate(leased, 'm', [bind(low)], { temporary: true });
    await db.mounts.deactivate(ctx, 'm');
    await db.mounts.activate(ctx, 'm', [bind(low)], { temporary: true });
    await db.garbageCollect();
    assert.deepEqual(await db.mounts.list(ctx), []);
  },
);

test(
  'given a namespace with mounts only, when it is deleted, then they go with the next collection',
  asRoot,
  async (t) => {
    const { db, directory, mounted, activations } = await place(t);
    await db.mounts.activate(ctx, 'm', [bind(directory('low'))], { temporary: true });
    await db.namespaces.delete({}, 'ns1');
    assert.equal(mounted().length, 1);
    await db.garbageCollect();
    assert.deepEqual([mounted(), activations()], [[], []]);
  },
);

test(
  'given a mount that a process uses, when it goes, then it stays mounted without a record, and goes with a later collection',
  asRoot,
  async (t) => {
    const { db, directory, mounted, activations } = await place(t);
    const { active } = await db.mounts.activate(ctx, 'm', [bind(directory('low'))], { temporary: true });
    const [point = ''] = active.map(({ mountPoint }) => mountPoint);
    const before = process.cwd();
    process.chdir(point);
    try {
      await assert.rejects(db.mounts.deactivate(ctx, 'm'), kind('Unavailable', /EBUSY/));
      assert.deepEqual([mounted(), await db.mounts.list(ctx)], [[point], []]);
      const { backendErrors } = await db.garbageCollect();
      assert.deepEqual([backendErrors, mounted()], [1, [point]]);
      // The name is free meanwhile.
      await db.mounts.activate(ctx, 'm', [bind(directory('other'))], { temporary: true });
      await db.mounts.deactivate(ctx, 'm');
    } finally {
      process.chdir(before);
    }
    await db.garbageCollect();
    assert.deepEqual([mounted(), activations()], [[], []]);
  },
);

// -------------------------------------------------------------------------------------------------- what others do to it

test(
  'given a recursive bind of a shared tree, when it goes, then what is mounted there stays, and what others mounted in it goes',
  asRoot,
  async (t) => {
    const { db, directory, mounted } = await place(t);
    const [tree, below, extra] = [directory('tree'), directory('below'), directory('extra')];
    mkdirSync(join(tree, 'sub'));
    mkdirSync(join(tree, 'mine'));
    mountAt([bind(tree, 'rshared')], tree);
    mountAt([bind(below)], join(tree, 'sub'));
    t.after(() => sys.umount(tree, UmountFlag.detach));
    const { active } = await db.mounts.activate(ctx, 'm', [bind(tree)], { temporary: true });
    const point = active[0]!.mountPoint;
    assert.ok(existsSync(join(point, 'sub/below')));
    mountAt([bind(extra)], join(point, 'mine'));
    mountAt([bind(extra)], point);
    // It stays apart from where it comes from.
    assert.ok(!existsSync(join(tree, 'mine/extra')));
    await db.mounts.deactivate(ctx, 'm');
    assert.deepEqual(mounted(), []);
    assert.ok(existsSync(join(tree, 'sub/below')));
  },
);

test(
  'given a mount that somebody unmounted or replaced, when collected or activated again, then its record goes, and no other',
  asRoot,
  async (t) => {
    const { db, directory, mounted } = await place(t);
    const low = directory('low');
    await db.leases.create(ctx, { id: 'l' });
    const leased = { ...ctx, lease: 'l' };
    const points: Record<string, string> = {};
    for (const name of ['lazy', 'again', 'replaced', 'stays']) {
      const { active } = await db.mounts.activate(leased, name, [bind(low)], { temporary: true });
      points[name] = active[0]!.mountPoint;
    }
    for (const name of ['lazy', 'again', 'replaced']) sys.umount(points[name]!, UmountFlag.detach);
    // What is mounted now may have the number that the kernel gave to the one before.
    mountAt([bind(low)], points.replaced!);
    await db.mounts.activate(leased, 'again', [bind(low)], { temporary: true });
    await db.garbageCollect();
    const names = (await db.mounts.list(ctx)).map(({ name }) => name);
    assert.deepEqual(names, ['again', 'stays']);
    assert.equal(mounted().length, 2);
  },
);

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
