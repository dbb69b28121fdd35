/**
 * The view that the stores and the collector have of a DB: transactions with callbacks and nesting checks,
 * dirty flags, events, guards. Created by open.ts; never passed to users.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { ContentBackend, DiskJobs, SnapshotterBackend } from './backends/contract.js';
import type { MountPoints } from './backends/mount-points.js';
import type { CallContext } from './context.js';
import type { Durability, Engine, Reader, Transaction } from './engine/contract.js';
import { failedPrecondition, throwIfAborted } from './errors.js';
import { CollectorRegistry } from './gc/collectors.js';
import type { CollectHost } from './gc/host.js';
import { LiveMarks } from './gc/mark/live-marks.js';
import type { CollectionRecord } from './gc/report/collection-record.js';
import { ExpiryClock } from './gc/schedule/expiry-clock.js';
import { GarbageWatch } from './gc/schedule/garbage-watch.js';
import { DirtyFlags } from './gc/sweep/dirty.js';
import { OrphanGuard } from './gc/sweep/orphan-guard.js';
import { History } from './history/history.js';
import { ContentStore } from './stores/content/content.js';
import { type Event, publishAll } from './stores/events.js';
import { Guards } from './stores/guards.js';
import type {
  ContentPolicy,
  EventsPublisher,
  RemovedContent,
  RemovedSnapshot,
  UpdateHow,
} from './stores/host.js';
import { LastUse } from './stores/last-use.js';
import { MountManager } from './stores/mounts/manager.js';
import { Snapshotter } from './stores/snapshots.js';
import { traced } from './tracing.js';

/** How much a message matters. */
export type LogLevel = 'info' | 'warn' | 'error';
/** Gets what an operator should know. */
export type Log = (level: LogLevel, message: string, details?: Readonly<Record<string, unknown>>) => void;

/** Called after every successful update, in registration order; true when something was deleted since the last collection. */
export type MutationCallback = (deletionSinceLastGC: boolean) => void;

export interface HostParts {
  engine: Engine;
  content: ContentBackend;
  backends: ReadonlyMap<string, SnapshotterBackend>;
  /** Default: no mounts are activated. */
  mountPoints?: MountPoints | undefined;
  policy: ContentPolicy;
  durability: Durability;
  jobs: DiskJobs;
  publisher?: EventsPublisher | undefined;
  /** Default: guards within this process. */
  guards?: Guards | undefined;
  /** Default: the host's clocks and the default grace. */
  expiryClock?: ExpiryClock | undefined;
  log: Log;
  /** Default: in memory. */
  history?: History | undefined;
}

/** An update whose body is running, or has run. */
interface ActiveBody {
  readonly host: DBHost;
  open: boolean;
  /** The update, of another DB, that it was called in. */
  readonly outer: ActiveBody | undefined;
}

/** Shared by all DBs: Node keeps every such storage, at a cost for each promise, until the process ends. */
const bodies = new AsyncLocalStorage<ActiveBody>();

function innermostOpen(): ActiveBody | undefined {
  let body = bodies.getStore();
  while (body !== undefined && !body.open) body = body.outer;
  return body;
}

export class DBHost implements CollectHost {
  readonly engine: Engine;
  readonly content: ContentBackend;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
  readonly mountPoints: MountPoints | undefined;
  readonly mounts: MountManager;
  readonly policy: ContentPolicy;
  readonly durability: Durability;
  readonly jobs: DiskJobs;
  readonly publisher: EventsPublisher | undefined;
  readonly guards: Guards;
  readonly lastUse: LastUse;
  readonly dirty: DirtyFlags;
  readonly orphans: OrphanGuard;
  readonly expiryClock: ExpiryClock;
  readonly collectors = new CollectorRegistry();
  readonly history: History;
  readonly liveMarks: LiveMarks;
  readonly contentStore: ContentStore;
  readonly snapshotterStores: ReadonlyMap<string, Snapshotter>;
  readonly #log: Log;
  readonly #callbacks: MutationCallback[] = [];
  /** To be published once the transaction is committed. */
  readonly #events = new WeakMap<Transaction, Event[]>();
  #garbageWatch: GarbageWatch | undefined;
  #sweepSuspensions = 0;
  #closed = false;

  constructor(parts: HostParts) {
    this.engine = parts.engine;
    this.content = parts.content;
    this.backends = parts.backends;
    this.mountPoints = parts.mountPoints;
    this.mounts = new MountManager(this);
    this.policy = parts.policy;
    this.durability = parts.durability;
    this.jobs = parts.jobs;
    this.publisher = parts.publisher;
    this.#log = parts.log;
    this.history = parts.history ?? new History(undefined, false, this.#warn);
    this.liveMarks = new LiveMarks((message, details) => this.log('error', message, details));
    this.guards = parts.guards ?? new Guards();
    this.lastUse = new LastUse(parts.engine);
    this.dirty = new DirtyFlags(parts.engine);
    this.orphans = new OrphanGuard(this);
    this.expiryClock = parts.expiryClock ?? new ExpiryClock({ log: parts.log });
    this.contentStore = new ContentStore(this);
    this.snapshotterStores = new Map(
      [...parts.backends.keys()].map((name) => [name, new Snapshotter(this, name)]),
    );
  }

  registerMutationCallback(fn: MutationCallback): void {
    this.#callbacks.push(fn);
  }

  /** Begins with the first call. */
  get garbageWatch(): GarbageWatch {
    if (this.#garbageWatch === undefined) {
      const { engine, dirty } = this;
      const watch = new GarbageWatch({ graph: engine.graph, hasDeletions: () => dirty.deletions > 0 });
      this.#garbageWatch = watch;
      this.registerMutationCallback(() => watch.changed());
    }
    return this.#garbageWatch;
  }

  async update<T>(
    ctx: CallContext,
    fn: (tx: Transaction) => T | Promise<T>,
    how: UpdateHow = {},
  ): Promise<T> {
    this.checkCall(ctx);
    this.expiryClock.glance();
    if (ctx.tx !== undefined) {
      if (!ctx.tx.writable) {
        throw failedPrecondition('the transaction is read-only', { remedy: 'use update instead of view' });
      }
      this.expiryClock.saveStep(this.engine, ctx.tx);
      return fn(ctx.tx);
    }
    const body: ActiveBody = { host: this, open: true, outer: innermostOpen() };
    const options = { durability: this.durability, ...how, ...(ctx.signal && { signal: ctx.signal }) };
    const context = () => ({ namespace: ctx.namespace ?? '', attempts: 0 });
    // Of the attempts of the body the last one is committed.
    let last: Transaction | undefined;
    try {
      return await traced('transaction', context, (trace) =>
        this.engine
          .update((tx) => {
            if (trace !== undefined) trace.attempts++;
            last = tx;
            this.expiryClock.saveStep(this.engine, tx);
            return bodies.run(body, () => fn(tx));
          }, options)
          .then((result) => {
            body.open = false;
            this.#runCallbacks();
            const events = last && this.#events.get(last);
            if (events === undefined) return result;
            return publishAll(this.publisher, events, this.#warn).then(() => result);
          }),
      );
    } finally {
      body.open = false;
    }
  }

  read<T>(ctx: CallContext, fn: (reader: Reader) => T | Promise<T>): T | Promise<T> {
    this.checkCall(ctx);
    if (ctx.tx !== undefined) return fn(ctx.tx);
    const fresh = this.engine.fresh();
    if (fresh === undefined) return fn(this.engine);
    return fresh.then(() => {
      throwIfAborted(ctx.signal);
      return fn(this.engine);
    });
  }

  async view<T>(ctx: CallContext, fn: (tx: Transaction) => T | Promise<T>): Promise<T> {
    this.checkCall(ctx);
    return ctx.tx === undefined ? this.engine.view(fn) : fn(ctx.tx);
  }

  countDeletion(tx: Transaction): void {
    this.dirty.countDeletion(tx);
    // The commit notifies callbacks and schedulers of other hosts.
    tx.countDeletion?.();
  }

  /** Runs the mutation callbacks for changes by another host. */
  changedElsewhere(): void {
    if (!this.#closed) this.#runCallbacks();
  }

  markContentDirty(tx: Transaction, removed?: RemovedContent): void {
    this.dirty.markContentDirty(tx, removed);
  }

  markSnapshotterDirty(tx: Transaction, snapshotter: string, removed?: RemovedSnapshot): void {
    this.dirty.markSnapshotterDirty(tx, snapshotter, removed);
  }

  async publish(
    ctx: CallContext,
    namespace: string,
    topic: string,
    payload: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    if (ctx.tx === undefined) return this.publisher?.publish(namespace, topic, payload);
    if (this.publisher === undefined) return;
    const events = this.#events.get(ctx.tx) ?? [];
    if (events.push({ namespace, topic, payload }) === 1) this.#events.set(ctx.tx, events);
  }

  readonly #warn = (message: string, details: Readonly<Record<string, unknown>>): void =>
    this.log('warn', message, details);

  log(level: LogLevel, message: string, details?: Readonly<Record<string, unknown>>): void {
    this.#log(level, message, details);
  }

  collected(record: CollectionRecord): void {
    this.history.add(record);
  }

  get isDoubtful(): boolean {
    return this.orphans.state.foreign || this.dirty.isDoubtful;
  }

  get sweepsHeld(): boolean {
    return this.#sweepSuspensions > 0;
  }

  /**
   * Backends keep what loses its record until the returned function is called; the callbacks are then
   * notified of a deletion, so that a collection catches up. REQUIRES: no collection is under way.
   */
  suspendSweeps(): () => void {
    this.#sweepSuspensions++;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const { dirty } = this;
      if (--this.#sweepSuspensions > 0 || !(dirty.contentDirty || dirty.dirtySnapshotters.size > 0)) return;
      dirty.deletedElsewhere(1);
      this.changedElsewhere();
    };
  }

  close(): void {
    this.#closed = true;
    this.#garbageWatch?.close();
  }

  checkCall(ctx: CallContext): void {
    if (this.#closed) throw failedPrecondition('the store is closed', { remedy: 'open it again' });
    throwIfAborted(ctx.signal);
    if (ctx.tx !== undefined) return;
    for (let body = bodies.getStore(); body !== undefined; body = body.outer) {
      if (body.host !== this || !body.open) continue;
      throw failedPrecondition('a store was called inside an update without its transaction', {
        remedy: 'pass the transaction on: withTransactionContext(ctx, tx)',
      });
    }
  }

  #runCallbacks(): void {
    if (this.#callbacks.length === 0) return;
    const deleted = this.dirty.deletions > 0;
    for (const callback of this.#callbacks) callback(deleted);
  }
}
