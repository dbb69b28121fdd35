/**
 * The process whose disk loses its power: writers make, change and delete images (blobs, snapshots, containers, under
 * a lease) while collections run, over several openings of one store. What begins and what was acknowledged is reported
 * by marks, which the recorder puts into its log in order with the calls to the disk.
 *
 * Usage: node workload.js ROOT MARKFILE SEED OPERATIONS
 */
import { openSync, writeSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { digestOf } from '../../src/model/digest.js';
import { openDB } from '../../src/open.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { withRandomId } from '../../src/stores/leases.js';
import { Random } from '../support/random.js';
import {
  type ImagePlan,
  layerBytes,
  type Mark,
  manifestBytes,
  namespaceOf,
  type PinPlan,
  type Plan,
  planImage,
  SESSIONS,
  storeIn,
  WRITERS,
} from './plan.js';

let marks = -1;
const report = (mark: Mark): void => {
  writeSync(marks, JSON.stringify(mark));
};

async function createImage(db: DB, base: CallContext, plan: ImagePlan): Promise<void> {
  const lease = await db.leases.create(base, withRandomId());
  const ctx = { ...base, lease: lease.id };
  const labels: Record<string, string> = { 'containerd.io/gc.ref.snapshot.native': `snap-${plan.name}` };
  for (const [i, n] of plan.layers.entries()) {
    const data = layerBytes(n);
    const digest = digestOf(data);
    await writeBlob(db.content, ctx, `layer-${plan.name}-${i}`, data, { digest, size: data.length });
    labels[`containerd.io/gc.ref.content.l.${i}`] = digest;
  }
  const snapshots = db.snapshotter('native')!;
  await snapshots.prepare(ctx, `prep-${plan.name}`, '');
  await snapshots.commit(ctx, `snap-${plan.name}`, `prep-${plan.name}`);
  const body = manifestBytes(plan.name);
  const target = { mediaType: 'application/x', digest: digestOf(body), size: body.length };
  await writeBlob(db.content, ctx, `manifest-${plan.name}`, body, target, { labels });
  if (plan.container) {
    const id = `c-${plan.name}`;
    await snapshots.prepare(ctx, id, `snap-${plan.name}`);
    const spec = { typeUrl: 'spec', value: new Uint8Array([1, 2, 3]) };
    const runtime = { name: 'io.containerd.runc.v2' };
    const made = { id, image: plan.name, runtime, spec, snapshotter: 'native', snapshotKey: id };
    await db.containers.create(ctx, made);
  }
  await db.images.create(ctx, { name: plan.name, target, labels: { version: String(plan.version) } });
  await db.leases.delete(base, lease);
}

async function createPin(db: DB, base: CallContext, { name }: PinPlan): Promise<void> {
  const lease = await db.leases.create(base, withRandomId());
  const ctx = { ...base, lease: lease.id };
  const data = manifestBytes(name);
  const labels = { 'containerd.io/gc.root': 'x' };
  const desc = { digest: digestOf(data), size: data.length };
  await writeBlob(db.content, ctx, name, data, desc, { labels });
  await db.snapshotter('native')!.prepare(ctx, name, '', { labels });
  await db.leases.delete(base, lease);
}

async function recorded(op: 'create' | 'delete', plan: Plan, work: () => Promise<void>): Promise<void> {
  report({ event: 'begin', op, plan });
  await work();
  report({ event: 'ack', op, plan });
}

/** What one writer has made and not yet removed. */
interface Own {
  live: ImagePlan[];
  pins: PinPlan[];
}

async function writer(db: DB, id: number, session: number, operations: number, own: Own, random: Random) {
  const { live, pins } = own;
  const ctx: CallContext = { namespace: namespaceOf(id) };
  for (let n = 0; n < operations; n++) {
    const choice = live.length < 2 ? 0 : random.next();
    if (choice < 0.45) {
      const plan = planImage(id, session, n, random);
      await recorded('create', plan, () => createImage(db, ctx, plan));
      live.push(plan);
    } else if (choice < 0.8) {
      const [plan] = live.splice(random.int(live.length), 1);
      await recorded('delete', plan!, async () => {
        if (plan!.container) await db.containers.delete(ctx, `c-${plan!.name}`);
        await db.images.delete(ctx, plan!.name);
      });
    } else {
      const at = random.int(live.length);
      const plan = { ...live[at]!, version: live[at]!.version + 1 };
      live[at] = plan;
      await recorded('create', plan, async () => {
        const image = await db.images.get(ctx, plan.name);
        await db.images.update(
          ctx,
          { ...image, labels: { version: String(plan.version) } },
          'labels.version',
        );
      });
    }
    if (random.chance(0.5)) {
      const plan: PinPlan = { kind: 'pin', name: `pin-${id}-${session}-${n}`, writer: id };
      await recorded('create', plan, () => createPin(db, ctx, plan));
      pins.push(plan);
    }
    if (pins.length > 1 && random.chance(0.5)) {
      const [plan] = pins.splice(random.int(pins.length), 1);
      await recorded('delete', plan!, async () => {
        await db.content.delete(ctx, digestOf(manifestBytes(plan!.name)));
        await db.snapshotter('native')!.remove(ctx, plan!.name);
      });
    }
    const value = session * operations + n + 1;
    await db.put(`count-${id}`, String(value));
    report({ event: 'put', key: `count-${id}`, value });
  }
}

async function main(root: string, markFile: string, seed: number, operations: number): Promise<void> {
  marks = openSync(markFile, 'w');
  const owned = Array.from({ length: WRITERS }, (): Own => ({ live: [], pins: [] }));
  for (let session = 0; session < SESSIONS; session++) {
    const db = await openDB({ root: storeIn(root), snapshotters: ['native'] });
    report({ event: 'open' });
    let writing = true;
    const random = (id: number) => new Random(seed * 31 + session * 7 + id);
    const writers = owned.map((own, id) => writer(db, id, session, operations, own, random(id)));
    const collector = (async () => {
      while (writing) {
        const stats = await db.garbageCollect();
        report({ event: 'collected', removed: Object.values(stats.removed).reduce((a, b) => a + b, 0) });
        await setTimeout(3);
      }
    })();
    await Promise.all(writers).finally(() => {
      writing = false;
    });
    await collector;
    await db.close();
    report({ event: 'closed' });
  }
}

const [, , root = '', markFile = '', seed, operations] = process.argv;
main(root, markFile, Number(seed), Number(operations)).catch((error: unknown) => {
  console.error(error);
  process.exit(70);
});
