/**
 * What writers do in a schedule: one random operation at a time through the public stores, alone or several in one
 * transaction. Errors that come from another writer's work (not found, exists already, in use, …) are the normal course.
 */
import type { CallContext } from '../../src/context.js';
import { canceled, EbbtideError, type ErrorKind, isKind } from '../../src/errors.js';
import type { Random } from '../support/random.js';
import * as names from './names.js';
import type { ScheduledWorld } from './world.js';

const expectedKinds: readonly ErrorKind[] = [
  'NotFound',
  'AlreadyExists',
  'FailedPrecondition',
  'InvalidArgument',
  'Unavailable',
  'Canceled',
];

/** Errors of operations that met another writer, and of backends that failed by order. */
function isExpected(error: unknown): boolean {
  if (!(error instanceof EbbtideError)) return false;
  return expectedKinds.includes(error.kind) || error.message.includes('the disk says no');
}

const spec = { typeUrl: 't', value: new Uint8Array() };
const runtime = { name: 'r' };

type Operation = (world: ScheduledWorld, ctx: CallContext) => Promise<unknown>;

const snapshotterOf = (world: ScheduledWorld) => {
  const store = world.host.snapshotterStores.get(world.random.pick(names.snapshotters));
  if (store === undefined) throw new Error('a snapshotter is missing');
  return store;
};

function imageInput(random: Random) {
  return {
    name: random.pick(names.images),
    target: { digest: random.pick(names.digests), mediaType: 'application/x', size: 1 },
    labels: { ...names.labels(random, 1), ...names.expiry(random) },
  };
}

function leaseResource(random: Random): { id: string; type: string } {
  switch (random.int(5)) {
    case 0:
      return { id: random.pick(names.images), type: 'images' };
    case 1:
      return { id: random.pick(names.refs), type: 'ingests' };
    case 2:
    case 3:
      return { id: random.pick(names.digests), type: 'content' };
    default:
      return { id: random.pick(names.snapshots), type: `snapshots/${random.pick(names.snapshotters)}` };
  }
}

const updateLabels: Operation = ({ host, random }, ctx) =>
  host.contentStore.update(
    ctx,
    { digest: random.pick(names.digests), labels: names.labels(random, 3) },
    ...random.pick([[], ['labels']]),
  );

/** Opens a ref, sends a text and commits it, or leaves the ingest where it is. */
const writeContent: Operation = async ({ host, random, scheduler }, ctx) => {
  const digest = random.pick(names.digests);
  const bytes = Buffer.from(names.textOf(digest));
  const descriptor = random.chance(0.6) ? { digest, size: bytes.length } : {};
  const writer = await host.contentStore.writer(ctx, random.pick(names.refs), descriptor);
  try {
    await scheduler.step('writer has opened an ingest');
    const { offset, expected } = await writer.status();
    if (expected === undefined) {
      if (offset > 0) await writer.truncate(0);
      await writer.write(bytes);
    } else if (random.chance(0.1)) await writer.truncate(0);
    await scheduler.step('writer has sent its bytes');
    if (random.chance(0.75)) await writer.commit(0, digest, { labels: names.labels(random, 2) });
  } finally {
    await writer.close();
  }
};

const makeSnapshot: Operation = (world, ctx) => {
  const { random } = world;
  const parent = random.chance(0.7) ? random.pick(names.snapshots) : '';
  const how = random.chance(0.8) ? 'prepare' : 'view';
  return snapshotterOf(world)[how](ctx, random.pick(names.snapshots), parent, {
    labels: names.labels(random, 1),
  });
};

/** The usual life of a layer: prepared under a working key, then committed. */
const buildSnapshot: Operation = async (world, ctx) => {
  const { random } = world;
  const store = snapshotterOf(world);
  const parent = random.chance(0.7) ? random.pick(names.snapshots) : '';
  const key = `work${world.scheduler.count}`;
  await store.prepare(ctx, key, parent);
  await world.scheduler.step('writer unpacks a layer');
  await store.commit(ctx, random.pick(names.snapshots), key, { labels: names.labels(random, 1) });
};

/** As a puller does: a lease first, then everything under it. */
const pull: Operation = async (world, ctx) => {
  const { random, leases } = world;
  const id = random.pick(names.leases);
  await leases.create(ctx, { id, ...(random.chance(0.3) && { labels: names.flat }) });
  const leased = { ...ctx, lease: id };
  await world.scheduler.step('writer has its lease');
  await attempt(() => writeContent(world, leased));
  await attempt(() => buildSnapshot(world, leased));
  await attempt(() => world.images.create(leased, imageInput(random)));
  if (random.chance(0.7)) await leases.delete(ctx, id);
};

const updateImage: Operation = ({ images, random }, ctx) => {
  const input = imageInput(random);
  const path = random.pick([[], ['labels'], ['labels.containerd.io/gc.expire'], ['target']]);
  return images.update(ctx, input, ...path);
};

const createLease: Operation = ({ leases, random }, ctx) =>
  leases.create(ctx, {
    id: random.pick(names.leases),
    labels: { ...names.expiry(random), ...(random.chance(0.3) && names.flat) },
  });

const createContainer: Operation = ({ containers, random }, ctx) =>
  containers.create(ctx, {
    id: random.pick(names.containers),
    runtime,
    spec,
    snapshotter: random.pick(names.snapshotters),
    snapshotKey: random.pick(names.snapshots),
    labels: names.labels(random, 1),
  });

const updateContainer: Operation = ({ containers, random }, ctx) => {
  const update = { id: random.pick(names.containers), labels: names.labels(random, 2) };
  return random.chance(0.5)
    ? containers.update(ctx, update, 'labels')
    : containers.update(ctx, { ...update, snapshotKey: random.pick(names.snapshots) }, 'snapshotkey');
};

const registerStream: Operation = async (world, ctx) => {
  const lease = world.random.chance(0.7) ? world.random.pick(names.leases) : undefined;
  if (world.host.collectors.size > 0)
    world.addStream(ctx.namespace ?? 'ns1', `t-${world.scheduler.count}`, lease);
};

const removeImage: Operation = ({ images, random }, ctx) => images.delete(ctx, random.pick(names.images));
const removeContent: Operation = ({ host, random }, ctx) =>
  host.contentStore.delete(ctx, random.pick(names.digests));
const removeSnapshot: Operation = (world, ctx) =>
  snapshotterOf(world).remove(ctx, world.random.pick(names.snapshots));
const removeLease: Operation = ({ leases, random }, ctx) => leases.delete(ctx, random.pick(names.leases));

/** Each with how often it is drawn. */
const operations: readonly (readonly [number, Operation])[] = [
  [3, ({ images, random }, ctx) => images.create(ctx, imageInput(random))],
  [4, updateImage],
  [2, removeImage],
  [6, updateLabels],
  [2, removeContent],
  [5, writeContent],
  [1, ({ host, random }, ctx) => host.contentStore.abort(ctx, random.pick(names.refs))],
  [3, makeSnapshot],
  [2, buildSnapshot],
  [
    3,
    (world, ctx) =>
      snapshotterOf(world).commit(
        ctx,
        world.random.pick(names.snapshots),
        world.random.pick(names.snapshots),
      ),
  ],
  [2, removeSnapshot],
  [
    3,
    (world, ctx) =>
      snapshotterOf(world).update(ctx, {
        name: world.random.pick(names.snapshots),
        labels: names.labels(world.random, 2),
      }),
  ],
  [3, createLease],
  [1, removeLease],
  [5, ({ leases, random }, ctx) => leases.addResource(ctx, random.pick(names.leases), leaseResource(random))],
  [
    1,
    ({ leases, random }, ctx) => leases.deleteResource(ctx, random.pick(names.leases), leaseResource(random)),
  ],
  [2, createContainer],
  [2, updateContainer],
  [1, ({ containers, random }, ctx) => containers.delete(ctx, random.pick(names.containers))],
  [
    1,
    ({ sandboxes, random }, ctx) =>
      sandboxes.create(ctx, { id: random.pick(names.sandboxes), runtime, labels: names.labels(random, 2) }),
  ],
  [1, ({ sandboxes, random }, ctx) => sandboxes.delete(ctx, random.pick(names.sandboxes))],
  [1, registerStream],
  [2, pull],
];
const total = operations.reduce((sum, [weight]) => sum + weight, 0);

function operation(random: Random): Operation {
  let at = random.int(total);
  for (const [weight, op] of operations) {
    at -= weight;
    if (at < 0) return op;
  }
  throw new Error('weights do not add up');
}

/** Returns the error that was met. */
async function attempt(fn: () => Promise<unknown>): Promise<unknown> {
  try {
    await fn();
    return undefined;
  } catch (error) {
    if (!isExpected(error)) throw error;
    return error;
  }
}

function context(random: Random): CallContext {
  const namespace = random.chance(0.8) ? 'ns1' : 'ns2';
  return random.chance(0.25) ? { namespace, lease: random.pick(names.leases) } : { namespace };
}

/** Several operations that count together or not at all. */
async function transaction(world: ScheduledWorld, ctx: CallContext): Promise<void> {
  const { host, random, scheduler } = world;
  const length = 1 + random.int(3);
  await host.update({ signal: ctx.signal }, async (tx) => {
    for (let i = 0; i < length; i++) {
      await operation(random)(world, { ...ctx, tx });
      await scheduler.step('writer goes on in its transaction');
    }
  });
}

/** A client that may end its call at any time: every wait of the call goes on when it does. */
function cancelled(world: ScheduledWorld, ctx: CallContext): CallContext {
  const { random, scheduler } = world;
  if (random.chance(0.7)) return ctx;
  const ending = new AbortController();
  void scheduler.step('client cancels').then(() => ending.abort(canceled('the client is gone')));
  return { ...ctx, signal: ending.signal };
}

/** A writer's life: `length` operations, a step before each. */
export async function write(world: ScheduledWorld, length: number, cancels: boolean): Promise<void> {
  const { random, scheduler, marks } = world;
  for (let i = 0; i < length; i++) {
    await scheduler.step('writer begins');
    const together = random.chance(0.2);
    const ctx = cancels ? cancelled(world, context(random)) : context(random);
    const met = await attempt(() => (together ? transaction(world, ctx) : operation(random)(world, ctx)));
    if (isKind(met, 'Canceled')) marks.add('client cancelled in the middle');
  }
}

/** The life of a client that only removes: none of its calls leaves anything in a backend that only a walk finds. */
export async function removeThings(world: ScheduledWorld, length: number): Promise<void> {
  const { random, scheduler } = world;
  for (let i = 0; i < length; i++) {
    await scheduler.step('writer begins');
    const remove = random.pick([removeImage, removeContent, removeSnapshot, removeSnapshot, removeLease]);
    await attempt(() => remove(world, context(random)));
  }
}
