/**
 * Commit: turns an active snapshot into a committed one under a new name. Called by the snapshot store.
 *
 * One transaction, with the backend's commit as its last step before the records change. The backend cannot
 * undo its commit, so a run after a conflict continues with what the backend has done, and a lease that ended
 * in between is ignored as if it had ended a moment later.
 */
import type { Transaction } from '../engine/contract.js';
import { checkComponent, Relation, snapshotKey, snapshotterKey } from '../engine/schema/keys.js';
import { notFound } from '../errors.js';
import { compactMap, inheritedSnapshotLabels } from '../model/labels.js';
import type { SnapshotRecord, StringMap } from '../model/records.js';
import { now } from '../model/time.js';
import { snapshotGuard } from './guards.js';
import { addToLease, leaseExists, removeFromLease, requireContextLease } from './lease-context.js';
import {
  dropClaim,
  findSnapshot,
  leaveToSweep,
  nextBackendName,
  putSnapshot,
  recordOf,
  requireSnapshot,
  type SnapshotCall,
  snapshotExists,
} from './snapshot-records.js';
import { keptOverAttempts, WriteScope } from './write-scope.js';

export interface CommitRequest {
  readonly name: string;
  readonly key: string;
  readonly labels: StringMap | undefined;
  /** Parent for an active snapshot that has none; '' for none. */
  readonly parent: string;
}

/** The state of the backend's commit. */
interface Committed {
  readonly name: string;
  done: boolean;
}

export async function commitSnapshot(call: SnapshotCall, request: CommitRequest): Promise<void> {
  const { host, ctx } = call;
  const scope = new WriteScope(host, ctx);
  try {
    const existed = await host.update(ctx, async (tx) => {
      const active = checkCommit(tx, call, request);
      if (active === undefined) return true;
      const parentName = parentNameOf(tx, call, request, active);
      const fresh = nextBackendName(tx, call, request.name);
      // A run that commits another active snapshot, or onto another parent, must not reuse what an earlier
      // run created.
      const committed = await keptOverAttempts(
        tx,
        `snapshot commit ${snapshotKey(call.ns, call.snapshotter, request.name)} ${active.name} ${parentName}`,
        (): Committed => ({ name: fresh, done: false }),
        async ({ name, done }) => {
          if (done) await leaveToSweep(call, name);
        },
      );
      await commitInBackend(tx, call, request, active, parentName, committed, scope);
      recordCommit(tx, call, request, active, committed.name);
      return false;
    });
    if (existed) throw snapshotExists(call.snapshotter, request.name);
  } finally {
    scope.release();
  }
}

/**
 * The active snapshot's record; undefined, with the name added to the context's lease, when the name exists.
 */
function checkCommit(
  tx: Transaction,
  call: SnapshotCall,
  request: CommitRequest,
): SnapshotRecord | undefined {
  const { ctx, ns, snapshotter } = call;
  if (!tx.has(snapshotterKey(ns, snapshotter))) {
    throw notFound(`snapshotter "${snapshotter}" has no snapshots in namespace "${ns}"`, {
      object: snapshotter,
    });
  }
  checkComponent(request.name, 'snapshot name');
  if (findSnapshot(tx, ns, snapshotter, request.name) !== undefined) {
    addToLease(tx, ctx, ns, snapshotKey(ns, snapshotter, request.name));
    return undefined;
  }
  return requireSnapshot(tx, ns, snapshotter, request.key);
}

const parentOf = (active: SnapshotRecord, request: CommitRequest): string => active.parent ?? request.parent;

/** Backend name of the parent; '' when there is none. */
function parentNameOf(
  tx: Transaction,
  { ns, snapshotter }: SnapshotCall,
  request: CommitRequest,
  active: SnapshotRecord,
): string {
  const parent = parentOf(active, request);
  return parent === '' ? '' : requireSnapshot(tx, ns, snapshotter, parent).name;
}

async function commitInBackend(
  tx: Transaction,
  call: SnapshotCall,
  request: CommitRequest,
  active: SnapshotRecord,
  parentName: string,
  committed: Committed,
  scope: WriteScope,
): Promise<void> {
  const { backend, ctx, ns, snapshotter } = call;
  await scope.share(snapshotGuard(snapshotter, committed.name));
  // The backend loses it before its record is removed: a caller that compares the two has to wait.
  await scope.share(snapshotGuard(snapshotter, active.name));
  await scope.mark(call.inFlight, committed.name);
  if (committed.done) return;
  requireContextLease(tx, ctx, ns);
  const labels = inheritedSnapshotLabels(compactMap(request.labels));
  const rebasing = active.parent === undefined && parentName !== '';
  await backend.commit(committed.name, active.name, {
    ...(labels && { labels }),
    ...(rebasing && { parent: parentName }),
  });
  committed.done = true;
}

function recordCommit(
  tx: Transaction,
  call: SnapshotCall,
  request: CommitRequest,
  active: SnapshotRecord,
  backendName: string,
): void {
  const { ctx, ns, snapshotter } = call;
  const nameKey = snapshotKey(ns, snapshotter, request.name);
  const activeKey = snapshotKey(ns, snapshotter, request.key);
  if (active.parent !== undefined) {
    tx.unlink(snapshotKey(ns, snapshotter, active.parent), Relation.children, activeKey);
  }
  tx.delete(activeKey);
  dropClaim(tx, ns, snapshotter, request.key, active.name);
  removeFromLease(tx, ctx, ns, activeKey);
  const at = now();
  const parent = parentOf(active, request);
  putSnapshot(
    tx,
    call,
    request.name,
    recordOf({ createdat: at, updatedat: at }, backendName, parent, compactMap(request.labels)),
  );
  if (ctx.lease !== undefined && leaseExists(tx, ns, ctx.lease)) addToLease(tx, ctx, ns, nameKey);
}
