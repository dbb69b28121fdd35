/**
 * Opens stores that lost their power and reports what is wrong with them. A process of its own, because a damaged file
 * may end the process that maps it; one for many stores, because starting one takes longer than checking.
 *
 * Messages: `Request` in, `CheckResult` out, one at a time.
 */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { DB } from '../../src/db.js';
import { blobKey, snapshotKey } from '../../src/engine/schema/keys.js';
import { isNotFound } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { readBlob } from '../../src/stores/content/content-helpers.js';
import { orphanBlobs } from '../support/blobs.js';
import {
  type Expected,
  type ImagePlan,
  layerBytes,
  manifestBytes,
  namespaceOf,
  type PinPlan,
  storeIn,
} from './plan.js';

export interface Request {
  dir: string;
  expected: Expected;
}
export interface CheckResult {
  /** Nothing when all is well. */
  trouble?: string;
  /** Objects that were looked at. */
  objects: number;
}

async function found<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

async function versionOf(db: DB, plan: ImagePlan): Promise<number | undefined> {
  const image = await found(db.images.get({ namespace: namespaceOf(plan.writer) }, plan.name));
  return image === undefined ? undefined : Number(image.labels.version);
}

/** The parts of a pin that have a record: each has its bytes or its directory too. */
async function partsOf(db: DB, { name, writer }: PinPlan): Promise<number> {
  const ctx = { namespace: namespaceOf(writer) };
  let parts = 0;
  // The records themselves, since the stores report a record whose backend item is gone as missing.
  const digest = digestOf(manifestBytes(name));
  if (db.engine.has(blobKey(ctx.namespace, digest))) {
    assert.equal(digestOf(await readBlob(db.content, ctx, { digest })), digest, `bytes of ${digest}`);
    parts++;
  }
  if (db.engine.has(snapshotKey(ctx.namespace, 'native', name))) {
    const [mount] = await db.snapshotter('native')!.mounts(ctx, name);
    await readdir(mount!.source);
    parts++;
  }
  return parts;
}

/** Everything an image needs is there, byte for byte. Its container may be going. */
async function checkWhole(db: DB, plan: ImagePlan, container: boolean): Promise<number> {
  const ctx = { namespace: namespaceOf(plan.writer) };
  const blobs = [manifestBytes(plan.name), ...plan.layers.map(layerBytes)];
  for (const bytes of blobs) {
    const digest = digestOf(bytes);
    assert.equal((await db.content.info(ctx, digest)).size, bytes.length);
    assert.equal(digestOf(await readBlob(db.content, ctx, { digest })), digest, `bytes of ${digest}`);
  }
  const snapshots = db.snapshotter('native')!;
  assert.equal((await snapshots.stat(ctx, `snap-${plan.name}`)).kind, 'committed');
  if (container) {
    await db.containers.get(ctx, `c-${plan.name}`);
    const [mount] = await snapshots.mounts(ctx, `c-${plan.name}`);
    await readdir(mount!.source);
  }
  return blobs.length + (container ? 4 : 2);
}

async function checkAll(db: DB, { live, gone, open, raw }: Expected): Promise<number> {
  let objects = gone.length;
  assert.deepEqual(db.engine.verifyGraph(), [], 'the graph is the one derived from the labels');
  for (const plan of live) {
    if (plan.kind === 'pin') {
      assert.equal(await partsOf(db, plan), 2, `records of ${plan.name}`);
      objects += 2;
      continue;
    }
    assert.equal(await versionOf(db, plan), plan.version, `version of ${plan.name}`);
    objects += await checkWhole(db, plan, plan.container);
  }
  for (const plan of gone) {
    if (plan.kind === 'pin') assert.equal(await partsOf(db, plan), 0, `${plan.name} was deleted`);
    else assert.equal(await versionOf(db, plan), undefined, `${plan.name} was deleted`);
  }
  for (const { plan, before, op } of open) {
    if (plan.kind === 'pin') {
      objects += await partsOf(db, plan);
      continue;
    }
    const version = await versionOf(db, plan);
    const earlier = before?.kind === 'image' ? before.version : undefined;
    const allowed = [earlier, op === 'delete' ? undefined : plan.version];
    assert.ok(allowed.includes(version), `version ${version} of ${plan.name}, which was under way`);
    // A deletion takes the container first.
    if (version !== undefined) objects += await checkWhole(db, plan, plan.container && op === 'create');
  }
  for (const [key, least] of Object.entries(raw)) {
    const value = Number((await db.get(key)).get(key));
    assert.ok(value >= least, `raw key ${key} is ${value}, was ${least}`);
  }
  return objects;
}

/** After a full sweep every blob file is some namespace's, or expected by an upload that was cut short. */
async function checkOrphans(db: DB, dir: string): Promise<void> {
  const directory = join(layout.content(storeIn(dir)), 'blobs', 'sha256');
  assert.deepEqual(await orphanBlobs(db, ['even', 'odd'], directory), [], 'blob files without a record');
}

async function check({ dir, expected }: Request): Promise<number> {
  await using db = await openDB({ root: storeIn(dir), snapshotters: ['native'], log: () => {} });
  const objects = await checkAll(db, expected);
  await db.garbageCollect({}, { fullSweep: true });
  await checkAll(db, expected);
  await checkOrphans(db, dir);
  return objects;
}

process.on('message', (request: Request) => {
  const send = (message: CheckResult): void => {
    process.send?.(message);
  };
  check(request).then(
    (objects) => send({ objects }),
    (error: unknown) => {
      const trouble = error instanceof Error ? (error.stack ?? error.message) : String(error);
      send({ trouble, objects: 0 });
    },
  );
});
