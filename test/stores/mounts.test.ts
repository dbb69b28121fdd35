/**
 * The mount manager on real bind and overlay mounts; as root. What is in its way: mount-obstacles.test.ts. What a crash leaves:
 * test/crash/mounts.test.ts; over gRPC: test/server/mounts.test.ts.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Mount } from '../../src/backends/contract.js';
import { mountAt, unmountAt } from '../../src/backends/mounts.js';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import type { ErrorKind } from '../../src/errors.js';
import { asRoot, bind, ctx, kind, place, recordOf } from './mount-place.js';

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
