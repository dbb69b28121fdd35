/**
 * The process that the crash test kills: several writers make and delete images (blobs, snapshots, a container,
 * under a lease, as an import does) while collections run without pause. Every step is printed to standard output
 * as one JSON line before it starts (`begin`) and after it was acknowledged (`ack`), written synchronously, so
 * that the killer knows exactly what was promised.
 *
 * Usage: node workload.js ROOT SEED ROUND
 */
import { writeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { isAlreadyExists, isNotFound } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { openDB } from '../../src/open.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { withRandomId } from '../../src/stores/leases.js';
import { Random } from '../support/random.js';

export const WRITERS = 4;
/** Layers are taken from a small pool, so that writers share digests with garbage that is being collected. */
const LAYERS = 12;

export interface ImagePlan {
  name: string;
  manifest: string;
  layers: string[];
  /** Snapshot key of the top layer, and the container that runs on it, if any. */
  snapshot: string;
  container?: string;
}
export type Message =
  | { event: 'open' }
  | { event: 'begin' | 'ack'; writer: number; op: 'create' | 'delete'; plan: ImagePlan }
  | { event: 'collected'; removed: number };

/** In one piece, and before anything else happens; the reader may be slow. */
const report = (message: Message): void => {
  let rest = Buffer.from(`${JSON.stringify(message)}\n`);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
    }
  }
};

export function layerBytes(n: number): Buffer {
  return Buffer.alloc(2000 + n * 777, `layer ${n} `);
}

export function planImage(writer: number, round: number, n: number, random: Random): ImagePlan {
  const name = `img-${writer}-${round}-${n}`;
  const picks = [random.int(LAYERS), random.int(LAYERS)];
  return {
    name,
    manifest: digestOf(Buffer.from(`manifest of ${name}`)),
    layers: picks.map((p) => digestOf(layerBytes(p))),
    snapshot: `snap-${name}`,
    ...(random.chance(0.3) && { container: `c-${name}` }),
  };
}

export async function createImage(db: DB, base: CallContext, plan: ImagePlan): Promise<void> {
  const lease = await db.leases.create(base, withRandomId());
  const ctx = { ...base, lease: lease.id };
  for (const digest of plan.layers) {
    for (let n = 0; n < LAYERS; n++) {
      const data = layerBytes(n);
      if (digestOf(data) === digest) {
        await writeBlob(db.content, ctx, `layer-${plan.name}-${n}`, data, { digest, size: data.length });
        break;
      }
    }
  }
  const body = Buffer.from(`manifest of ${plan.name}`);
  const labels: Record<string, string> = { 'containerd.io/gc.ref.snapshot.native': plan.snapshot };
  plan.layers.forEach((digest, i) => {
    labels[`containerd.io/gc.ref.content.l.${i}`] = digest;
  });
  const snapshots = db.snapshotter('native')!;
  await snapshots.prepare(ctx, `prep-${plan.name}`, '');
  await snapshots.commit(ctx, plan.snapshot, `prep-${plan.name}`);
  await writeBlob(
    db.content,
    ctx,
    `manifest-${plan.name}`,
    body,
    { digest: plan.manifest, size: body.length },
    { labels },
  );
  const target = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: plan.manifest,
    size: body.length,
  };
  if (plan.container !== undefined) {
    await snapshots.prepare(ctx, plan.container, plan.snapshot);
    await db.containers.create(ctx, {
      id: plan.container,
      image: plan.name,
      runtime: { name: 'io.containerd.runc.v2' },
      spec: { typeUrl: 'spec', value: new Uint8Array([1, 2, 3]) },
      snapshotter: 'native',
      snapshotKey: plan.container,
    });
  }
  await db.images.create(ctx, { name: plan.name, target });
  await db.leases.delete(base, lease);
}

export async function deleteImage(db: DB, ctx: CallContext, plan: ImagePlan): Promise<void> {
  if (plan.container !== undefined) await db.containers.delete(ctx, plan.container);
  await db.images.delete(ctx, plan.name);
}

async function writer(db: DB, id: number, round: number, seed: number): Promise<void> {
  const random = new Random(seed * 31 + round * 7 + id);
  const ctx: CallContext = { namespace: id % 2 === 0 ? 'even' : 'odd' };
  const live: ImagePlan[] = [];
  for (let n = 0; ; n++) {
    if (live.length > 0 && random.chance(0.45)) {
      const [plan] = live.splice(random.int(live.length), 1);
      report({ event: 'begin', writer: id, op: 'delete', plan: plan! });
      await deleteImage(db, ctx, plan!);
      report({ event: 'ack', writer: id, op: 'delete', plan: plan! });
    } else {
      const plan = planImage(id, round, n, random);
      report({ event: 'begin', writer: id, op: 'create', plan });
      await createImage(db, ctx, plan);
      report({ event: 'ack', writer: id, op: 'create', plan });
      live.push(plan);
    }
  }
}

async function collector(db: DB): Promise<void> {
  for (;;) {
    const stats = await db.garbageCollect();
    report({ event: 'collected', removed: Object.values(stats.removed).reduce((a, b) => a + b, 0) });
    await setImmediate();
  }
}

export async function main(root: string, seed: number, round: number): Promise<void> {
  const db = await openDB({ root, snapshotters: ['native'] });
  report({ event: 'open' });
  const writers = Array.from({ length: WRITERS }, (_, id) => writer(db, id, round, seed));
  await Promise.all([collector(db), ...writers]);
}

if (process.argv[2] !== undefined && process.argv[1]?.endsWith('workload.js')) {
  main(process.argv[2], Number(process.argv[3]), Number(process.argv[4])).catch((error: unknown) => {
    if (isNotFound(error) || isAlreadyExists(error)) console.error('a writer lost something that it kept:');
    console.error(error);
    process.exit(70);
  });
}
