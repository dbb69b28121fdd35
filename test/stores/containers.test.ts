import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { DB } from '../../src/db.js';
import type { Container } from '../../src/stores/containers.js';
import { testDB } from '../support/db.js';
import { any, container, ns1, ns2, rejects } from './fixtures.js';

const stored = container('c1', {
  labels: { a: '1', b: '2' },
  image: 'busybox',
  runtime: { name: 'runc', options: any('options') },
  snapshotKey: 'layer',
  snapshotter: 'native',
  extensions: { hello: any('hello'), bar: any('bar') },
  sandboxId: 'pod',
});

async function setUp(t: TestContext): Promise<{ db: DB; created: Container }> {
  const db = await testDB(t);
  return { db, created: await db.containers.create(ns1, stored) };
}

/** A record without its update time, which each update moves. */
const withoutTime = ({ updatedAt: _, ...rest }: Container): Omit<Container, 'updatedAt'> => rest;

describe('container create', () => {
  it('given a full container, then it comes back whole, with both times the same', async (t) => {
    const { db, created } = await setUp(t);
    assert.equal(created.createdAt, created.updatedAt);
    const read = await db.containers.get(ns1, 'c1');
    assert.deepEqual(read, created);
    const { createdAt: _, updatedAt: __, spec, runtime, extensions, ...plain } = read;
    const { spec: ___, runtime: ____, extensions: _____, ...wanted } = stored;
    assert.deepEqual(plain, wanted);
    assert.deepEqual(
      [spec.typeUrl, runtime.name, runtime.options?.typeUrl],
      ['test/spec', 'runc', 'test/options'],
    );
    assert.deepEqual(Object.keys(extensions).sort(), ['bar', 'hello']);
    assert.deepEqual(Buffer.from(spec.value), Buffer.from('spec'));
    assert.deepEqual(Buffer.from(runtime.options?.value ?? []), Buffer.from('options'));
  });

  it('given an empty opaque message as spec, then it is a spec', async (t) => {
    const db = await testDB(t);
    await db.containers.create(ns1, container('c', { spec: { typeUrl: '', value: new Uint8Array() } }));
    const { spec } = await db.containers.get(ns1, 'c');
    assert.deepEqual([spec.typeUrl, spec.value.length], ['', 0]);
  });

  const broken = {
    'no runtime': { runtime: undefined },
    'no runtime name': { runtime: { name: '' } },
    'no spec': { spec: undefined },
    'a bad id': { id: 'foo/bar' },
    'an empty id': { id: '' },
    'an empty extension name': { extensions: { '': any('x') } },
    'a snapshot key but no snapshotter': { snapshotKey: 'layer' },
    'an oversized label': { labels: { a: 'x'.repeat(4096) } },
  };
  for (const [what, change] of Object.entries(broken)) {
    it(`[#34] given ${what}, then InvalidArgument and nothing is stored`, async (t) => {
      const db = await testDB(t);
      await rejects(db.containers.create(ns1, { ...container('c'), ...change }), 'InvalidArgument');
      assert.deepEqual(await db.containers.list(ns1), []);
    });
  }

  it('[#35] given a snapshotter and an empty snapshot key, then it is created', async (t) => {
    const db = await testDB(t);
    const created = await db.containers.create(
      ns1,
      container('c', { snapshotter: 'native', snapshotKey: '' }),
    );
    assert.deepEqual([created.snapshotter, created.snapshotKey], ['native', '']);
  });

  it('given a container, when created again, then AlreadyExists; in another namespace it is its own', async (t) => {
    const { db, created } = await setUp(t);
    await rejects(db.containers.create(ns1, container('c1')), 'AlreadyExists');
    assert.deepEqual(await db.containers.get(ns1, 'c1'), created);
    await rejects(db.containers.get(ns2, 'c1'), 'NotFound');
    await db.containers.create(ns2, container('c1'));
  });
});

describe('container update', () => {
  const change = container('c1', {
    labels: { a: '9' },
    image: 'alpine',
    runtime: { name: 'runc', options: any('other options') },
    spec: any('other spec'),
    snapshotKey: 'other',
    snapshotter: 'native',
    extensions: { hello: any('other hello'), bar: any('other bar') },
    sandboxId: 'other pod',
  });

  it('[#36] given path id and another id, then NotFound; an empty id is InvalidArgument', async (t) => {
    const { db, created } = await setUp(t);
    await rejects(db.containers.update(ns1, { ...change, id: 'c2' }, 'id'), 'NotFound');
    await rejects(db.containers.update(ns1, change, 'id'), 'InvalidArgument');
    await rejects(db.containers.update(ns1, { ...change, id: '' }), 'InvalidArgument');
    assert.deepEqual(await db.containers.get(ns1, 'c1'), created);
  });

  for (const [number, paths, given] of [
    ['[#37]', ['runtime'], change],
    ['[#37]', ['runtime'], { ...change, runtime: undefined }],
    ['[#41]', ['snapshotKey'], change],
    ['[#42]', ['snapshotkey', 'snapshotter'], change],
    ['[#45]', ['sandboxid'], change],
    ['[#46]', ['spec'], { ...change, spec: undefined }],
    ['[#34]', ['extensions'], { ...change, extensions: { '': any('x') } }],
  ] as const) {
    const cleared = given === change ? '' : ' of a deficient object';
    it(`${number} given paths ${paths.join(', ')}${cleared}, then InvalidArgument and nothing changes`, async (t) => {
      const { db, created } = await setUp(t);
      await rejects(db.containers.update(ns1, given, ...paths), 'InvalidArgument');
      assert.deepEqual(await db.containers.get(ns1, 'c1'), created);
    });
  }

  it('[#38] given no paths, then snapshotter and runtime name must stay', async (t) => {
    const { db, created } = await setUp(t);
    await rejects(
      db.containers.update(ns1, { ...change, snapshotter: 'overlayfs' }),
      'InvalidArgument',
      'snapshotter',
    );
    await rejects(
      db.containers.update(ns1, { ...change, runtime: { name: 'crun' } }),
      'InvalidArgument',
      'runtime',
    );
    assert.deepEqual(await db.containers.get(ns1, 'c1'), created);
  });

  it('[#38] [#39] [#45] given no paths, then all but runtime, sandbox and creation time is replaced', async (t) => {
    const { db, created } = await setUp(t);
    const updated = await db.containers.update(ns1, change);
    assert.ok(updated.updatedAt > created.updatedAt);
    assert.deepEqual(await db.containers.get(ns1, 'c1'), updated);
    const read = (name: string) => ({ typeUrl: `test/${name}`, value: new Uint8Array(Buffer.from(name)) });
    assert.deepEqual(withoutTime(updated), {
      ...withoutTime(created),
      labels: { a: '9' },
      image: 'alpine',
      spec: read('other spec'),
      snapshotKey: 'other',
      extensions: { hello: read('other hello'), bar: read('other bar') },
    });
  });

  for (const [path, field] of [
    ['snapshotkey', 'snapshotKey'],
    ['image', 'image'],
    ['spec', 'spec'],
    ['labels', 'labels'],
  ] as const) {
    it(`[#40] given path ${path}, then only that field changes`, async (t) => {
      const { db, created } = await setUp(t);
      const updated = await db.containers.update(ns1, change, path);
      const whole = await testDB(t);
      await whole.containers.create(ns1, change);
      const wanted = (await whole.containers.get(ns1, 'c1'))[field];
      assert.deepEqual(withoutTime(updated), { ...withoutTime(created), [field]: wanted });
      assert.deepEqual(await db.containers.get(ns1, 'c1'), updated);
    });
  }

  it('[#43] given path extensions.bar, then the other extension stays as stored', async (t) => {
    const { db, created } = await setUp(t);
    const updated = await db.containers.update(ns1, change, 'extensions.bar');
    assert.deepEqual(updated.extensions.hello, created.extensions.hello);
    assert.equal(updated.extensions.bar?.typeUrl, 'test/other bar');
  });

  it('[#44] given path extensions with none, then none are left; a path to an absent one removes it', async (t) => {
    const { db } = await setUp(t);
    const one = await db.containers.update(ns1, { ...change, extensions: {} }, 'extensions.hello');
    assert.deepEqual(Object.keys(one.extensions), ['bar']);
    await db.containers.update(ns1, { ...change, extensions: {} }, 'extensions');
    assert.deepEqual((await db.containers.get(ns1, 'c1')).extensions, {});
  });

  it('[#44] given a full replacement with one extension, then the stored set equals it', async (t) => {
    const { db } = await setUp(t);
    await db.containers.update(ns1, { ...change, extensions: { only: any('only') } });
    assert.deepEqual(Object.keys((await db.containers.get(ns1, 'c1')).extensions), ['only']);
  });

  it('[#45] given many updates, then the sandbox id given at create survives', async (t) => {
    const { db } = await setUp(t);
    await db.containers.update(ns1, change);
    await db.containers.update(ns1, { ...change, sandboxId: '' }, 'image', 'labels.x');
    assert.equal((await db.containers.get(ns1, 'c1')).sandboxId, 'pod');
  });
});

it('[#47] given containers, when listed by id, runtime name, image or labels, then those match, by id', async (t) => {
  const db = await testDB(t);
  await db.containers.create(ns1, container('c2', { runtime: { name: 'x' }, labels: { a: '1', b: '3' } }));
  await db.containers.create(ns1, container('c1', { image: 'busybox', labels: { a: '1', b: '2' } }));
  const listed = async (...filters: string[]): Promise<string[]> =>
    (await db.containers.list(ns1, ...filters)).map((c) => c.id);
  assert.deepEqual(await listed(), ['c1', 'c2']);
  assert.deepEqual(await listed('id==c1'), ['c1']);
  assert.deepEqual(await listed('runtime.name==x'), ['c2']);
  assert.deepEqual(await listed('image'), ['c1']);
  assert.deepEqual(await listed('labels.a==1,labels.b==2'), ['c1']);
  assert.deepEqual(await listed('runtime', 'snapshotter'), []);
  await rejects(db.containers.list(ns1, 'id='), 'InvalidArgument', 'parse error');
});

it('given a container, when deleted, then it is gone; again is NotFound', async (t) => {
  const { db } = await setUp(t);
  const dirty: boolean[] = [];
  db.registerMutationCallback((deletions) => dirty.push(deletions));
  await db.containers.delete(ns1, 'c1');
  assert.deepEqual(dirty, [true]);
  await rejects(db.containers.get(ns1, 'c1'), 'NotFound');
  await rejects(db.containers.delete(ns1, 'c1'), 'NotFound');
  await rejects(db.containers.delete(ns1, ''), 'NotFound');
});
