/** Each host sweeps its own backends, whichever host collects; and a tree that was lost in etcd takes no host's content with it. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import type { DB } from '../../src/db.js';
import { EtcdClient, type WatchStream } from '../../src/engine/etcd/client/client.js';
import { blobKey, metaKey } from '../../src/engine/schema/keys.js';
import { kindOf } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { layout } from '../../src/open.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { tempDir } from '../support/db.js';
import { mountedBelow } from '../support/mounted.js';
import { ctx, engineOf, eventually, openHost } from './hosts.js';
import { cluster } from './one-member.js';
import { LoopbackProxy } from './proxy.js';
import { Cluster } from './servers.js';

const blobs = async (root: string): Promise<number> =>
  (await readdir(join(layout.content(root), 'blobs', 'sha256')).catch(() => [])).length;
const snapshots = async (root: string): Promise<number> =>
  (await readdir(join(layout.snapshotter(root, 'native'), 'snapshots'))).length;

const digestOfBlob = (i: number): string => digestOf(Buffer.from(`blob ${i}`));

async function write(db: DB, from: number, to: number): Promise<void> {
  const labels = { 'containerd.io/gc.root': 'x' };
  for (let i = from; i < to; i++) {
    const data = Buffer.from(`blob ${i}`);
    const desc = { digest: digestOfBlob(i), size: data.length };
    await writeBlob(db.content, ctx, `ref ${i}`, data, desc, { labels });
  }
  await db.snapshotter('native')!.prepare(ctx, `active ${from}`, '', { labels });
}

const opened: DB[] = [];

/** A directory for roots of hosts, which are closed before it is removed. */
async function hostsDir(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'ebbtide-hosts-'));
  t.after(async () => {
    for (const db of opened.splice(0)) await db.close();
    await rm(dir, { recursive: true, force: true });
  });
  return dir;
}

interface Host {
  db: DB;
  root: string;
  logged: string[];
}

async function host(
  t: TestContext,
  root: string,
  etcd: Parameters<typeof openHost>[1]['etcd'],
  enableEtcdGC = true,
): Promise<Host> {
  const logged: string[] = [];
  const log = (level: string, message: string, details: object = {}): void => {
    if (level !== 'info') logged.push(`${message} ${JSON.stringify(details)}`);
  };
  const db = await openHost(t, { root, engine: 'lmdb', etcd, enableEtcdGC, log });
  opened.push(db);
  return { db, root, logged };
}

/** A host whose watch under way can be made to pass nothing on, not even its end. */
async function deafHost(
  t: TestContext,
  root: string,
  etcd: Parameters<typeof host>[2],
): Promise<Host & { hearsNothing(): void }> {
  let heard = new EventEmitter();
  const { watchStream } = EtcdClient.prototype;
  t.mock.method(EtcdClient.prototype, 'watchStream', async function (this: EtcdClient) {
    const stream: WatchStream = await watchStream.call(this);
    if (this.settings.hostId !== etcd.hostId) return stream;
    heard = new EventEmitter();
    for (const event of ['data', 'error', 'end'] as const) {
      const passed = heard;
      stream.on(event as 'data', (what) => passed.listenerCount(event) > 0 && passed.emit(event, what));
    }
    return Object.assign(heard, {
      write: (request: unknown) => stream.write(request as never),
      cancel: () => stream.cancel(),
    }) as never;
  });
  return {
    ...(await host(t, root, etcd)),
    hearsNothing: () => heard.removeAllListeners(),
  };
}

test('given a host that does not collect, when it deletes what it made, then it sweeps that by itself', async (t) => {
  const dir = await hostsDir(t);
  const etcd = cluster.config();
  const a = await host(t, join(dir, 'a'), { ...etcd, hostId: 'a' }, false);
  await write(a.db, 0, 3);
  await a.db.content.delete(ctx, digestOfBlob(0));
  await a.db.snapshotter('native')!.remove(ctx, 'active 0');
  await eventually('the blob goes', async () => (await blobs(a.root)) === 2);
  await eventually('the snapshot goes', async () => (await snapshots(a.root)) === 0);
  // The first one may have gone with what a start looks through.
  await a.db.content.delete(ctx, digestOfBlob(1));
  await eventually('the other blob goes', async () => (await blobs(a.root)) === 1);
});

test('given a host that never wins the right to collect, when it is asked to, then it sweeps its own backends', async (t) => {
  const dir = await hostsDir(t);
  const etcd = cluster.config();
  const a = await host(t, join(dir, 'a'), { ...etcd, hostId: 'a' });
  const b = await host(t, join(dir, 'b'), { ...etcd, hostId: 'b' });
  await write(a.db, 0, 3);
  const unlock = await engineOf(b.db).locks.tryLock('scheduler.v1');
  await a.db.content.delete(ctx, digestOfBlob(0));
  assert.deepEqual((await a.db.garbageCollect()).removed, {});
  assert.equal(await blobs(a.root), 2);
  await unlock();
});

test('given the tree wiped in etcd, when hosts see it, then their blobs and snapshots stay until there is consent', async (t) => {
  const dir = await hostsDir(t);
  const etcd = cluster.config();
  const a = await host(t, join(dir, 'a'), { ...etcd, hostId: 'a' });
  const b = await host(t, join(dir, 'b'), { ...etcd, hostId: 'b' }, false);
  await write(a.db, 0, 30);
  await write(b.db, 100, 105);
  const client = cluster.client(etcd.prefix);
  t.after(() => client.close());
  await client.txn([], [{ del: 'v1/', end: 'v10' }]);
  for (const { db, logged } of [a, b]) {
    await eventually('the host sees it', () => db.engine.stats().records < 10);
    await eventually('it says so', () => logged.some((line) => line.includes('until the orphans')));
  }
  await assert.rejects(a.db.garbageCollect(), (e) => kindOf(e) === 'FailedPrecondition');
  await assert.rejects(
    a.db.garbageCollect({}, { fullSweep: true }),
    /30 blobs of 30 items.*the store is empty/,
  );
  assert.deepEqual([await blobs(a.root), await snapshots(a.root)], [30, 1]);
  assert.deepEqual([await blobs(b.root), await snapshots(b.root)], [5, 1]);

  await a.db.close();
  const again = await host(t, a.root, { ...etcd, hostId: 'a' });
  assert.match(again.logged.join(), /knows nothing of items/);
  assert.equal(await blobs(a.root), 30);
  const { orphans } = await again.db.garbageCollect({}, { fullSweep: true, orphanGuard: false });
  assert.deepEqual(orphans, { content: 30, ingest: 0, snapshot: 1 });
});

test('given an etcd that is restored from a backup under a running host and one that is off, then both have the restored tree, and bytes stay', async (t) => {
  const dir = await hostsDir(t);
  const own = await Cluster.start();
  t.after(() => own.stop());
  const etcd = own.config();
  const a = await host(t, join(dir, 'a'), { ...etcd, hostId: 'a' });
  const b = await host(t, join(dir, 'b'), { ...etcd, hostId: 'b' });
  const deaf = await deafHost(t, join(dir, 'deaf'), { ...etcd, hostId: 'deaf' });
  await write(a.db, 0, 3);
  await write(b.db, 100, 103);
  await write(deaf.db, 200, 203);
  await a.db.namespaces.create({}, 'removed');
  const backup = join(dir, 'backup');
  own.etcdctl('snapshot', 'save', backup);
  // Acknowledged after the backup: a removal, and records whose bytes are few enough for the guard to take for leftovers.
  await a.db.namespaces.delete({}, 'removed');
  await write(a.db, 3, 5);
  await write(b.db, 103, 105);
  await write(deaf.db, 203, 205);
  const reached = engineOf(a.db).etcdRevision;
  await a.db.close();
  deaf.hearsNothing();
  await own.setBack(backup);
  const has = async (db: DB, i: number): Promise<boolean> =>
    db.content.info(ctx, digestOfBlob(i)).then(
      () => true,
      () => false,
    );
  // By its first question, before its watch says anything.
  assert.deepEqual(await Promise.all([202, 203].map((i) => has(deaf.db, i))), [true, false]);
  assert.match(deaf.logged.join(), /etcd was set back/);
  await eventually(
    'the running host has the restored tree',
    async () => (await has(b.db, 102)) && !(await has(b.db, 103)),
  );
  assert.match(b.logged.join(), /etcd was set back/);
  // The other one comes when etcd is beyond where that host was.
  await eventually('etcd goes on', async () => {
    await b.db.namespaces.create({}, `ns-${engineOf(b.db).etcdRevision}`);
    return engineOf(b.db).etcdRevision > reached + 10;
  });
  const again = await host(t, a.root, { ...etcd, hostId: 'a' });
  assert.match(again.logged.join(), /etcd was set back/);
  assert.deepEqual(await Promise.all([2, 3].map((i) => has(again.db, i))), [true, false]);
  assert.ok((await again.db.namespaces.list({})).includes('removed'));
  for (const { db } of [again, b, deaf])
    await assert.rejects(db.garbageCollect({}, { fullSweep: true }), /no record names .*set back/);
  assert.deepEqual([await blobs(a.root), await blobs(b.root), await blobs(deaf.root)], [5, 5, 5]);
  // With consent they go, and are trusted again.
  const { orphans } = await again.db.garbageCollect({}, { fullSweep: true, orphanGuard: false });
  assert.deepEqual([orphans.content, await blobs(a.root)], [2, 3]);
  await again.db.garbageCollect({}, { fullSweep: true });
});

test('given a host whose mirror is of another tree, when it starts, then bytes stay until there is consent, also if that start fails', async (t) => {
  const dir = await hostsDir(t);
  const root = join(dir, 'a');
  const before = await host(t, root, { ...cluster.config(), hostId: 'a' });
  await write(before.db, 0, 3);
  await before.db.close();
  const etcd = cluster.config();
  const other = await host(t, join(dir, 'b'), { ...etcd, hostId: 'b' });
  await other.db.namespaces.create({}, 'of-another-tree');
  const { range } = EtcdClient.prototype;
  const failing = t.mock.method(
    EtcdClient.prototype,
    'range',
    async function (this: EtcdClient, ...args: Parameters<EtcdClient['range']>) {
      if (this.settings.hostId === 'a' && args[1]?.revision !== undefined) throw new Error('not now');
      return range.apply(this, args);
    },
  );
  await assert.rejects(host(t, root, { ...etcd, hostId: 'a' }), /not now/);
  failing.mock.restore();
  for (const [start, says] of [
    ['first', /set back/],
    ['second', /knows nothing of items/],
  ] as const) {
    const { db, logged } = await host(t, root, { ...etcd, hostId: 'a' });
    assert.match(logged.join(), says, start);
    await assert.rejects(db.garbageCollect({}, { fullSweep: true }), /no record names 3 blobs/);
    await db.close();
  }
  assert.equal(await blobs(root), 3);
});

test('given the tree wiped in etcd while a host has a list to sweep, when it asks for names, then its blobs stay', async (t) => {
  const dir = await hostsDir(t);
  const etcd = cluster.config();
  const { db, root, logged } = await host(t, join(dir, 'b'), { ...etcd, hostId: 'b' }, false);
  const client = cluster.client(etcd.prefix);
  t.after(() => client.close());
  const { engine } = db;
  // What a start looks through is done.
  await db.garbageCollect();
  let isWritten!: () => void;
  const written = new Promise<void>((resolve) => {
    isWritten = resolve;
  });
  let wipes = 0;
  // Called by a sweep that has taken its list.
  t.mock.method(engine, 'foregroundDone', async () => {
    await written;
    if (wipes++ > 0) return;
    // Not even the records that go can be read.
    const get = t.mock.method(engine, 'get', () => {
      throw new Error('cannot be read');
    });
    await client.txn([], [{ del: 'v1/', end: 'v10' }]);
    await eventually('the host sees it', () => engine.stats().records < 5);
    get.mock.restore();
  });
  await write(db, 0, 5);
  // Another namespace's records of the same blobs go: the list has blobs that are named.
  const other = { namespace: 'ns2' };
  for (let i = 0; i < 5; i++) {
    const data = Buffer.from(`blob ${i}`);
    await writeBlob(db.content, other, `ref ${i}`, data, { digest: digestOfBlob(i), size: data.length });
  }
  for (let i = 0; i < 5; i++) await db.content.delete(other, digestOfBlob(i));
  isWritten();
  await eventually('it says so', () => logged.some((line) => line.includes('until the orphans')));
  assert.ok(wipes > 0);
  assert.ok(logged.some((line) => line.includes('records went that no host removed')));
  assert.deepEqual([await blobs(root), await snapshots(root)], [5, 1]);
});

test('given a removal on another host between the body and the commit that lowers the flag, when it is seen, then the bytes go', async (t) => {
  const dir = await hostsDir(t);
  const proxy = await LoopbackProxy.start(cluster.urls[0]!);
  t.after(() => proxy.close());
  const etcd = cluster.config();
  const a = await host(t, join(dir, 'a'), { ...etcd, hostId: 'a', hosts: [proxy.url] });
  const b = await host(t, join(dir, 'b'), { ...etcd, hostId: 'b' }, false);
  proxy.delay(30);
  await write(a.db, 0, 12);
  const { engine } = a.db;
  const flag = metaKey('dirty', 'content');
  const update = engine.update.bind(engine);
  let rounds = 0;
  t.mock.method(engine, 'update', (...[fn, options]: Parameters<typeof update>) =>
    update(async (tx) => {
      const before = tx.has(flag);
      const result = await fn(tx);
      if (!before || tx.has(flag) || rounds >= 6) return result;
      const digest = digestOfBlob(2 * rounds++ + 1);
      await b.db.content.delete(ctx, digest);
      await eventually('A sees it', () => !engine.has(blobKey(ctx.namespace, digest)));
      return result;
    }, options),
  );
  for (let i = 0; i < 6; i++) await a.db.content.delete(ctx, digestOfBlob(2 * i));
  // The sweep of what one round removed lowers the flag again, which is the next round.
  await eventually('six flags are lowered', async () => {
    await a.db.garbageCollect();
    return rounds === 6;
  });
  t.mock.reset();
  await eventually('all bytes go', async () => (await blobs(a.root)) === 0);
});

test('given hosts that share a content directory, when one sweeps a blob whose record is on its way on the other, then it stays', async (t) => {
  const dir = await hostsDir(t);
  const etcd = { ...cluster.config(), backendId: 'shared' };
  const content = join(dir, 'content');
  const open = async (hostId: string): Promise<DB> => {
    const db = await openHost(t, {
      root: join(dir, hostId),
      content,
      etcd: { ...etcd, hostId },
      snapshotters: [],
    });
    opened.push(db);
    return db;
  };
  const a = await open('a');
  const b = await open('b');
  await a.namespaces.create({}, ctx.namespace);
  const update = a.engine.update.bind(a.engine);
  let commit = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    commit = resolve;
  });
  const root = join(dir, 'a');
  t.mock.method(a.engine, 'update', async (...args: Parameters<typeof update>) => {
    // The record of a blob that has its name already.
    if ((await blobs(root)) === 1) await held;
    return update(...args);
  });
  const data = Buffer.from('blob 0');
  const labels = { 'containerd.io/gc.root': 'x' };
  const desc = { digest: digestOfBlob(0), size: data.length };
  const writing = writeBlob(a.content, ctx, 'ref', data, desc, { labels });
  await eventually('the blob has its name', async () => (await blobs(root)) === 1);
  const stats = await b.garbageCollect({}, { fullSweep: true });
  commit();
  await writing;
  assert.deepEqual([stats.walked, stats.orphans.content, await blobs(root)], [['content'], 0, 1]);
  assert.equal((await b.content.info(ctx, desc.digest)).size, data.length);
});

test('given a mount of one host, when another collects what kept it, then the first unmounts it; one that goes for good leaves none', async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip('needs root');
    return;
  }
  const dir = await tempDir(t);
  const etcd = cluster.config();
  const host = (name: string): Promise<DB> =>
    openHost(t, {
      root: join(dir, name),
      engine: 'lmdb',
      etcd: { ...etcd, hostId: name, sessionTtlSeconds: 5 },
    });
  const [a, b] = [await host('a'), await host('b')];
  const mounted = mountedBelow(t, dir);
  const mounts = [{ type: 'bind', source: dir, options: ['bind'] }];
  const labels = { 'containerd.io/gc.bref.container': 'web' };
  await a.containers.create(ctx, {
    id: 'web',
    runtime: { name: 'r' },
    spec: { typeUrl: 't', value: new Uint8Array() },
  });
  const { active } = await a.mounts.activate(ctx, 'web', mounts, { temporary: true, labels });
  const isNotHere = (error: unknown): boolean =>
    kindOf(error) === 'NotFound' && /host a/.test((error as Error).message);
  await assert.rejects(b.mounts.info(ctx, 'web'), isNotHere);
  await assert.rejects(b.mounts.deactivate(ctx, 'web'), isNotHere);
  await assert.rejects(
    b.mounts.activate(ctx, 'web', mounts, { temporary: true }),
    (error) => kindOf(error) === 'AlreadyExists',
  );
  assert.deepEqual([await b.mounts.list(ctx), (await a.mounts.list(ctx)).length], [[], 1]);
  await b.garbageCollect();
  assert.deepEqual(mounted(), [active[0]!.mountPoint]);
  await b.containers.delete(ctx, 'web');
  await b.garbageCollect();
  await eventually('unmounted by its own host', () => mounted().length === 0);
  assert.deepEqual(await a.mounts.list(ctx), []);

  await a.leases.create(ctx, { id: 'l' });
  await a.mounts.activate({ ...ctx, lease: 'l' }, 'web', mounts, { temporary: true });
  const [point = ''] = mounted();
  await a.close();
  await b.hosts!.remove('a');
  sys.umount(point, UmountFlag.detach);
  await b.mounts.activate(ctx, 'web', mounts, { temporary: true });
  await b.mounts.deactivate(ctx, 'web');
  assert.deepEqual(mounted(), []);
});
