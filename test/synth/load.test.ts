/** Loaded synthetic stores, seen through the stores and collected. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DB } from '../../src/db.js';
import type { Key, Value } from '../../src/engine/contract.js';
import { containerKey, imageKey, leaseKey } from '../../src/engine/schema/keys.js';
import { isKind } from '../../src/errors.js';
import { now } from '../../src/model/time.js';
import { loadSynth } from '../../src/synth/load.js';
import { type SynthRecord, synthRecords } from '../../src/synth/records.js';
import { type Counts, noRecords, planFor } from '../../src/synth/shape.js';
import { testDB } from '../support/db.js';

const kinds = ['images', 'blobs', 'snapshots', 'containers', 'ingests', 'leases'] as const;

function stored(db: DB): Counts {
  const counts = { ...noRecords };
  for (const kind of kinds) for (const _ of db.engine.scan(kind)) counts[kind]++;
  return counts;
}

const minus = (a: Counts, b: Counts): Counts => {
  const difference = { ...noRecords };
  for (const kind of kinds) difference[kind] = a[kind] - b[kind];
  return difference;
};

function first<K extends SynthRecord['kind']>(
  records: readonly SynthRecord[],
  kind: K,
): Extract<SynthRecord, { kind: K }> {
  for (const r of records) if (r.kind === kind) return r as Extract<SynthRecord, { kind: K }>;
  throw new Error(`no ${kind}`);
}

test('given a plan, when it is loaded, then the stores list what it says and the graph agrees', async (t) => {
  const db = await testDB(t);
  const plan = planFor(9000);
  const seen: number[] = [];
  assert.deepEqual(await loadSynth(db.engine, plan, { progress: (n) => seen.push(n) }), plan.counts);
  assert.deepEqual(stored(db), plan.counts);
  assert.ok(seen.length >= 3);
  const listed = { images: 0, blobs: 0, containers: 0, leases: 0 };
  for (const namespace of await db.namespaces.list({})) {
    const ctx = { namespace };
    listed.images += (await db.images.list(ctx)).length;
    listed.containers += (await db.containers.list(ctx)).length;
    listed.leases += (await db.leases.list(ctx)).length;
    await db.content.walk(ctx, () => {
      listed.blobs++;
    });
  }
  const { images, blobs, containers, leases } = plan.counts;
  assert.deepEqual(listed, { images, blobs, containers, leases });
  assert.deepEqual(db.engine.verifyGraph(), []);
  assert.equal(db.engine.graph.stats().edges, plan.edges);
});

test('given a loaded store, when it is collected, then exactly the planned garbage goes', async (t) => {
  const db = await testDB(t);
  const plan = planFor(5000);
  await loadSynth(db.engine, plan);
  await db.garbageCollect();
  assert.deepEqual(stored(db), minus(plan.counts, plan.garbage));
  await db.garbageCollect();
  assert.deepEqual(stored(db), minus(plan.counts, plan.garbage));
});

test('given loaded records, when the stores write the same, then keys and fields are equal', async (t) => {
  const db = await testDB(t);
  const plan = planFor(4000);
  const at = now();
  await loadSynth(db.engine, plan, { at });
  const records = [...synthRecords(plan)];
  const copies = await testDB(t);
  const compare = (k: Key): void => {
    assert.deepEqual(withoutTimes(db.engine.get(k)), withoutTimes(copies.engine.get(k)));
  };

  const image = first(records, 'image');
  const loaded = await db.images.get({ namespace: image.namespace }, image.name);
  await copies.images.create({ namespace: image.namespace }, loaded);
  compare(imageKey(image.namespace, image.name));

  const container = first(records, 'container');
  const ctx = { namespace: container.namespace };
  await copies.containers.create(ctx, await db.containers.get(ctx, container.id));
  compare(containerKey(container.namespace, container.id));

  const lease = first(records, 'lease');
  const leaseCtx = { namespace: lease.namespace };
  const held = await db.leases.listResources(leaseCtx, lease.id);
  assert.deepEqual(held, [
    { type: 'content', id: lease.content },
    { type: 'snapshots/overlayfs', id: lease.snapshot },
  ]);
  const [listedLease] = await db.leases.list(leaseCtx, `id==${lease.id}`);
  await copies.leases.create(leaseCtx, {
    id: lease.id,
    labels: { ...listedLease?.labels },
  });
  compare(leaseKey(lease.namespace, lease.id));

  const blob = first(records, 'blob');
  const info = await db.content.info({ namespace: blob.namespace }, blob.digest);
  assert.equal(info.size, blob.sizeBytes);
  assert.equal(info.createdAt, at - BigInt(blob.createdMsAgo) * 1_000_000n);
  assert.deepEqual(info.labels, blob.labels);
});

test('given a store with a namespace, when a plan is loaded, then it is refused untouched', async (t) => {
  const db = await testDB(t);
  await db.namespaces.create({}, 'default');
  await assert.rejects(loadSynth(db.engine, planFor(100)), (e) => isKind(e, 'FailedPrecondition'));
  assert.deepEqual(stored(db), noRecords);
});

test('given an aborted signal, when a plan is loaded, then it ends as canceled', async (t) => {
  const db = await testDB(t);
  const load = loadSynth(db.engine, planFor(100), { signal: AbortSignal.abort() });
  await assert.rejects(load, (e) => isKind(e, 'Canceled'));
});

/** Times differ between two writes of the same object; everything else must not. */
function withoutTimes(value: Value | undefined): object {
  assert.ok(value !== undefined && typeof value !== 'string');
  const { createdat, updatedat, ...rest } = value;
  assert.equal(typeof createdat, 'bigint');
  return { ...rest, times: updatedat === undefined ? 1 : 2 };
}
