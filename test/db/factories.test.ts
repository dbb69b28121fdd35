/** Makers of stores, process-wide defaults, options, and the raw keys and locks as a DB offers them. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import * as backend from '../../src/backend.js';
import * as ebbtide from '../../src/index.js';
import { tempDir, testDB } from '../support/db.js';

const {
  newBoltLeaseManager,
  newContainerStore,
  newDB,
  newImageStore,
  newLeaseManager,
  newNamespaceStore,
  newSandboxStore,
  newTransactor,
} = ebbtide;
const kind = (wanted: ebbtide.ErrorKind) => (error: unknown) => ebbtide.kindOf(error) === wanted;
const ctx = { namespace: 'ns1' };

afterEach(() => {
  ebbtide.setLeaseBackend('');
  ebbtide.setEnableEtcdGC(false);
});

test('given a DB, when stores are made on it, then they work on its records', async (t) => {
  const db = await testDB(t);
  const sandbox = await newSandboxStore(db).create(ctx, { id: 'box', runtime: { name: 'io.runtime' } });
  assert.equal((await db.sandboxes.get(ctx, 'box')).createdAt, sandbox.createdAt);
  await newContainerStore(db).create(ctx, {
    id: 'web',
    runtime: { name: 'io.runtime' },
    spec: { typeUrl: 'example/spec', value: new Uint8Array() },
  });
  assert.equal((await db.containers.get(ctx, 'web')).id, 'web');
  assert.deepEqual(await newImageStore(db).list(ctx), []);
  await newTransactor(db).put('k', 'v');
  assert.deepEqual(await db.get('k'), new Map([['k', 'v']]));
});

test('given a transaction, when a namespace store is made on it, then its calls join the transaction', async (t) => {
  const db = await testDB(t);
  await assert.rejects(
    db.update(async (tx) => {
      const namespaces = newNamespaceStore(db, tx);
      await namespaces.create({}, 'made', { a: '1' });
      assert.deepEqual(await namespaces.labels({}, 'made'), { a: '1' });
      throw new Error('on purpose');
    }),
    /on purpose/,
  );
  assert.deepEqual(await newNamespaceStore(db).list({}), []);
  await db.update((tx) => newNamespaceStore(db, tx).create({}, 'made'));
  assert.deepEqual(await newNamespaceStore(db).list({}), ['made']);
  await db.view(async (tx) => {
    await assert.rejects(newNamespaceStore(db, tx).delete({}, 'made'), kind('FailedPrecondition'));
  });
});

test('[#263] given a lease backend, when a manager is made, then only the embedded one is to be had', async (t) => {
  const db = await testDB(t);
  const lease = await newBoltLeaseManager(db).create(ctx, ebbtide.withId('one'));
  for (const name of ['', 'bolt']) {
    ebbtide.setLeaseBackend(name);
    assert.equal(ebbtide.LeaseBackend, name);
    assert.deepEqual(await newLeaseManager(db).list(ctx), [lease]);
  }
  ebbtide.setLeaseBackend('nonsense');
  assert.throws(() => newLeaseManager(db), kind('InvalidArgument'));
  ebbtide.setLeaseBackend('etcd');
  assert.throws(() => newLeaseManager(db), kind('FailedPrecondition'));
  assert.deepEqual(await newBoltLeaseManager(db).list(ctx), [lease], 'always the embedded one');
});

test('[#263] given a lease backend as option, when the DB is opened, then the option wins over the default', async (t) => {
  ebbtide.setLeaseBackend('nonsense');
  const db = await testDB(t, { leaseBackend: 'bolt' });
  assert.equal(db.leaseBackend, 'bolt');
  assert.deepEqual(await newLeaseManager(db).list(ctx), []);
  const root = await tempDir(t);
  await assert.rejects(testDB(t, { root }), kind('InvalidArgument'));
  await assert.rejects(testDB(t, { root, leaseBackend: 'etcd' }), kind('FailedPrecondition'));
});

test('given the etcd switch, when an embedded store collects, then it collects either way', async (t) => {
  const db = await testDB(t);
  assert.equal(db.enableEtcdGC, false);
  ebbtide.setEnableEtcdGC(true);
  assert.equal(ebbtide.EnableEtcdGC, true);
  assert.equal(db.enableEtcdGC, true);
  const off = await testDB(t, { enableEtcdGC: false });
  assert.equal(off.enableEtcdGC, false);
  await off.leases.create(
    ctx,
    ebbtide.withId('old'),
    ebbtide.withLabel(ebbtide.Label.gcExpire, '2001-01-01T00:00:00Z'),
  );
  assert.deepEqual((await off.garbageCollect()).removed, { lease: 1 });
});

test('given parts, when a DB is made of them, then it works, and without an engine it is refused', async (t) => {
  const root = await tempDir(t);
  const content = await backend.openContent(join(root, 'content'));
  const native = await backend.openNative(join(root, 'native'));
  await assert.rejects(newDB(undefined, undefined, content, { native }), kind('InvalidArgument'));
  const engine = await backend.openMemoryEngine({
    indexer: backend.metadataIndexer,
    graph: backend.createGraph('wasm'),
  });
  const published: string[] = [];
  const opts: ebbtide.DBOpt[] = [
    ebbtide.withPolicyIsolated,
    ebbtide.withLeaseBackend('bolt'),
    ebbtide.withEtcdGC(true),
    { durability: 'visible', log: () => {} },
    ebbtide.withEventsPublisher({
      publish: async (_namespace, topic) => {
        published.push(topic);
      },
    }),
  ];
  const db = await newDB(undefined, engine, content, { native }, ...opts);
  t.after(() => db.close());
  assert.equal(db.host.policy, 'isolated');
  assert.equal(db.host.durability, 'visible');
  assert.equal(db.leaseBackend, 'bolt');
  assert.equal(db.enableEtcdGC, true);
  assert.deepEqual([...db.snapshotters().keys()], ['native']);
  assert.equal(db.snapshotter('overlayfs'), undefined);
  await db.snapshotter('native')?.prepare(ctx, 'active', '');
  assert.deepEqual(published, ['/snapshot/prepare']);
});

test('given locks of a DB, when one is asked for without a name, then InvalidArgument', async (t) => {
  const db = await testDB(t);
  await assert.rejects(db.lock(''), kind('InvalidArgument'));
  await assert.rejects(db.rLock(''), kind('InvalidArgument'));
  await assert.rejects(db.tryLock(''), kind('InvalidArgument'));
  await db.eUpdate(async (transactor) => {
    await assert.rejects(transactor.lock(''), kind('InvalidArgument'));
  });
});

test('[#256] [#258] given a lock of a DB, when it is held, then others wait or are refused', async (t) => {
  const db = await testDB(t);
  const unlock = await db.lock('a');
  await assert.rejects(db.tryLock('a'), kind('Unavailable'));
  const late = new AbortController();
  const timedOut = assert.rejects(db.lock('a', { signal: late.signal }), kind('DeadlineExceeded'));
  late.abort(new DOMException('too late', 'TimeoutError'));
  await timedOut;
  const control = new AbortController();
  const canceled = assert.rejects(db.rLock('a', { signal: control.signal }), kind('Canceled'));
  control.abort();
  await canceled;
  await unlock();
  await assert.rejects(unlock(), kind('FailedPrecondition'));
  const shared = [await db.rLock('a'), await db.rLock('a')];
  for (const release of shared) await release();
});

test('[#256] given a lock taken inside a transaction, when that ends, then the lock is free', async (t) => {
  const db = await testDB(t);
  await db.eUpdate(async (transactor) => {
    await transactor.lock('a');
    await assert.rejects(db.tryLock('a'), kind('Unavailable'));
  });
  await (await db.tryLock('a'))();
});

test('[#265] given a transaction of 300 writes, when it fails or commits, then none or all are there', async (t) => {
  const root = await tempDir(t);
  const db = await testDB(t, { root, engine: 'lmdb' });
  const write = async (transactor: ebbtide.Transactor): Promise<void> => {
    for (let i = 0; i < 300; i++) await transactor.put(`key/${i}`, `${i}`);
  };
  await assert.rejects(
    db.eUpdate(async (transactor) => {
      await write(transactor);
      throw new Error('on purpose');
    }),
    /on purpose/,
  );
  assert.equal((await db.get('', { prefix: true })).size, 0);
  const sizes = new Set<number>();
  const writing = db.eUpdate(write).then(() => sizes.add(300));
  while (!sizes.has(300)) {
    sizes.add((await db.get('key/', { prefix: true })).size);
    await new Promise(setImmediate);
  }
  await writing;
  assert.deepEqual(
    [...sizes].sort((a, b) => a - b),
    [0, 300],
  );
  await db.close();
  const again = await testDB(t, { root, engine: 'lmdb' });
  assert.equal((await again.get('key/', { prefix: true })).size, 300);
});
