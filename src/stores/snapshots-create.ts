/**
 * Prepare and View. Called by the snapshot store.
 *
 * Without a context transaction there are two short ones with the backend call between them, so that a
 * backend that copies for minutes delays no other caller. In a context transaction both parts are in it, and the
 * backend snapshot is created once however often it runs.
 */
import type { Mount } from '../backends/contract.js';
import type { Transaction } from '../engine/contract.js';
import { snapshotKey } from '../engine/schema/keys.js';
import { type EbbtideError, isAlreadyExists, OutcomeUnknown, unknownError } from '../errors.js';
import { compactMap, inheritedSnapshotLabels, Label, labelOf } from '../model/labels.js';
import { now } from '../model/time.js';
import { snapshotGuard } from './guards.js';
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
import { keptOverAttempts, WriteScope } from './write-scope.js';

/** The state of the records: the key exists, or the backend name of the parent. */
type Precheck = { existing: string } | { existing?: undefined; parentName: string };

/**
 * Attempts with names that exist in the backend, left for a sweep by a deleted namespace of the same name,
 * before the backend is considered faulty.
 */
const NAME_ATTEMPTS = 3;

/** The key under which a remote snapshotter may already have the content; '' when the caller gave none. */
const targetOf = (request: CreateRequest): string => labelOf(request.labels, Label.snapshotRef) ?? '';

/**
 * `alone` runs a function while no other call of this process creates or removes a record of that key. It is
 * not used in a context transaction, which must not wait for what may be waiting for it.
 */
export async function createSnapshot(
  call: SnapshotCall,
  request: CreateRequest,
  alone: <T>(key: string, fn: () => Promise<T>) => Promise<T>,
): Promise<Mount[]> {
  const scope = new WriteScope(call.host, call.ctx);
  try {
    const made = await alone(request.key, () =>
      call.ctx.tx === undefined
        ? createApart(call, request, scope)
        : createWithin(call, call.ctx.tx, request, scope),
    );
    if (typeof made === 'object') return made.mounts ?? [];
    const target = targetOf(request);
    await alone(target, () => adoptRemote(call, target, request, made, scope));
    throw snapshotExists(call.snapshotter, target);
  } finally {
    scope.release();
  }
}

/**
 * In two transactions. Returns a string, the parent's backend name, when the backend claims to have the
 * target.
 */
async function createApart(
  call: SnapshotCall,
  request: CreateRequest,
  scope: WriteScope,
): Promise<Made | string> {
  const { host, ctx } = call;
  for (let n = 1; ; n++) {
    const { check, made } = await host.update(ctx, (tx) => {
      const check = checkCreation(tx, call, request);
      if (check.existing !== undefined) return { check, made: undefined };
      ensureSnapshotter(tx, call);
      const named: Made = { name: nextBackendName(tx, call, request.key) };
      return { check, made: named };
    });
    if (made === undefined) throw snapshotExists(call.snapshotter, check.existing);
    const outcome = await makeInBackend(call, request, made, check.parentName, scope);
    if (outcome === 'made') {
      await recordOrDiscard(call, request, made);
      return made;
    }
    if (targetOf(request) !== '') return check.parentName;
    if (n === NAME_ATTEMPTS) throw nameInUse(call, made);
  }
}

/** Everything in the caller's transaction. */
async function createWithin(
  call: SnapshotCall,
  tx: Transaction,
  request: CreateRequest,
  scope: WriteScope,
): Promise<Made | string> {
  for (let n = 1; ; n++) {
    const check = checkCreation(tx, call, request);
    if (check.existing !== undefined) throw snapshotExists(call.snapshotter, check.existing);
    // Taken by every run, so that the run that commits stores a counter beyond every name that was used.
    const fresh = nextBackendName(tx, call, request.key);
    const made = await keptOverAttempts(
      tx,
      `snapshot ${request.kind} ${snapshotKey(call.ns, call.snapshotter, request.key)}`,
      (): Made => ({ name: fresh }),
      (unrecorded) => discard(call, unrecorded),
    );
    if (made.mounts !== undefined && made.parent !== check.parentName) await discard(call, made);
    if (made.discarded) continue;
    const outcome = await makeInBackend(call, request, made, check.parentName, scope);
    if (outcome === 'made') {
      await recordOrDiscard(call, request, made);
      return made;
    }
    made.discarded = true;
    if (targetOf(request) !== '') return check.parentName;
    if (n >= NAME_ATTEMPTS) throw nameInUse(call, made);
  }
}

const nameInUse = ({ snapshotter }: SnapshotCall, { name }: Made): EbbtideError =>
  unknownError(`snapshotter "${snapshotter}" says that the new name "${name}" already exists`, {
    object: name,
    remedy: 'collect garbage with a full sweep (`ebbtide gc --full`), then try again',
  });

/** Checks the records before anything is created; adds an existing key to the context's lease. */
function checkCreation(tx: Transaction, call: SnapshotCall, request: CreateRequest): Precheck {
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

/** Creates the snapshot in the backend, guarded from now on. */
async function makeInBackend(
  { backend, snapshotter, inFlight }: SnapshotCall,
  request: CreateRequest,
  made: Made,
  parentName: string,
  scope: WriteScope,
): Promise<'made' | 'exists'> {
  await scope.share(snapshotGuard(snapshotter, made.name));
  await scope.mark(inFlight, made.name);
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

/** Records what the backend has created; if that fails, it is removed from the backend again. */
async function recordOrDiscard(call: SnapshotCall, request: CreateRequest, made: Made): Promise<void> {
  let recorded = false;
  try {
    recorded = await call.host.update(call.ctx, (tx) => {
      const isFirst = recordCreation(tx, call, request, made);
      // Here, so that no transaction sees the snapshot and not the use of its parent.
      if (isFirst && request.parent !== '') {
        call.host.lastUse.note(snapshotKey(call.ns, call.snapshotter, request.parent));
      }
      return isFirst;
    });
    if (!recorded) throw snapshotExists(call.snapshotter, request.key);
  } catch (error) {
    // If it is unknown whether the record exists, the snapshot stays.
    if (!(error instanceof OutcomeUnknown)) await discard(call, made);
    throw error;
  }
}

/** Returns false, with the key added to the context's lease, when another call was first. */
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
