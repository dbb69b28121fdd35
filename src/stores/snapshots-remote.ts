/**
 * Remote snapshotters: they respond to a Prepare that carries a target key with "exists already". The
 * backend's committed snapshot is then recorded in the namespace under the target key. Called by Prepare and
 * View.
 *
 * In this way two namespaces may name one backend snapshot; the claim shows that to sweeps.
 */
import type { SnapshotInfo } from '../backends/contract.js';
import { snapshotKey } from '../engine/schema/keys.js';
import { isNotFound, notFound } from '../errors.js';
import { quoteForFilter } from '../model/filters.js';
import { compactMap, Label, labelOf } from '../model/labels.js';
import { snapshotGuard } from './guards.js';
import { addToLease } from './lease-context.js';
import {
  type CreateRequest,
  claimBackendName,
  findSnapshot,
  putSnapshot,
  recordOf,
  requireParent,
  type SnapshotCall,
} from './snapshot-records.js';
import type { WriteScope } from './write-scope.js';

/** Records the backend's snapshot under `target`; NotFound when the backend does not have it after all. */
export async function adoptRemote(
  call: SnapshotCall,
  target: string,
  request: CreateRequest,
  parentName: string,
  scope: WriteScope,
): Promise<void> {
  const { host, ctx, ns, snapshotter } = call;
  const found = await findRemote(call, target, parentName);
  if (found === undefined) throw targetNotFound(snapshotter, target);
  await scope.share(snapshotGuard(snapshotter, found.name));
  // A sweep may have removed it between the walk and the guard.
  await call.backend.stat(found.name).catch((error: unknown) => {
    throw isNotFound(error) ? targetNotFound(snapshotter, target) : error;
  });
  const labels = compactMap({ ...found.labels, ...request.labels });
  const record = recordOf(
    { createdat: found.created, updatedat: found.updated },
    found.name,
    request.parent,
    labels,
  );
  await host.update(ctx, (tx) => {
    const k = snapshotKey(ns, snapshotter, target);
    addToLease(tx, ctx, ns, k);
    if (findSnapshot(tx, ns, snapshotter, target) !== undefined) return;
    requireParent(tx, call, request.parent, parentName);
    putSnapshot(tx, call, target, record);
    claimBackendName(tx, call, target, found.name);
  });
}

const targetNotFound = (snapshotter: string, target: string) =>
  notFound(`target snapshot "${target}" not found in snapshotter "${snapshotter}"`, {
    object: target,
    remedy: 'the snapshotter reported that it exists; try again',
  });

/** The committed backend snapshot for the target on that parent. The backend may ignore the filter. */
async function findRemote(
  { backend }: SnapshotCall,
  target: string,
  parentName: string,
): Promise<SnapshotInfo | undefined> {
  const filter = [
    'kind==committed',
    `labels.${quoteForFilter(Label.snapshotRef)}==${quoteForFilter(target)}`,
    `parent==${quoteForFilter(parentName)}`,
  ].join(',');
  const found: SnapshotInfo[] = [];
  await backend.walk((info) => {
    const fits = info.kind === 'committed' && info.parent === parentName;
    if (fits && labelOf(info.labels, Label.snapshotRef) === target) found.push(info);
  }, filter);
  return found[0];
}
