/**
 * Snapshots: a namespace's view of one snapshotter backend. Called by db.ts, the servers and image unpacking.
 * Keys, labels and times are the namespace's own; the backend knows each snapshot by a name that is never
 * reused, so a key is free again as soon as its record is removed. Removing leaves the disk space to a
 * collection.
 *
 * Durability of writes is the DB's. Calls that create or remove the same key run one after another; calls for
 * different keys do not wait for each other.
 */
import type {
  Mount,
  MountOwner,
  RemovalReport,
  SnapshotInfo,
  SnapshotterBackend,
  Usage,
} from '../backends/contract.js';
import { type CallContext, requireNamespace } from '../context.js';
import type { Transaction } from '../engine/contract.js';
import { checkComponent, key as keyOf, leaf, Relation, snapshotKey } from '../engine/schema/keys.js';
import { failedPrecondition, invalidArgument, isNotFound, notImplemented } from '../errors.js';
import { maskedLabels } from '../model/fieldpaths.js';
import { type Adaptor, adaptLabels, parseFilters } from '../model/filters.js';
import { compactMap, inheritedSnapshotLabels, validateLabels } from '../model/labels.js';
import type { SnapshotRecord, StringMap } from '../model/records.js';
import { namedIn } from './caller-names.js';
import { checkNamespaceName, putRecord, updateTime } from './common.js';
import { Guards } from './guards.js';
import type { StoreHost } from './host.js';
import { removeFromLease } from './lease-context.js';
import { Pace } from './listing.js';
import {
  type CreateRequest,
  dropClaim,
  findSnapshot,
  infoOf,
  keysNaming,
  recordOf,
  requireSnapshot,
  type SnapshotCall,
} from './snapshot-records.js';
import { commitSnapshot } from './snapshots-commit.js';
import { createSnapshot } from './snapshots-create.js';
import { beginWrite, InFlight } from './write-scope.js';

/** How a snapshot is made. */
export interface CreateOptions {
  /** Labels by key. */
  labels?: StringMap | undefined;
}

/** How a snapshot is committed. */
export interface CommitOptions {
  /** Labels of the committed snapshot; those of the active one are not inherited. */
  labels?: StringMap | undefined;
  /** Key of a parent for an active snapshot that has none; ignored otherwise. */
  parent?: string | undefined;
}

/** Input of update: everything but name and labels is ignored. */
export interface SnapshotInput {
  /** Which snapshot. */
  name: string;
  /** Labels by key. */
  labels?: StringMap | undefined;
}

/** Records that a walk reads at once. */
const WALK_BATCH = 100;

/** The snapshots of the namespaces in one snapshotter. */
export class Snapshotter {
  /** The snapshotter's name. */
  readonly name: string;
  readonly #host: StoreHost;
  readonly #backend: SnapshotterBackend;
  readonly #inFlight = new InFlight();
  /**
   * Serializes calls that create or remove the record of a key; unlike the host's guards never waited for in
   * a context transaction.
   */
  readonly #keys = new Guards();

  constructor(host: StoreHost, name: string) {
    const backend = host.backends.get(name);
    if (backend === undefined) {
      throw invalidArgument(`snapshotter "${name}" is not configured`, { object: name });
    }
    this.name = name;
    this.#host = host;
    this.#backend = backend;
  }

  /** Whether the commit of a snapshot without a parent can give it one whose files it shows too, as with overlays. */
  get rebases(): boolean {
    return this.#backend.rebases ?? false;
  }

  /** NotFound without a record, and when the backend has lost the snapshot. */
  async stat(ctx: CallContext, key: string): Promise<SnapshotInfo> {
    const record = await this.#find(ctx, key);
    return infoOf(key, record, await this.#backendIn(ctx).stat(record.name));
  }

  /** Inodes and bytes of the snapshot alone, without its parents. */
  async usage(ctx: CallContext, key: string): Promise<Usage> {
    const { name } = await this.#find(ctx, key);
    return this.#backendIn(ctx).usage(name);
  }

  /** How to mount an active snapshot or a view; FailedPrecondition for a committed one. */
  async mounts(ctx: CallContext, key: string): Promise<Mount[]> {
    const { name } = await this.#find(ctx, key);
    return this.#backendIn(ctx).mounts(name);
  }

  /**
   * The snapshot of this namespace that the mounts show, and the store's own mounts of it; undefined for any
   * other mounts, and if the backend does not support the look-up.
   */
  async ownerOf(ctx: CallContext, mounts: readonly Mount[]): Promise<MountOwner | undefined> {
    const ns = requireNamespace(ctx);
    const owner = await this.#backend.ownerOf?.(mounts);
    if (owner === undefined) return undefined;
    return this.#host.read(ctx, (reader) => {
      for (const key of keysNaming(reader, ns, this.name, owner.key)) {
        if (findSnapshot(reader, ns, this.name, key)?.name === owner.key) return { ...owner, key };
      }
      return undefined;
    });
  }

  /**
   * Calls `work` with the mounts of an active snapshot. No other such work, and no commit, runs on the
   * snapshot until it ends; its signal is aborted when the snapshot's disk space is to be freed. NotFound;
   * FailedPrecondition: not active.
   */
  async write<T>(
    ctx: CallContext,
    key: string,
    work: (mounts: Mount[], signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { name } = await this.#find(ctx, key);
    if (this.#backend.write === undefined) {
      throw notImplemented(`snapshotter "${this.name}" does not support exclusive writes`, {
        object: key,
      });
    }
    return this.#backend.write(name, work);
  }

  /**
   * Replaces the labels, or what the paths `labels` and `labels.<key>` name; those that concern the backend
   * are passed on. NotFound, InvalidArgument; nothing changes when the backend refuses.
   */
  async update(ctx: CallContext, info: SnapshotInput, ...paths: string[]): Promise<SnapshotInfo> {
    const ns = requireNamespace(ctx);
    const key = info.name;
    if (key === '') throw invalidArgument('snapshot name is required for update');
    beginWrite(this.#host, ctx);
    return this.#alone(ctx, ns, [key], () =>
      this.#host.update(ctx, async (tx) => {
        const stored = requireSnapshot(tx, ns, this.name, key);
        const labels = compactMap(maskedLabels('snapshot', key, stored.labels, info.labels, paths));
        validateLabels(labels);
        const times = { createdat: stored.createdat, updatedat: updateTime(stored) };
        const updated = recordOf(times, stored.name, stored.parent ?? '', labels, stored);
        putRecord(tx, snapshotKey(ns, this.name, key), updated);
        // Every run of the transaction updates the backend, with the labels of that run.
        const backend = this.#backendIn(ctx);
        const before = await backend.stat(stored.name);
        const handedDown = { ...before, labels: inheritedSnapshotLabels(labels) ?? {} };
        return infoOf(key, updated, await backend.update(handedDown, ...paths));
      }),
    );
  }

  /**
   * Creates a writable snapshot on a committed parent ('' for none) and returns how to mount it.
   * AlreadyExists: the key, or the target named by the label `containerd.io/snapshot.ref`, exists (now) and
   * is added to the context's lease. NotFound: no such parent or lease. InvalidArgument: the parent is not
   * committed.
   */
  prepare(ctx: CallContext, key: string, parent: string, options: CreateOptions = {}): Promise<Mount[]> {
    return this.#create(ctx, { kind: 'active', key, parent, labels: options.labels });
  }

  /** As `prepare`, for a read-only snapshot. */
  view(ctx: CallContext, key: string, parent: string, options: CreateOptions = {}): Promise<Mount[]> {
    return this.#create(ctx, { kind: 'view', key, parent, labels: options.labels });
  }

  /**
   * Commits an active snapshot under a new name; its key is removed. AlreadyExists: the name exists (it is
   * then added to the context's lease, and the active snapshot stays). NotFound; FailedPrecondition: not
   * active.
   */
  async commit(ctx: CallContext, name: string, key: string, options: CommitOptions = {}): Promise<void> {
    const call = this.#begin(ctx);
    validateLabels(options.labels);
    const request = { name, key, labels: options.labels, parent: options.parent ?? '' };
    await this.#alone(ctx, call.ns, [name, key], async () =>
      // The backend cannot undo a commit, so the newest state is read first: another host may have changed
      // it.
      this.#host.read(ctx, () => commitSnapshot(call, request)),
    );
    await this.#host.publish(ctx, call.ns, '/snapshot/commit', { key, name, snapshotter: this.name });
  }

  /**
   * Removes the record; a collection frees the disk space. FailedPrecondition while the snapshot has
   * children.
   */
  async remove(ctx: CallContext, key: string): Promise<void> {
    const { ns } = this.#begin(ctx);
    await this.#alone(ctx, ns, [key], () =>
      this.#host.update(ctx, (tx) => this.#removeRecord(tx, ctx, ns, key)),
    );
    await this.#host.publish(ctx, ns, '/snapshot/remove', { key, snapshotter: this.name });
  }

  /**
   * Calls `fn` for every snapshot that matches any of the filters (all without filters), by key. Snapshots
   * created or removed during the walk may or may not be seen, none twice; `fn` may call the store. One that
   * the backend has lost is skipped. The first error of `fn` ends the walk and is rethrown.
   */
  async walk(
    ctx: CallContext,
    fn: (info: SnapshotInfo) => Promise<void> | void,
    ...filters: string[]
  ): Promise<void> {
    const ns = requireNamespace(ctx);
    const matches = parseFilters(filters);
    const prefix = keyOf('snapshots', ns, this.name);
    const pace = new Pace(ctx);
    const reader = await this.#host.read(ctx, (current) => current);
    let after: string | undefined;
    for (;;) {
      this.#host.checkCall(ctx);
      const range = { limit: WALK_BATCH, ...(after !== undefined && { after }) };
      const batch = [...reader.scan(prefix, range)];
      for (const [k, value] of batch) {
        // Snapshot records are written by this store alone.
        const info = await this.#infoIfThere(leaf(k), value as unknown as SnapshotRecord);
        if (info !== undefined && matches(adapt(info))) await fn(info);
        if (pace.isOver) await pace.pass();
      }
      if (batch.length < WALK_BATCH) return;
      after = batch.at(-1)?.[0];
    }
  }

  /**
   * Asks the backend to reclaim the disk space of removed snapshots. NotImplemented if it does so by itself.
   */
  async cleanup(ctx: CallContext): Promise<RemovalReport | undefined> {
    this.#host.checkCall(ctx);
    if (this.#backend.cleanup === undefined) {
      throw notImplemented(`snapshotter "${this.name}" has no cleanup`, { object: this.name });
    }
    return this.#backend.cleanup();
  }

  /** Closes the backend, not the records; idempotent. */
  close(): Promise<void> {
    return this.#backend.close();
  }

  /** @internal Backend names that a call is about to record: not orphans, although they have no record yet. */
  inFlight(): ReadonlySet<string> {
    return this.#inFlight.names();
  }

  async #create(ctx: CallContext, request: CreateRequest): Promise<Mount[]> {
    const call = this.#begin(ctx);
    checkNamespaceName(call.ns);
    validateLabels(request.labels);
    checkComponent(request.key, 'snapshot key');
    const mounts = await createSnapshot(call, request, (key, fn) => this.#alone(ctx, call.ns, [key], fn));
    if (request.kind === 'active') {
      const { key, parent } = request;
      await this.#host.publish(ctx, call.ns, '/snapshot/prepare', { key, parent, snapshotter: this.name });
    }
    return mounts;
  }

  #begin(ctx: CallContext): SnapshotCall {
    const ns = requireNamespace(ctx);
    beginWrite(this.#host, ctx);
    const [host, backend, inFlight] = [this.#host, this.#backendIn(ctx), this.#inFlight];
    return { host, backend, snapshotter: this.name, inFlight, ctx, ns };
  }

  /** Its errors use the names of the context's namespace. */
  #backendIn(ctx: CallContext): SnapshotterBackend {
    return namedIn(requireNamespace(ctx), this.#backend);
  }

  #find(ctx: CallContext, key: string): SnapshotRecord | Promise<SnapshotRecord> {
    const ns = requireNamespace(ctx);
    return this.#host.read(ctx, (reader) => requireSnapshot(reader, ns, this.name, key));
  }

  /**
   * Runs `fn` alone on the keys, except in a context transaction, whose conflicts are found at its commit.
   */
  async #alone<T>(ctx: CallContext, ns: string, keys: string[], fn: () => Promise<T>): Promise<T> {
    if (ctx.tx !== undefined) return fn();
    const release = await this.#keys.acquireAll(keys.map((key) => `${ns}\0${key}`));
    try {
      return await fn();
    } finally {
      release();
    }
  }

  #removeRecord(tx: Transaction, ctx: CallContext, ns: string, key: string): void {
    const record = requireSnapshot(tx, ns, this.name, key);
    const k = snapshotKey(ns, this.name, key);
    if (tx.hasLinks(k, Relation.children)) {
      throw failedPrecondition(`cannot remove snapshot with child: "${key}"`, {
        object: key,
        remedy: 'remove the snapshots that are based on it first',
      });
    }
    let parentName: string | undefined;
    if (record.parent !== undefined) {
      parentName = requireSnapshot(tx, ns, this.name, record.parent).name;
      tx.unlink(snapshotKey(ns, this.name, record.parent), Relation.children, k);
    }
    tx.delete(k);
    dropClaim(tx, ns, this.name, key, record.name);
    removeFromLease(tx, ctx, ns, k);
    this.#host.countDeletion(tx);
    this.#host.markSnapshotterDirty(tx, this.name, {
      kind: 'snapshot',
      snapshotter: this.name,
      name: record.name,
      ...(parentName !== undefined && { parent: parentName }),
    });
  }

  async #infoIfThere(key: string, record: SnapshotRecord): Promise<SnapshotInfo | undefined> {
    try {
      return infoOf(key, record, await this.#backend.stat(record.name));
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }
}

/** Filter fields: kind, name, parent, labels.*; the first three are always present. */
const adapt =
  (info: SnapshotInfo): Adaptor =>
  (path) => {
    switch (path[0]) {
      case 'kind':
        return info.kind;
      case 'name':
        return info.name;
      case 'parent':
        return info.parent;
      case 'labels':
        return adaptLabels(info.labels, path, 1);
      default:
        return undefined;
    }
  };
