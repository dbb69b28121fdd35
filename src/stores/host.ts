/** What a store needs of the DB. Implemented by db-host.ts; every store is constructed with one. */
import type { ContentBackend, SnapshotterBackend } from '../backends/contract.js';
import type { MountPoints } from '../backends/mount-points.js';
import type { CallContext } from '../context.js';
import type { Durability, Engine, Reader, Transaction, UpdateOptions } from '../engine/contract.js';
import type { Guards } from './guards.js';
import type { LastUse } from './last-use.js';

/** Gets the events of a DB. */
export interface EventsPublisher {
  /** Namespace, topic and payload (plain object). An error is thrown to the caller of the operation. */
  publish(namespace: string, topic: string, payload: Readonly<Record<string, unknown>>): Promise<void>;
  /** Optional: true while there is no subscriber. A collection does not make events then. */
  readonly isIdle?: boolean | undefined;
}

/** Whether a namespace may use content of others by its digest. */
export type ContentPolicy = 'shared' | 'isolated';

/** A backend object whose record was removed. */
export type RemovedContent =
  | { readonly kind: 'blob'; readonly digest: string }
  | { readonly kind: 'ingest'; readonly ref: string };
export interface RemovedSnapshot {
  readonly kind: 'snapshot';
  readonly snapshotter: string;
  readonly name: string;
  /** Backend name of its parent, where known. */
  readonly parent?: string | undefined;
  /** The record that it is called after was removed after this revision. */
  readonly goneSince?: number;
}

/** How an update is made; neither counts in a transaction of the caller's. */
export type UpdateHow = Pick<UpdateOptions, 'durability' | 'background'>;

export interface StoreHost {
  readonly engine: Engine;
  readonly content: ContentBackend;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
  /** Where mounts are activated; undefined: nowhere. */
  readonly mountPoints?: MountPoints | undefined;
  readonly policy: ContentPolicy;
  readonly durability: Durability;
  /** Per-object guards shared by writers and backend sweeps. */
  readonly guards: Guards;
  /** When images and snapshots were used last. */
  readonly lastUse: LastUse;

  /**
   * Runs `fn` in the context's transaction if it has one (FailedPrecondition if that is read-only), else in a
   * new one, followed by the mutation callbacks. Inside another update's body without its transaction:
   * FailedPrecondition instead of a deadlock. After close: FailedPrecondition. `ctx.signal` aborted: its
   * error.
   */
  update<T>(ctx: CallContext, fn: (tx: Transaction) => T | Promise<T>, how?: UpdateHow): Promise<T>;
  /**
   * All reads go through this. Calls `fn` with the context's transaction, or else with the newest state, once
   * that includes everything committed before this call: at once in an embedded store, after a round trip to
   * etcd in a shared one. The reader may be kept, and shows later states then. Same checks as `update`;
   * Unavailable when the newest state cannot be read.
   */
  read<T>(ctx: CallContext, fn: (reader: Reader) => T | Promise<T>): T | Promise<T>;
  /** The same at one revision, also across awaits of `fn`. */
  view<T>(ctx: CallContext, fn: (reader: Reader) => T | Promise<T>): Promise<T>;
  /** Only the checks of `update` and `read`. */
  checkCall(ctx: CallContext): void;

  /** Counts one deletion if the transaction commits. */
  countDeletion(tx: Transaction): void;
  /**
   * Marks the content backend or a snapshotter as needing a sweep, if the transaction commits. `removed`
   * limits the sweep to that object; without it the sweep covers everything.
   */
  markContentDirty(tx: Transaction, removed?: RemovedContent): void;
  markSnapshotterDirty(tx: Transaction, snapshotter: string, removed?: RemovedSnapshot): void;

  /**
   * Publishes after commit: now, or when the context's transaction is committed. In the first case a failure is the
   * caller's, in the second it is logged.
   */
  publish(
    ctx: CallContext,
    namespace: string,
    topic: string,
    payload: Readonly<Record<string, unknown>>,
  ): Promise<void>;

  log(level: 'warn' | 'error' | 'info', message: string, details?: Readonly<Record<string, unknown>>): void;
}
