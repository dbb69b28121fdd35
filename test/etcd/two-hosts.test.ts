/** Two hosts on one tree: what one makes the other sees, one of them collects, each sweeps its own backends. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { EbbtideError, kindOf } from '../../src/errors.js';
import { newBoltLeaseManager, newLeaseManager } from '../../src/factories.js';
import { importImage } from '../../src/images/import.js';
import { unpackImage } from '../../src/images/unpack.js';
import { layout } from '../../src/open.js';
import { withId } from '../../src/stores/leases.js';
import { Blobs, named, writeFiles } from '../images/fixtures.js';
import { tempDir } from '../support/db.js';
import { ctx, engineOf, eventually, openHost } from './hosts.js';
import { cluster } from './one-member.js';

const kind = (expected: string) => (error: unknown) => kindOf(error) === expected;
const digestA = `sha256:${'a'.repeat(64)}`;
const target = { digest: digestA, mediaType: 'm', size: 1 };

/** Keys that each host has for its own backends. */
const isOfBackends = /^meta\0(dirty|removed|foreign)/;

async function entries(dir: string): Promise<string[]> {
  return readdir(dir).catch(() => []);
}

test('given an image made on A, when it is used on B, deleted on A and collected by B, then nothing is left on either', async (t) => {
  const dir = await tempDir(t);
  const shared = join(dir, 'content');
  const source = join(dir, 'layout');
  const blobs = new Blobs();
  const { manifest } = await blobs.image([
    [{ name: 'base', text: 'b'.repeat(5000) }],
    [{ name: 'top', text: 't'.repeat(5000) }],
  ]);
  await writeFiles(source, blobs.layout([named(manifest, 'app:1')]));
  const etcd = cluster.config();
  const host = (name: string, snapshotter: 'native' | 'overlayfs') =>
    openHost(t, {
      root: join(dir, name),
      engine: 'lmdb',
      content: shared,
      snapshotters: [snapshotter],
      etcd: { ...etcd, hostId: name, backendId: 'shared' },
    });
  const a = await host('a', 'native');
  const b = await host('b', 'overlayfs');

  const [made] = await importImage(a, ctx, source);
  assert.ok(made);
  await unpackImage(a, ctx, made, 'native');
  const seen = await b.images.get(ctx, made.name);
  assert.deepEqual(seen, made);
  const { chainId } = await unpackImage(b, ctx, seen, 'overlayfs');
  await b.snapshotter('overlayfs')!.prepare(ctx, 'web', chainId);
  await b.containers.create(ctx, {
    id: 'web',
    image: made.name,
    runtime: { name: 'r' },
    spec: { typeUrl: 't', value: new Uint8Array() },
    snapshotter: 'overlayfs',
    snapshotKey: 'web',
  });

  // For hosts that share the file system.
  const stored = JSON.parse([...(await a.get('v1/ns1/snapshots/overlayfs/web')).values()][0]!);
  const mounts = await b.snapshotter('overlayfs')!.mounts(ctx, 'web');
  const directory = (name: string) =>
    mounts[0]?.options.find((option) => option.startsWith(name))?.slice(name.length);
  assert.ok(directory('upperdir='));
  assert.deepEqual([stored.upperdir, stored.lowerdir], [directory('upperdir='), directory('lowerdir=')]);

  const snapshotsOf = (name: string, snapshotter: string) =>
    entries(join(layout.snapshotter(join(dir, name), snapshotter), 'snapshots'));
  const files = () => entries(join(shared, 'blobs', 'sha256'));
  assert.equal((await files()).length, blobs.all.size);
  assert.equal((await snapshotsOf('a', 'native')).length, 2);
  assert.equal((await snapshotsOf('b', 'overlayfs')).length, 3);

  await a.images.delete(ctx, made.name);
  const first = await b.garbageCollect();
  assert.deepEqual(first.removed, { content: blobs.all.size, snapshot: 2 });
  // The container on B keeps its chain; what A made for the image is swept by A.
  assert.equal((await snapshotsOf('b', 'overlayfs')).length, 3);
  await eventually('A sweeps its snapshots', async () => (await snapshotsOf('a', 'native')).length === 0);
  await eventually('the shared blobs go', async () => (await files()).length === 0);

  await a.containers.delete(ctx, 'web');
  const second = await b.garbageCollect();
  assert.deepEqual(second.removed, { snapshot: 3 });
  assert.equal((await snapshotsOf('b', 'overlayfs')).length, 0);
  assert.deepEqual(a.engine.verifyGraph(), []);
  assert.deepEqual(b.engine.verifyGraph(), []);
});

test('[#264] given an image updated on A, when B asks, then it sees the update at once', async (t) => {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' } });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  await a.images.create(ctx, { name: 'x', target });
  for (let i = 0; i < 50; i++) {
    const [writer, reader] = i % 2 === 0 ? [a, b] : [b, a];
    await writer.images.update(ctx, { name: 'x', target, labels: { n: String(i) } }, 'labels');
    assert.equal((await reader.images.get(ctx, 'x')).labels?.n, String(i));
  }
  await a.images.delete(ctx, 'x');
  await assert.rejects(b.images.get(ctx, 'x'), kind('NotFound'));
  assert.deepEqual(await b.images.list(ctx), []);
});

test('given two hosts that create one name at once, when both are done, then one has won and the other gets an error', async (t) => {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' } });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  for (let i = 0; i < 20; i++) {
    const outcomes = await Promise.allSettled(
      [a, b].map((db) => db.images.create(ctx, { name: `n${i}`, target })),
    );
    const failed = outcomes.filter((outcome) => outcome.status === 'rejected');
    assert.equal(failed.length, 1);
    assert.ok(kind('AlreadyExists')(failed[0]?.reason), String(failed[0]?.reason));
  }
  for (let i = 0; i < 20; i++) {
    const outcomes = await Promise.allSettled([a, b].map((db) => db.images.delete(ctx, `n${i}`)));
    const failed = outcomes.filter((outcome) => outcome.status === 'rejected');
    assert.equal(failed.length, 1);
    assert.ok(kind('NotFound')(failed[0]?.reason), String(failed[0]?.reason));
  }
});

test('[#262] given a deletion on A, when it is done, then callbacks on B are called with one until a collection', async (t) => {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' } });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  const calls: boolean[] = [];
  b.registerMutationCallback((deleted) => calls.push(deleted));
  await a.images.create(ctx, { name: 'x', target });
  await b.images.create(ctx, { name: 'y', target });
  assert.deepEqual(calls, [false]);
  await a.images.delete(ctx, 'x');
  await eventually('B is called', () => calls.length === 2);
  assert.deepEqual(calls, [false, true]);
  await b.images.create(ctx, { name: 'z', target });
  assert.deepEqual(calls, [false, true, true]);
  await a.garbageCollect();
  await b.images.create(ctx, { name: 'zz', target });
  assert.deepEqual(calls, [false, true, true, false]);
});

test('[#260] given a host that may not collect, when it is asked to, then nothing is removed', async (t) => {
  const etcd = cluster.config();
  const b = await openHost(t, { etcd, enableEtcdGC: false });
  await b.leases.create(ctx, withId('old'), {
    labels: { 'containerd.io/gc.expire': '2001-01-01T00:00:00Z' },
  });
  assert.deepEqual((await b.garbageCollect()).removed, {});
  assert.equal((await b.leases.list(ctx)).length, 1);
  const plan = await b.planCollection();
  assert.equal(plan.objects.length, 1);
  await assert.rejects(b.applyPlan(plan), kind('FailedPrecondition'));
});

test('given a record in etcd that is none, when a host collects, then the key is named and nothing goes until it is repaired', async (t) => {
  const etcd = cluster.config();
  const db = await openHost(t, { etcd });
  const key = `${etcd.prefix}v1/ns1/images/foreign`;
  cluster.etcdctl('put', key, 'not ours');
  await db.leases.create(ctx, withId('old'), {
    labels: { 'containerd.io/gc.expire': '2001-01-01T00:00:00Z' },
  });
  await assert.rejects(
    db.garbageCollect(),
    (error) => error instanceof EbbtideError && error.remedy?.includes(`"${key}"`) === true,
  );
  cluster.etcdctl('del', key);
  await engineOf(db).confirm();
  assert.deepEqual((await db.garbageCollect()).removed, { lease: 1 });
});

test('[#261] given two hosts that collect at once, when both are done, then exactly one has done the work', async (t) => {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' } });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 30; i++) {
      await a.leases.create(ctx, withId(`l${i}`), {
        labels: { 'containerd.io/gc.expire': '2001-01-01T00:00:00Z' },
      });
    }
    const runs = await Promise.all([a.garbageCollect(), b.garbageCollect()]);
    const removed = runs.map((stats) => stats.removed.lease ?? 0).sort((x, y) => x - y);
    assert.deepEqual(removed, [0, 30]);
    assert.deepEqual(await b.leases.list(ctx), []);
  }
});

test('[#263] given a lease backend, when managers are made over etcd, then each knows its own leases only', async (t) => {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' }, leaseBackend: 'bolt' });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  const own = await newLeaseManager(a).create(ctx, withId('own'));
  const shared = await newLeaseManager(b).create(ctx, withId('shared'));
  assert.deepEqual(await newLeaseManager(a).list(ctx), [own]);
  assert.deepEqual(await a.leases.list(ctx), [own]);
  assert.deepEqual(await newBoltLeaseManager(b).list(ctx), []);
  assert.deepEqual(
    (await newLeaseManager(b).list(ctx)).map(({ id }) => id),
    ['own@a', 'shared'],
    'what another host keeps can be seen',
  );
  await assert.rejects(newLeaseManager(b).listResources(ctx, 'own'), kind('NotFound'));
  await assert.rejects(newLeaseManager(a).listResources(ctx, shared), kind('NotFound'));
  await assert.rejects(
    openHost(t, { etcd: { ...etcd, hostId: 'c' }, leaseBackend: 'nonsense' as 'bolt' }),
    kind('InvalidArgument'),
  );
});

test('given leases of one host only, when another host collects, then what they keep stays until they go', async (t) => {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' }, leaseBackend: 'bolt' });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  await a.leases.create(ctx, withId('own'));
  const held = { ...ctx, lease: 'own' };
  const native = a.snapshotter('native')!;
  await native.prepare(held, 'active', '');
  await native.prepare(ctx, 'loose', '');
  await assert.rejects(native.prepare({ ...ctx, lease: 'unknown' }, 'other', ''), kind('NotFound'));
  assert.deepEqual((await b.garbageCollect()).removed, { snapshot: 1 });
  assert.equal((await native.stat(ctx, 'active')).kind, 'active');
  assert.deepEqual(await a.leases.listResources(ctx, 'own'), [{ id: 'active', type: 'snapshots/native' }]);
  await a.update(async (tx) => {
    const inTx = a.withTransactionContext(ctx, tx);
    assert.equal((await a.leases.listResources(inTx, 'own')).length, 1);
  });
  await a.leases.delete(ctx, 'own');
  assert.deepEqual((await b.garbageCollect()).removed, { snapshot: 1 });
});

test('given a host that was away, when it comes back, then it goes on from where it was and sweeps what went', async (t) => {
  const dir = await tempDir(t);
  const etcd = cluster.config();
  const open = () => openHost(t, { root: join(dir, 'a'), engine: 'lmdb', etcd: { ...etcd, hostId: 'a' } });
  const a = await open();
  const native = a.snapshotter('native')!;
  await native.prepare(ctx, 'active', '');
  await native.commit(ctx, 'base', 'active', { labels: { 'containerd.io/gc.root': 'x' } });
  const snapshots = () => entries(join(layout.snapshotter(join(dir, 'a'), 'native'), 'snapshots'));
  assert.equal((await snapshots()).length, 1);
  await a.close();

  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  for (let i = 0; i < 20; i++) await b.images.create(ctx, { name: `i${i}`, target });
  await b.update((tx) => {
    const key = ['snapshots', 'ns1', 'native', 'base'].join('\0');
    tx.delete(key);
  });
  const again = await open();
  assert.equal((await again.images.list(ctx)).length, 20);
  assert.deepEqual(
    [...again.engine.scan('')].map(([key]) => key).filter((key) => !isOfBackends.test(key)),
    [...b.engine.scan('')].map(([key]) => key).filter((key) => !isOfBackends.test(key)),
  );
  await eventually('the directory goes', async () => (await snapshots()).length === 0);
});
