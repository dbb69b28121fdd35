import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type CallContext, withTransactionContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import type { Any } from '../../src/model/records.js';
import type { Container } from '../../src/stores/containers.js';
import { withId } from '../../src/stores/leases.js';
import type { Sandbox } from '../../src/stores/sandboxes.js';
import type { Snapshotter } from '../../src/stores/snapshots.js';
import { testDB } from '../support/db.js';
import { any, container, digest, image, ns1, rejects } from './fixtures.js';

type Operation = (db: DB, ctx: CallContext) => Promise<unknown>;

const resource = { type: 'images', id: 'a' };
const writes: Record<string, Operation> = {
  'images.create': (db, ctx) => db.images.create(ctx, image('a')),
  'images.update': (db, ctx) => db.images.update(ctx, image('a')),
  'images.delete': (db, ctx) => db.images.delete(ctx, 'a'),
  'containers.create': (db, ctx) => db.containers.create(ctx, container('a')),
  'containers.update': (db, ctx) => db.containers.update(ctx, container('a')),
  'containers.delete': (db, ctx) => db.containers.delete(ctx, 'a'),
  'sandboxes.create': (db, ctx) => db.sandboxes.create(ctx, { id: 'a' }),
  'sandboxes.update': (db, ctx) => db.sandboxes.update(ctx, { id: 'a' }),
  'sandboxes.delete': (db, ctx) => db.sandboxes.delete(ctx, 'a'),
  'leases.create': (db, ctx) => db.leases.create(ctx, withId('a')),
  'leases.delete': (db, ctx) => db.leases.delete(ctx, 'a'),
  'leases.addResource': (db, ctx) => db.leases.addResource(ctx, 'a', resource),
  'leases.deleteResource': (db, ctx) => db.leases.deleteResource(ctx, 'a', resource),
};
const reads: Record<string, Operation> = {
  'images.get': (db, ctx) => db.images.get(ctx, 'a'),
  'images.list': (db, ctx) => db.images.list(ctx),
  'containers.get': (db, ctx) => db.containers.get(ctx, 'a'),
  'containers.list': (db, ctx) => db.containers.list(ctx),
  'sandboxes.get': (db, ctx) => db.sandboxes.get(ctx, 'a'),
  'sandboxes.list': (db, ctx) => db.sandboxes.list(ctx),
  'leases.list': (db, ctx) => db.leases.list(ctx),
  'leases.listResources': (db, ctx) => db.leases.listResources(ctx, 'a'),
};
/** Of the stores that have a backend; what they name need not exist for the context to be refused. */
const native = (db: DB): Snapshotter => db.snapshotter('native') ?? assert.fail('no native snapshotter');
const backedWrites: Record<string, Operation> = {
  'content.writer': (db, ctx) => db.content.writer(ctx, 'ref'),
  'content.update': (db, ctx) => db.content.update(ctx, { digest: digest('a'), labels: {} }),
  'content.delete': (db, ctx) => db.content.delete(ctx, digest('a')),
  'content.abort': (db, ctx) => db.content.abort(ctx, 'ref'),
  'snapshots.prepare': (db, ctx) => native(db).prepare(ctx, 'a', ''),
  'snapshots.view': (db, ctx) => native(db).view(ctx, 'a', ''),
  'snapshots.commit': (db, ctx) => native(db).commit(ctx, 'b', 'a'),
  'snapshots.update': (db, ctx) => native(db).update(ctx, { name: 'a', labels: {} }),
  'snapshots.remove': (db, ctx) => native(db).remove(ctx, 'a'),
};
const backedReads: Record<string, Operation> = {
  'content.info': (db, ctx) => db.content.info(ctx, digest('a')),
  'content.readerAt': (db, ctx) => db.content.readerAt(ctx, digest('a')),
  'content.walk': (db, ctx) => db.content.walk(ctx, () => undefined),
  'content.status': (db, ctx) => db.content.status(ctx, 'ref'),
  'content.listStatuses': (db, ctx) => db.content.listStatuses(ctx),
  'snapshots.stat': (db, ctx) => native(db).stat(ctx, 'a'),
  'snapshots.usage': (db, ctx) => native(db).usage(ctx, 'a'),
  'snapshots.mounts': (db, ctx) => native(db).mounts(ctx, 'a'),
  'snapshots.walk': (db, ctx) => native(db).walk(ctx, () => undefined),
};
const all = Object.entries({ ...reads, ...writes, ...backedReads, ...backedWrites });

describe('namespace of the context', () => {
  it('[#1] [#2] given none or an empty one, then every operation is FailedPrecondition and creates nothing', async (t) => {
    const db = await testDB(t);
    for (const [name, operation] of all) {
      for (const ctx of [{}, { namespace: '' }]) {
        await t.test(name, () => rejects(operation(db, ctx), 'FailedPrecondition', 'namespace is required'));
      }
    }
    assert.deepEqual(await db.namespaces.list({}), []);
  });

  it('[#3] given one that is not a valid identifier, then every operation is InvalidArgument and creates nothing', async (t) => {
    const db = await testDB(t);
    for (const [name, operation] of all) {
      const ctx = { namespace: 'bad namespace!' };
      await t.test(name, () => rejects(operation(db, ctx), 'InvalidArgument', 'bad namespace!'));
    }
    assert.deepEqual(await db.namespaces.list({}), []);
  });
});

describe('labels', () => {
  const changes: Record<
    string,
    (db: DB, labels: Record<string, string>, ...paths: string[]) => Promise<unknown>
  > = {
    images: (db, labels, ...paths) => db.images.update(ns1, image('a', { labels }), ...paths),
    containers: (db, labels, ...paths) => db.containers.update(ns1, container('a', { labels }), ...paths),
    sandboxes: (db, labels, ...paths) => db.sandboxes.update(ns1, { id: 'a', labels }, ...paths),
  };
  const created = async (db: DB, labels: Record<string, string>): Promise<unknown[]> => [
    (await db.images.create(ns1, image('a', { labels }))).labels,
    (await db.containers.create(ns1, container('a', { labels }))).labels,
    (await db.sandboxes.create(ns1, { id: 'a', labels })).labels,
    (await db.leases.create(ns1, withId('a'), { labels })).labels,
  ];
  const stored = async (db: DB): Promise<unknown[]> => [
    (await db.images.get(ns1, 'a')).labels,
    (await db.containers.get(ns1, 'a')).labels,
    (await db.sandboxes.get(ns1, 'a')).labels,
    (await db.leases.list(ns1))[0]?.labels,
  ];

  it('[#9] given an empty value at create, then it is neither returned nor stored', async (t) => {
    const db = await testDB(t);
    const wanted = Array(4).fill({ a: '1' });
    assert.deepEqual(await created(db, { a: '1', b: '' }), wanted);
    assert.deepEqual(await stored(db), wanted);
  });

  it('[#10] given a path to a label that the object lacks or has empty, then it is deleted', async (t) => {
    const db = await testDB(t);
    await created(db, { a: '1', b: '2', c: '3' });
    for (const change of Object.values(changes)) {
      await change(db, { b: 'ignored' }, 'labels.a');
      await change(db, { c: '' }, 'labels.c');
    }
    assert.deepEqual((await stored(db)).slice(0, 3), Array(3).fill({ b: '2' }));
  });

  it('[#11] given a path with dots and slashes after labels, then all of it is the key', async (t) => {
    const db = await testDB(t);
    await created(db, { x: '1' });
    for (const change of Object.values(changes))
      await change(db, { 'x.y/z': '2', 'x.y': 'no' }, 'labels.x.y/z');
    assert.deepEqual((await stored(db)).slice(0, 3), Array(3).fill({ x: '1', 'x.y/z': '2' }));
  });

  it('[#12] given maps passed to create, or read from a store, when changed, then stored data is not', async (t) => {
    const db = await testDB(t);
    const labels: Record<string, string> = { a: '1' };
    const results = [...(await created(db, labels)), ...(await stored(db))];
    labels.a = 'changed by the caller';
    for (const result of results) Object.assign(result as object, { a: 'changed', b: 'added' });
    assert.deepEqual(await stored(db), Array(4).fill({ a: '1' }));
  });

  const messages = (result: Container | Sandbox): (Any | undefined)[] => [
    result.spec,
    result.runtime.options,
    result.extensions.e,
  ];
  const texts = (result: Container | Sandbox): string[] =>
    messages(result).map((message) => Buffer.from(message?.value ?? []).toString());

  it('[#12] given annotations and opaque messages, when changed by the caller, then stored data is not', async (t) => {
    const db = await testDB(t);
    const annotations = { a: '1' };
    const spec = any('spec');
    const options = any('options');
    const extension = any('extension');
    await db.images.create(ns1, image('a', { target: { ...image('a').target, annotations } }));
    const given = { runtime: { name: 'runc', options }, spec, extensions: { e: extension } };
    const results = [
      await db.containers.create(ns1, container('a', given)),
      await db.sandboxes.create(ns1, { id: 'a', ...given }),
      await db.containers.get(ns1, 'a'),
      await db.sandboxes.get(ns1, 'a'),
      await db.containers.update(ns1, container('a', given)),
      await db.sandboxes.update(ns1, { id: 'a', ...given }),
    ];
    annotations.a = 'changed';
    for (const message of [spec, options, extension]) message.value.fill(0);
    for (const result of results) assert.deepEqual(texts(result), ['spec', 'options', 'extension']);
    for (const result of results) for (const message of messages(result)) message?.value.fill(0);
    assert.deepEqual((await db.images.get(ns1, 'a')).target.annotations, { a: '1' });
    for (const read of [await db.containers.get(ns1, 'a'), await db.sandboxes.get(ns1, 'a')]) {
      assert.deepEqual(texts(read), ['spec', 'options', 'extension']);
    }
  });

  it('given a label key that every object inherits, then it is a label like any other', async (t) => {
    const db = await testDB(t);
    const odd = JSON.parse('{"__proto__": "1", "constructor": "2"}');
    await created(db, odd);
    for (const labels of await stored(db))
      assert.deepEqual(Object.entries(labels as object).sort(), Object.entries(odd).sort());
  });
});

describe('transaction of the context', () => {
  it('[#230] given a read-only one, then every write is FailedPrecondition and every read works', async (t) => {
    const db = await testDB(t);
    await db.images.create(ns1, image('a'));
    await db.containers.create(ns1, container('a'));
    await db.sandboxes.create(ns1, { id: 'a' });
    await db.leases.create(ns1, withId('a'));
    await db.view(async (tx) => {
      const ctx = withTransactionContext(ns1, tx);
      for (const [name, write] of Object.entries({ ...writes, ...backedWrites })) {
        await t.test(name, () => rejects(write(db, ctx), 'FailedPrecondition'));
      }
      for (const [name, read] of Object.entries(reads)) {
        await t.test(name, async () => {
          await read(db, ctx);
        });
      }
    });
    assert.equal((await db.images.list(ns1)).length, 1);
  });

  it('[#231] given writes in one, then its reads see them and others only after the commit', async (t) => {
    const db = await testDB(t);
    await db.update(async (tx) => {
      const ctx = withTransactionContext(ns1, tx);
      await db.images.create(ctx, image('a'));
      await db.leases.create(ctx, withId('l'));
      await db.leases.addResource(ctx, 'l', { type: 'content', id: digest('a') });
      assert.equal((await db.images.get(ctx, 'a')).name, 'a');
      assert.deepEqual(await db.leases.listResources(ctx, 'l'), [{ type: 'content', id: digest('a') }]);
      assert.deepEqual([...db.engine.scan('images')], []);
    });
    assert.equal((await db.images.get(ns1, 'a')).name, 'a');
  });
});

it('given a signal that has ended, then every operation rejects with its error and nothing is stored', async (t) => {
  const db = await testDB(t);
  for (const [name, operation] of all) {
    await t.test(name, async () => {
      await rejects(operation(db, { ...ns1, signal: AbortSignal.abort() }), 'Canceled');
      const late = AbortSignal.abort(new DOMException('late', 'TimeoutError'));
      await rejects(operation(db, { ...ns1, signal: late }), 'DeadlineExceeded');
    });
  }
  assert.deepEqual(await db.namespaces.list({}), []);
});
