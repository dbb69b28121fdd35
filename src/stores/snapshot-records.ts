/**
 * Snapshot records: how a namespaced key maps to a backend snapshot, and what belongs to a record (its entry
 * among its parent's children, the claim on a backend snapshot it did not create). Called by the snapshot
 * store's files and, for the last part, by the collection.
 */
import type { Mount, SnapshotInfo, SnapshotterBackend } from '../backends/contract.js';
import type { CallContext } from '../context.js';
import type { Reader, Transaction } from '../engine/contract.js';
import { backendNameKey, leaf, Relation, snapshotKey, snapshotterKey } from '../engine/schema/keys.js';
import { alreadyExists, type EbbtideError, invalidArgument, isNotFound, notFound } from '../errors.js';
import { copyMap } from '../model/labels.js';
import type { SnapshotRecord, StringMap } from '../model/records.js';
import { ensureNamespace, putRecord, readRecord } from './common.js';
import type { StoreHost } from './host.js';
import type { InFlight } from './write-scope.js';

/** One writing call on one snapshotter in one namespace. */
export interface SnapshotCall {
  readonly host: StoreHost;
  readonly backend: SnapshotterBackend;
  readonly snapshotter: string;
  readonly inFlight: InFlight;
  readonly ctx: CallContext;
  readonly ns: string;
}

/** A Prepare or View. */
export interface CreateRequest {
  readonly kind: 'active' | 'view';
  readonly key: string;
  /** '' when there is none. */
  readonly parent: string;
  readonly labels: StringMap | undefined;
}

/** The state of a backend snapshot that a call creates. */
export interface Made {
  /** Its backend name. */
  readonly name: string;
  /** Set once the backend has created it. */
  mounts?: Mount[];
  /** Backend name of the parent it was created on. */
  parent?: string;
  /** It was removed again, or never created: create another. */
  discarded?: boolean;
}

const snapshotNotFound = (snapshotter: string, key: string): EbbtideError =>
  notFound(`snapshot "${key}" not found on "${snapshotter}"`, { object: key });

export const snapshotExists = (snapshotter: string, key: string): EbbtideError =>
  alreadyExists(`snapshot "${key}" already exists on "${snapshotter}"`, { object: key });

/** A unique backend name within the namespace; reading it writes nothing. */
export function nextBackendName(tx: Transaction, { ns, snapshotter }: SnapshotCall, key: string): string {
  return `${ns}/${tx.next(snapshotterKey(ns, snapshotter))}/${key}`;
}

/** Creates the namespace and the snapshotter's entry in it. */
export function ensureSnapshotter(tx: Transaction, { ns, snapshotter }: SnapshotCall): void {
  ensureNamespace(tx, ns);
  const k = snapshotterKey(ns, snapshotter);
  if (!tx.has(k)) tx.put(k, {});
}

export function findSnapshot(
  reader: Reader,
  ns: string,
  snapshotter: string,
  key: string,
): SnapshotRecord | undefined {
  // No record has an empty key, and looking one up is not an error.
  if (key === '') return undefined;
  return readRecord<SnapshotRecord>(reader, snapshotKey(ns, snapshotter, key));
}

/** As `findSnapshot`; NotFound when there is none. */
export function requireSnapshot(
  reader: Reader,
  ns: string,
  snapshotter: string,
  key: string,
): SnapshotRecord {
  const record = findSnapshot(reader, ns, snapshotter, key);
  if (record === undefined) throw snapshotNotFound(snapshotter, key);
  return record;
}

/** The parent must still be the backend snapshot that the child was created on. */
export function requireParent(tx: Transaction, call: SnapshotCall, parent: string, parentName: string): void {
  if (parent === '') return;
  const { name } = requireSnapshot(tx, call.ns, call.snapshotter, parent);
  if (name === parentName) return;
  throw invalidArgument(`parent "${parent}" was replaced by another snapshot of the same key`, {
    object: parent,
    remedy: 'try again',
  });
}

/** Stores a new record and its entry among its parent's children. */
export function putSnapshot(tx: Transaction, call: SnapshotCall, key: string, record: SnapshotRecord): void {
  const { ns, snapshotter } = call;
  const k = snapshotKey(ns, snapshotter, key);
  ensureSnapshotter(tx, call);
  putRecord(tx, k, record);
  if (record.parent !== undefined) {
    tx.link(snapshotKey(ns, snapshotter, record.parent), Relation.children, k);
  }
}

export function recordOf(
  times: { createdat: bigint; updatedat: bigint },
  name: string,
  parent: string,
  labels: StringMap | undefined,
  { upperdir, lowerdir }: OverlayDirs = {},
): SnapshotRecord {
  const { createdat, updatedat } = times;
  return {
    createdat,
    updatedat,
    name,
    ...(parent !== '' && { parent }),
    ...(labels && { labels }),
    ...(upperdir !== undefined && { upperdir }),
    ...(lowerdir !== undefined && { lowerdir }),
  };
}

type OverlayDirs = Pick<SnapshotRecord, 'upperdir' | 'lowerdir'>;

/** Directories of an overlay mount, stored for hosts that share the file system; none for other mounts. */
export function overlayDirs(mounts: readonly Mount[]): OverlayDirs {
  const dirs: OverlayDirs = {};
  for (const { type, options } of mounts) {
    if (type !== 'overlay') continue;
    for (const option of options) {
      if (option.startsWith('upperdir=')) dirs.upperdir = option.slice('upperdir='.length);
      else if (option.startsWith('lowerdir=')) dirs.lowerdir = option.slice('lowerdir='.length);
    }
  }
  return dirs;
}

/** The public form: kind and additional labels are the backend's, everything else the record's. */
export function infoOf(key: string, record: SnapshotRecord, backend: SnapshotInfo): SnapshotInfo {
  return {
    kind: backend.kind,
    name: key,
    parent: record.parent ?? '',
    labels: { ...copyMap(backend.labels), ...record.labels },
    created: record.createdat,
    updated: record.updatedat,
  };
}

/**
 * Records that a record names a backend snapshot which was created for another record. Sweeps first look for
 * the record a name was created for, and then find it in use by this one.
 */
export function claimBackendName(tx: Transaction, call: SnapshotCall, key: string, name: string): void {
  const { ns, snapshotter } = call;
  if (isNamedAfter(name, ns, key)) return;
  tx.link(backendNameKey(snapshotter, name), Relation.named, snapshotKey(ns, snapshotter, key));
}

/** Removes the claim, if the record has one. */
export function dropClaim(tx: Transaction, ns: string, snapshotter: string, key: string, name: string): void {
  if (name === '' || isNamedAfter(name, ns, key)) return;
  tx.unlink(backendNameKey(snapshotter, name), Relation.named, snapshotKey(ns, snapshotter, key));
}

/**
 * Keys of a namespace whose records may name this backend snapshot: the one it was created for, and those
 * that claim it.
 */
export function* keysNaming(reader: Reader, ns: string, snapshotter: string, name: string): Iterable<string> {
  const made = name.startsWith(`${ns}/`) ? /^\d+\/(.+)$/s.exec(name.slice(ns.length + 1))?.[1] : undefined;
  if (made !== undefined) yield made;
  for (const record of reader.links(backendNameKey(snapshotter, name), Relation.named)) yield leaf(record);
}

/** Whether a backend name (`<namespace>/<number>/<key>`) was created for this record. */
function isNamedAfter(name: string, ns: string, key: string): boolean {
  return (
    name.startsWith(`${ns}/`) &&
    name.endsWith(`/${key}`) &&
    /^\d+$/.test(name.slice(ns.length + 1, -key.length - 1))
  );
}

/** Removes a backend snapshot that no record will name; a failure is logged and left to the next sweep. */
export async function discard(call: SnapshotCall, made: Made): Promise<void> {
  if (made.discarded) return;
  made.discarded = true;
  if (made.mounts === undefined) return;
  try {
    await call.backend.remove(made.name);
  } catch (error) {
    if (isNotFound(error)) return;
    call.host.log('warn', 'removing a snapshot that was not recorded failed', {
      snapshotter: call.snapshotter,
      name: made.name,
      error: String(error),
    });
    await leaveToSweep(call, made.name);
  }
}

/** Marks a backend snapshot without a record for the next sweep. */
export async function leaveToSweep({ host, snapshotter, ns }: SnapshotCall, name: string): Promise<void> {
  await host
    .update({ namespace: ns }, (tx) =>
      host.markSnapshotterDirty(tx, snapshotter, { kind: 'snapshot', snapshotter, name }),
    )
    .catch((error: unknown) => {
      host.log('warn', 'a snapshot without a record is left in the backend', {
        snapshotter,
        name,
        error: String(error),
      });
    });
}
