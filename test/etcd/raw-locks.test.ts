/** Raw keys, their transactions and locks across hosts, with the semantics of an etcd client. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { notFound } from '../../src/errors.js';
import { compareUtf8 } from '../../src/model/utf8.js';
import { ctx, engineOf, eventually, openHost } from './hosts.js';
import { cluster } from './one-member.js';
import { LoopbackProxy } from './proxy.js';

async function twoHosts(t: TestContext): Promise<[DB, DB]> {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' } });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  return [a, b];
}

const entries = (map: Map<string, string>): [string, string][] => [...map];
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function isPending(promise: Promise<unknown>): Promise<boolean> {
  return (await Promise.race([promise.then(() => 'done'), pause(150).then(() => 'pending')])) === 'pending';
}

test('[#251] [#252] given raw keys of one host, when another reads them, then it gets what was put, by key or prefix', async (t) => {
  const [a, b] = await twoHosts(t);
  assert.deepEqual(await b.get('missing'), new Map());
  await a.put('set/a', '1');
  await a.put('set/b', '');
  await a.put('setx/c', '3');
  assert.deepEqual(entries(await b.get('set/', { prefix: true })), [
    ['set/a', '1'],
    ['set/b', ''],
  ]);
  assert.deepEqual(entries(await b.get('set/b')), [['set/b', '']]);
  assert.equal((await b.get('set', { prefix: true })).size, 3);
  assert.deepEqual([...(await b.get('set/b', { fromKey: true })).keys()].slice(0, 2), ['set/b', 'setx/c']);
  assert.deepEqual([...(await b.get('set/a', { rangeEnd: 'setx' })).keys()], ['set/a', 'set/b']);
  assert.deepEqual([...(await b.get('set', { prefix: true, limit: 1 })).keys()], ['set/a']);
  const newest = { by: 'mod', order: 'desc' } as const;
  assert.deepEqual(
    [...(await b.get('set', { prefix: true, sort: newest })).keys()],
    ['setx/c', 'set/b', 'set/a'],
  );
  assert.deepEqual(entries(await b.get('set/a', { keysOnly: true })), [['set/a', '']]);
  assert.deepEqual(await b.get('set', { prefix: true, countOnly: true }), new Map());
  await assert.rejects(b.get(''), assertKind('InvalidArgument'));
  await assert.rejects(b.put('', 'v'), assertKind('InvalidArgument'));
  assert.equal(await b.del('set', { prefix: true }), 3);
  assert.equal(await a.del('set/a'), 0);
});

test('given the tree of records, when it is read by raw keys, then it is there as JSON; writing there is refused', async (t) => {
  const [a] = await twoHosts(t);
  const target = { digest: `sha256:${'a'.repeat(64)}`, mediaType: 'm', size: 3 };
  await a.images.create(ctx, { name: 'docker.io/library/x:1', target, labels: { l: '1' } });
  const found = await a.get('v1/ns1/images/', { prefix: true });
  assert.deepEqual([...found.keys()], ['v1/ns1/images/docker.io%2Flibrary%2Fx:1']);
  const record = JSON.parse([...found.values()][0]!);
  assert.deepEqual(record.target, { digest: target.digest, mediatype: 'm', size: 3 });
  assert.deepEqual(record.labels, { l: '1' });
  assert.match(record.createdat, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$/);
  assert.deepEqual(entries(await a.get('v1/version')), [['v1/version', '4']]);
  for (const key of ['v1/ns1/images/y', 'lock/x', 'sys/gate', 'scheduler.v1/dirty']) {
    await assert.rejects(a.put(key, 'v'), assertKind('InvalidArgument'), key);
  }
});

test('given a revision, when a raw key is read at it, then as it was then; compacted, FailedPrecondition', async (t) => {
  const [a] = await twoHosts(t);
  await a.put('k', 'old');
  const { revision } = await engineOf(a).client.range('k');
  await a.put('k', 'new');
  assert.deepEqual(entries(await a.get('k', { rev: revision })), [['k', 'old']]);
  await a.put('k', 'newer');
  cluster.etcdctl('compaction', String(revision + 1));
  await assert.rejects(a.get('k', { rev: revision }), assertKind('FailedPrecondition'));
  await assert.rejects(a.get('k', { rev: revision + 1_000_000 }), assertKind('FailedPrecondition'));
});

test('given an etcd lease, when a key is put with it, then it goes with it; an unknown one is NotFound', async (t) => {
  const [a, b] = await twoHosts(t);
  const { client } = engineOf(a);
  const lease = await client.grantLease(60);
  await a.put('bound', 'v', { lease });
  assert.equal((await b.get('bound')).get('bound'), 'v');
  await client.revokeLease(lease);
  assert.equal((await b.get('bound')).size, 0);
  await eventually('transactions see it, too', () =>
    b.eUpdate(async (tx) => (await tx.get('bound')).size === 0),
  );
  await assert.rejects(a.put('bound', 'v', { lease: '4711' }), assertKind('NotFound'));
});

test('[#253] given a transaction over raw keys and stores, when it fails or succeeds, then all or nothing is seen', async (t) => {
  const [a, b] = await twoHosts(t);
  await assert.rejects(
    a.eUpdate(async (tx) => {
      await tx.put('x', '1');
      throw notFound('on purpose');
    }),
    assertKind('NotFound'),
  );
  assert.equal((await b.get('x')).size, 0);
  await a.eUpdate(async (tx) => {
    await tx.put('x', '1');
    await tx.put('y', '2');
    assert.deepEqual(entries(await tx.get('x')), [['x', '1']]);
    assert.equal((await b.get('', { prefix: true })).has('x'), false);
  });
  assert.deepEqual([(await b.get('x')).get('x'), (await b.get('y')).get('y')], ['1', '2']);
});

test('[#255] given names with slashes, percents, blanks and emoji, when listed by another host, then exact and in order', async (t) => {
  const [a, b] = await twoHosts(t);
  const names = [
    'a/b',
    'a%2Fb',
    'a b',
    'a',
    'é',
    '\uff5e',
    '\u{1f600}',
    '%',
    '/x/',
    'a\u0001b',
    'a\u007fb',
    '..',
  ];
  const target = { digest: `sha256:${'a'.repeat(64)}`, mediaType: 'm', size: 3 };
  for (const name of names) await a.images.create(ctx, { name, target });
  assert.deepEqual(
    (await b.images.list(ctx)).map(({ name }) => name),
    [...names].sort(compareUtf8),
  );
  const loaded = await openHost(t, { etcd: { ...engineConfig(a), hostId: 'late' } });
  assert.deepEqual(
    (await loaded.images.list(ctx)).map(({ name }) => name),
    [...names].sort(compareUtf8),
  );
  for (const name of names) await b.images.delete(ctx, name);
  assert.deepEqual(await a.images.list(ctx), []);
});

const engineConfig = (db: DB) => {
  const { hosts, prefix } = engineOf(db).client.settings;
  return { hosts, prefix };
};

test('[#256] [#257] given a lock on one host, when another asks, then it waits; other names do not', async (t) => {
  const [a, b] = await twoHosts(t);
  const first = await a.rLock('a');
  const second = await b.rLock('a');
  await (await b.lock('a/b'))();
  const order: string[] = [];
  const enter = (name: string, lock: Promise<() => Promise<void>>) =>
    lock.then(async (unlock) => {
      order.push(name);
      await unlock();
    });
  const writer = enter('writer', b.lock('a'));
  assert.ok(await isPending(writer));
  const reader = enter('reader', a.rLock('a'));
  assert.ok(await isPending(reader));
  await first();
  assert.ok(await isPending(writer));
  await second();
  await Promise.all([writer, reader]);
  assert.deepEqual(order, ['writer', 'reader']);
});

test('[#258] given a name held on one host, when another tries, then Unavailable at once and nothing is left', async (t) => {
  const [a, b] = await twoHosts(t);
  const unlock = await a.lock('a');
  await assert.rejects(b.tryLock('a'), assertKind('Unavailable'));
  const { client } = engineOf(a);
  assert.equal((await client.range('lock/a/', { end: 'lock/a0' })).count, 1);
  const control = new AbortController();
  const waiting = b.lock('a', { signal: control.signal });
  assert.ok(await isPending(waiting.catch(() => undefined)));
  control.abort();
  await assert.rejects(waiting, assertKind('Canceled'));
  assert.equal((await client.range('lock/a/', { end: 'lock/a0' })).count, 1);
  await unlock();
  await (await b.tryLock('a'))();
  assert.equal((await client.range('lock/a/', { end: 'lock/a0' })).count, 0);
});

test('[#259] given a holder that loses its session, when the time is up, then the next proceeds and the old one gets an error', async (t) => {
  const proxy = await LoopbackProxy.start(cluster.members[0]!.url);
  const etcd = { ...cluster.config(), sessionTtlSeconds: 2 };
  const a = await openHost(t, {
    etcd: { ...etcd, hosts: proxy.url, hostId: 'a', requestTimeoutMs: 500, operationTimeoutMs: 20_000 },
  });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  t.after(() => proxy.close());
  const unlock = await a.lock('critical');
  let guarded: Promise<unknown> = Promise.resolve();
  let begun!: () => void;
  const isBegun = new Promise<void>((resolve) => {
    begun = resolve;
  });
  let goOn!: () => void;
  const isTold = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  guarded = a.eUpdate(async (tx) => {
    await tx.lock('guard');
    await tx.put('guarded', 'by a');
    begun();
    await isTold;
  });
  const outcome = assert.rejects(guarded, /session expired/);
  await isBegun;
  const next = b.lock('critical');
  proxy.cut();
  const taken = await next;
  await b.put('guarded', 'by b');
  proxy.heal();
  // Before that it could not even learn that its session is over.
  await eventually('a reaches etcd again', () =>
    engineOf(a)
      .client.range('guarded')
      .then(
        () => true,
        () => false,
      ),
  );
  goOn();
  await outcome;
  await eventually('a is back', () =>
    a.get('guarded').then(
      () => true,
      () => false,
    ),
  );
  await assert.rejects(unlock(), assertKind('FailedPrecondition'));
  assert.equal((await a.get('guarded')).get('guarded'), 'by b');
  await taken();
  await (await a.tryLock('critical'))();
});
