/**
 * Prepare and View. Called by the snapshot store.
 *
 * Outside a transaction of the caller's there are two short ones with the backend call between them, so that a
 * backend that copies for minutes holds up nobody. In one of the caller's both parts are in it, and the backend
 * snapshot is made once however often it runs.
 */
import type { Mount } from '../backends/contract.js';
import type { Transaction } from '../engine/contract.js';
import { snapshotKey } from '../engine/schema/keys.js';
import { type EbbtideError, isAlreadyExists, OutcomeUnknown, unknownError } from '../errors.js';
import { compactMap, inheritedSnapshotLabels, Label, labelOf } from '../model/labels.js';
import { now } from '../model/time.js';
import { snapshotGuard } from './guards.js';
import { Holds, keptOverAttempts } from './holds.js';
import { addToLease, requireContextLease } from './lease-context.js';
import {
  type CreateRequest,
  discard,
  ensureSnapshotter,
  findSnapshot,
  type Made,
  nextBackendName,
  overlayDirs,
  putSnapshot,
  recordOf,
  requireParent,
  requireSnapshot,
  type SnapshotCall,
  snapshotExists,
} from './snapshot-records.js';
import { adoptRemote } from './snapshots-remote.js';

/** What a look at the records says: a key that is there already, or where the backend has the parent. */
type Plan = { existing: string } | { existing?: undefined; parentName: string };

/**
 * Names that turned out to be taken in the backend, by what a deleted namespace of the same name left to be
 * swept, before it is believed that the backend is out of order.
 */
const NAME_ATTEMPTS = 3;

/** The key a remote snapshotter may already have the content under; '' when the caller gave none. */
const targetOf = (request: CreateRequest): string => labelOf(request.labels, Label.snapshotRef) ?? '';

/**
 * `alone` runs a function while no other call of this process makes or removes a record of that key. It is not
 * used in a transaction of the caller's, which must not wait for what may be waiting for it.
 */
export async function createSnapshot(
  call: SnapshotCall,
  request: CreateRequest,
  alone: <T>(key: string, fn: () => Promise<T>) => Promise<T>,
): Promise<Mount[]> {
  const holds = new Holds(call.host, call.ctx);
  try {
    const made = await alone(request.key, () =>
      call.ctx.tx === undefined ? createApart(call, request, holds) : createWithin(call, request, holds),
    );
    if (typeof made === 'object') return made.mounts ?? [];
    const target = targetOf(request);
    await alone(target, () => adoptRemote(call, target, request, made, holds));
    throw snapshotExists(call.snapshotter, target);
  } finally {
    holds.release();
  }
}

/** In two transactions. A string is the parent's backend name, when the backend claims to have the target. */
async function createApart(call: SnapshotCall, request: CreateRequest, holds: Holds): Promise<Made | string> {
  const { host, ctx } = call;
  for (let n = 1; ; n++) {
    const { plan, made } = await host.update(ctx, (tx) => {
      const plan = planCreation(tx, call, request);
      if (plan.existing !== undefined) return { plan, made: undefined };
      ensureSnapshotter(tx, call);
      const named: Made = { name: nextBackendName(tx, call, request.key) };
      return { plan, made: named };
    });
    if (made === undefined) throw snapshotExists(call.snapshotter, plan.existing);
    const outcome = await makeInBackend(call, request, made, plan.parentName, holds);
    if (outcome === 'made') {
      await recordOrDiscard(call, request, made);
      return made;
    }
    if (targetOf(request) !== '') return plan.parentName;
    if (n === NAME_ATTEMPTS) throw nameTaken(call, made);
  }
}

/** All in the caller's transaction. */
async function createWithin(
  call: SnapshotCall,
  request: CreateRequest,
  holds: Holds,
): Promise<Made | string> {
  const tx = call.ctx.tx!;
  for (let n = 1; ; n++) {
    const plan = planCreation(tx, call, request);
    if (plan.existing !== undefined) throw snapshotExists(call.snapshotter, plan.existing);
    // Taken by every run, so that the run that commits stores a counter behind every name that was used.
    const fresh = nextBackendName(tx, call, request.key);
    const made = await keptOverAttempts(
      tx,
      `snapshot ${request.kind} ${snapshotKey(call.ns, call.snapshotter, request.key)}`,
      (): Made => ({ name: fresh }),
      (unrecorded) => discard(call, unrecorded),
    );
    if (made.mounts !== undefined && made.parent !== plan.parentName) await discard(call, made);
    if (made.discarded) continue;
    const outcome = await makeInBackend(call, request, made, plan.parentName, holds);
    if (outcome === 'made') {
      await recordOrDiscard(call, request, made);
      return made;
    }
    made.discarded = true;
    if (targetOf(request) !== '') return plan.parentName;
    if (n >= NAME_ATTEMPTS) throw nameTaken(call, made);
  }
}

const nameTaken = ({ snapshotter }: SnapshotCall, { name }: Made): EbbtideError =>
  unknownError(`snapshotter "${snapshotter}" says that the new name "${name}" already exists`, {
    object: name,
    remedy: 'collect garbage with a full sweep (`ebbtide gc --full`), then try again',
  });

/** Looks at the records before anything is made; the key that is there already goes to the context's lease. */
function planCreation(tx: Transaction, call: SnapshotCall, request: CreateRequest): Plan {
  const { ctx, ns, snapshotter } = call;
  for (const key of [targetOf(request), request.key]) {
    if (findSnapshot(tx, ns, snapshotter, key) === undefined) continue;
    addToLease(tx, ctx, ns, snapshotKey(ns, snapshotter, key));
    return { existing: key };
  }
  const parentName = request.parent === '' ? '' : requireSnapshot(tx, ns, snapshotter, request.parent).name;
  requireContextLease(tx, ctx, ns);
  return { parentName };
}

/** Has the backend make the snapshot, under guard from now on. */
async function makeInBackend(
  { backend, snapshotter, inFlight }: SnapshotCall,
  request: CreateRequest,
  made: Made,
  parentName: string,
  holds: Holds,
): Promise<'made' | 'exists'> {
  await holds.share(snapshotGuard(snapshotter, made.name));
  await holds.mark(inFlight, made.name);
  if (made.mounts !== undefined) return 'made';
  const labels = inheritedSnapshotLabels(compactMap(request.labels));
  const options = labels && { labels };
  try {
    made.mounts = await (request.kind === 'view'
      ? backend.view(made.name, parentName, options)
      : backend.prepare(made.name, parentName, options));
    made.parent = parentName;
    return 'made';
  } catch (error) {
    if (isAlreadyExists(error)) return 'exists';
    throw error;
  }
}

/** Records what the backend has made; when that is not possible, it is removed from the backend again. */
async function recordOrDiscard(call: SnapshotCall, request: CreateRequest, made: Made): Promise<void> {
  let recorded = false;
  try {
    recorded = await call.host.update(call.ctx, (tx) => recordCreation(tx, call, request, made));
    if (!recorded) throw snapshotExists(call.snapshotter, request.key);
  } catch (error) {
    // If nobody knows whether the record is there, the snapshot stays.
    if (!(error instanceof OutcomeUnknown)) await discard(call, made);
    throw error;
  }
}

/** False, with the key in the context's lease, when somebody else was first. */
function recordCreation(tx: Transaction, call: SnapshotCall, request: CreateRequest, made: Made): boolean {
  const { ctx, ns, snapshotter } = call;
  const { key, parent } = request;
  const exists = findSnapshot(tx, ns, snapshotter, key) !== undefined;
  addToLease(tx, ctx, ns, snapshotKey(ns, snapshotter, key));
  if (exists) return false;
  requireParent(tx, call, parent, made.parent ?? '');
  const at = now();
  const dirs = call.host.engine.kind === 'etcd' ? overlayDirs(made.mounts ?? []) : {};
  const times = { createdat: at, updatedat: at };
  const record = recordOf(times, made.name, parent, compactMap(request.labels), dirs);
  putSnapshot(tx, call, key, record);
  return true;
}
