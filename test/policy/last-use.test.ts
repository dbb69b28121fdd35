/** When images and snapshots were used last: what counts as a use, and how it is written. On real stores. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withSourceDateEpoch } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { containerKey, imageKey, snapshotKey } from '../../src/engine/schema/keys.js';
import { Label } from '../../src/model/labels.js';
import { formatSeconds, now, parseTimestamp } from '../../src/model/time.js';
import { ContainerStore } from '../../src/stores/containers.js';
import { LastUse } from '../../src/stores/last-use.js';
import { tempDir, testDB } from '../support/db.js';
import { digest, gc, world } from '../support/gc-world.js';
import { Host } from './host.js';

const namespace = 'one';
const ctx = { namespace };
const container = { runtime: { name: 'runc' }, spec: { typeUrl: '', value: Buffer.from('{}') } };
const LABEL = Label.gcCondUsedat;

const order = async (db: DB): Promise<string[]> =>
  (await db.planPolicy({ rules: [{}] })).retired.map(({ key }) => key);

async function fill(db: DB): Promise<Host> {
  const host = new Host(db, 1);
  for (const [n, name] of ['a:1', 'b:1', 'c:1'].entries()) {
    await host.image(namespace, name, await host.manifest(namespace, name, [n], true));
  }
  await host.unpacked();
  return host;
}

test('given images, when one is run or a snapshot is made on it, then it was used last, and looking at it is no use', async (t) => {
  const db = await testDB(t);
  await fill(db);
  assert.deepEqual(await order(db), ['a:1', 'b:1', 'c:1']);
  await db.snapshotter('native')?.view(ctx, 'look', 'chain-0');
  assert.deepEqual(await order(db), ['b:1', 'c:1', 'a:1']);
  await db.containers.create(ctx, { ...container, id: 'web', image: 'b:1' });
  await db.containers.delete(ctx, 'web');
  assert.deepEqual(await order(db), ['c:1', 'a:1', 'b:1']);
  await db.images.get(ctx, 'c:1');
  await db.images.list(ctx);
  await db.snapshotter('native')?.stat(ctx, 'chain-2');
  assert.deepEqual(await order(db), ['c:1', 'a:1', 'b:1']);
  await db.containers.create(ctx, { ...container, id: 'late' });
  await db.containers.update(ctx, { ...container, id: 'late', image: 'c:1' }, 'image');
  await db.containers.delete(ctx, 'late');
  assert.deepEqual(await order(db), ['a:1', 'b:1', 'c:1']);
});

test('given images with the times of a source date epoch, when they are made or changed, then that is a use all the same', async (t) => {
  const db = await testDB(t);
  const epoch = withSourceDateEpoch(ctx, 1_000_000_000n);
  const target = { digest: digest('a'), mediaType: 'm', size: 1 };
  for (const name of ['a:1', 'b:1', 'c:1']) await db.images.create(epoch, { name, target });
  assert.deepEqual(await order(db), ['a:1', 'b:1', 'c:1']);
  await db.images.update(epoch, { name: 'a:1', labels: { x: 'y' } }, 'labels.x');
  assert.deepEqual(await order(db), ['b:1', 'c:1', 'a:1']);
  const young = await db.planPolicy({ rules: [{ keepDuration: '1h' }] });
  assert.deepEqual(young.retired, []);
  assert.equal((await db.images.get(ctx, 'a:1')).updatedAt, 1_000_000_000n);
});

test('given a container that is being created, when others see it, then its image is noted as used', async (t) => {
  const w = await world(t);
  const store = new ContainerStore(w);
  const creating = store.create({ namespace: 'ns1' }, { ...container, id: 'web', image: 'b:1' });
  assert.deepEqual(
    [w.engine.has(containerKey('ns1', 'web')), w.lastUse.noted.has(imageKey('ns1', 'b:1'))],
    [true, true],
  );
  await creating;
});

for (const engine of ['memory', 'lmdb'] as const) {
  test(`given uses on ${engine}, when they are written, then they are labels by the second, and no update`, async (t) => {
    const heard: string[] = [];
    const publisher = { publish: async (_: string, topic: string) => void heard.push(topic) };
    const db = await testDB(t, { engine, publisher });
    await fill(db);
    let mutations = 0;
    db.registerMutationCallback(() => mutations++);
    const native = db.snapshotter('native');
    assert.ok(native);
    await native.prepare(ctx, 'rw', 'chain-0');
    await db.containers.create(ctx, { ...container, id: 'web', image: 'b:1' });
    const before = { image: await db.images.get(ctx, 'b:1'), snapshot: await native.stat(ctx, 'chain-0') };
    assert.equal(before.image.labels[LABEL], undefined);
    heard.length = 0;
    mutations = 0;
    const { lastUse } = db.host;
    assert.deepEqual([...lastUse.noted.keys()].sort(), [
      imageKey(namespace, 'b:1'),
      snapshotKey(namespace, 'native', 'chain-0'),
    ]);
    const times = [...lastUse.noted.values()].map(formatSeconds);
    await lastUse.write();
    assert.equal(lastUse.noted.size, 0);
    const image = await db.images.get(ctx, 'b:1');
    const snapshot = await native.stat(ctx, 'chain-0');
    assert.deepEqual([image.labels, snapshot.labels].map((labels) => labels[LABEL]).sort(), times.sort());
    assert.deepEqual([image.updatedAt, snapshot.updated], [before.image.updatedAt, before.snapshot.updated]);
    assert.deepEqual([heard, mutations], [[], 0]);
    assert.equal(db.engine.verifyGraph().length, 0);
    // A label that is later stays; another time within its second writes nothing.
    const later = formatSeconds(now() + 3_600_000_000_000n);
    await db.images.update(ctx, { name: 'b:1', labels: { [LABEL]: later } }, `labels.${LABEL}`);
    const { revision } = db.engine;
    lastUse.note(imageKey(namespace, 'b:1'));
    lastUse.note(imageKey(namespace, 'not there'));
    await lastUse.write();
    assert.equal((await db.images.get(ctx, 'b:1')).labels[LABEL], later);
    assert.deepEqual([db.engine.revision, lastUse.noted.size], [revision, 0]);
  });
}

test('given a store that is closed and opened, when a plan is made, then it knows what was used', async (t) => {
  const root = await tempDir(t);
  {
    const db = await testDB(t, { engine: 'lmdb', root });
    await fill(db);
    // In another second than what was made.
    while (formatSeconds(now()) === formatSeconds((await db.images.get(ctx, 'c:1')).createdAt)) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await db.snapshotter('native')?.prepare(ctx, 'rw', 'chain-0');
    await db.close();
  }
  const db = await testDB(t, { engine: 'lmdb', root });
  assert.deepEqual(await order(db), ['b:1', 'c:1', 'a:1']);
});

test('given a conditional reference, when the snapshot it names is used, then a collection keeps that', async (t) => {
  const db = await testDB(t);
  const host = new Host(db, 1);
  const native = db.snapshotter('native');
  assert.ok(native);
  for (const layer of [0, 1]) {
    await host.chain(namespace, [layer]);
    const config = await host.blob(namespace, `config ${layer}`, 100, {
      [gc('cond.snapshot.native')]: `usedat<1h|chain-${layer}`,
    });
    await host.image(namespace, `app:${layer}`, config);
  }
  await native.prepare(ctx, 'rw', 'chain-1');
  await native.remove(ctx, 'rw');
  await host.unpacked();
  await db.host.lastUse.write();
  await db.garbageCollect();
  await assert.rejects(native.stat(ctx, 'chain-0'));
  assert.ok(parseTimestamp((await native.stat(ctx, 'chain-1')).labels[LABEL] ?? ''));
});

test('given a time that has passed, when something was used, then it is written, and kept when that fails', async (t) => {
  const db = await testDB(t, { engine: 'lmdb' });
  await fill(db);
  const lastUse = new LastUse(db.engine, 10);
  lastUse.note(imageKey(namespace, 'a:1'));
  // The timer writes it.
  while (lastUse.noted.size > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok((await db.images.get(ctx, 'a:1')).labels[LABEL]);
  await db.close();
  lastUse.note(imageKey(namespace, 'b:1'));
  await lastUse.close();
  assert.equal(lastUse.noted.size, 1);
});

test('given a store that takes no writes, when ever more is used, then the oldest uses are forgotten', async (t) => {
  const w = await world(t);
  await w.engine.close();
  const lastUse = new LastUse(w.engine);
  const names = Array.from({ length: 140_000 }, (_, n) => imageKey('ns1', `image-${n}`));
  for (const name of names) lastUse.note(name);
  assert.equal(lastUse.noted.size, 131_072);
  assert.deepEqual([lastUse.noted.has(names[0]!), lastUse.noted.has(names.at(-1)!)], [false, true]);
  await lastUse.close();
});
