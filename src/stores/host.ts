/**
 * What a store needs of the DB. Implemented by db-host.ts; every store is built on one of these.
 */
import type { ContentBackend, SnapshotterBackend } from '../backends/contract.js';
import type { CallContext } from '../context.js';
import type { Durability, Engine, Reader, Transaction } from '../engine/contract.js';
import type { Guards } from './guards.js';

export interface EventsPublisher {
  /** Namespace, topic and payload (plain object). A failure is returned to the caller of the operation. */
  publish(namespace: string, topic: string, payload: Readonly<Record<string, unknown>>): Promise<void>;
  /** Optional: true while nobody listens. A collection then makes no events. */
  readonly isIdle?: boolean | undefined;
}

export type ContentPolicy = 'shared' | 'isolated';

/** Something in a backend that a record has stopped naming. */
export type UnnamedContent =
  | { readonly kind: 'blob'; readonly digest: string }
  | { readonly kind: 'ingest'; readonly ref: string };
export interface UnnamedSnapshot {
  readonly kind: 'snapshot';
  readonly snapshotter: string;
  readonly name: string;
  /** Backend name of its parent, where known. */
  readonly parent?: string | undefined;
}

export interface StoreHost {
  readonly engine: Engine;
  readonly content: ContentBackend;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
  readonly policy: ContentPolicy;
  readonly durability: Durability;
  /** Per-object guards shared by writers and backend sweeps. */
  readonly guards: Guards;

  /**
   * Runs `fn` in the context's transaction when it carries one (read-only: FailedPrecondition), else in one of
   * its own, followed by the mutation callbacks. Called inside another update's body without its transaction:
   * FailedPrecondition instead of a hang. After close: FailedPrecondition. `ctx.signal` ended: its error.
   */
  update<T>(ctx: CallContext, fn: (tx: Transaction) => T | Promise<T>): Promise<T>;
  /**
   * The door of every read. Calls `fn` with the context's transaction; or else with the newest state, once that holds what
   * was committed before this call: at once in an embedded store, when etcd has said so in a shared one. The reader may be
   * kept, and shows later states then. Same checks as `update`; Unavailable when nothing current can be read.
   */
  read<T>(ctx: CallContext, fn: (reader: Reader) => T | Promise<T>): T | Promise<T>;
  /** The same at one revision, also while `fn` waits. */
  view<T>(ctx: CallContext, fn: (reader: Reader) => T | Promise<T>): Promise<T>;
  /** The checks of `update` and `read` alone. */
  checkCall(ctx: CallContext): void;

  /** Counts one deletion if the transaction commits. */
  countDeletion(tx: Transaction): void;
  /**
   * Marks the content backend or a snapshotter as needing a sweep, if the transaction commits. `removed` is what
   * the sweep should look at; without it, it looks at everything.
   */
  markContentDirty(tx: Transaction, removed?: UnnamedContent): void;
  markSnapshotterDirty(tx: Transaction, snapshotter: string, removed?: UnnamedSnapshot): void;

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
