/**
 * The DB: one engine, one content backend, any number of snapshotters; provides the typed stores, runs
 * collections. Created by open.ts.
 *
 * Durability: a resolved operation is on disk, unless `durability: 'visible'` was chosen. Threading: one
 * process owns a directory; calls may overlap freely.
 */
import { type BackupOptions, type BackupReport, backUp } from './backup/backup.js';
import { type CheckOptions, checkStore } from './check/check.js';
import type { CheckReport } from './check/findings.js';
import { CLUSTER_SLICE_MS, Cluster, sharesDirectories } from './cluster.js';
import type { ClusterHosts } from './cluster-hosts.js';
import { type CallContext, requireNamespace, withTransactionContext } from './context.js';
import type { DBHost, MutationCallback } from './db-host.js';
import type { DBOptions } from './db-options.js';
import { EnableEtcdGC, LeaseBackend } from './defaults.js';
import type { Engine, GetOptions, PutOptions, Transaction, Transactor, Unlock } from './engine/contract.js';
import { RawStore } from './engine/raw.js';
import { initSchema } from './engine/schema/migrations.js';
import { failedPrecondition, openedReadOnly } from './errors.js';
import { type CollectOptions, collect } from './gc/collect.js';
import type { Collector } from './gc/collectors.js';
import type { CheckedMarks } from './gc/mark/live-marks.js';
import { applyPlan, type PlanOutcome } from './gc/report/apply-plan.js';
import type { CollectionRecord } from './gc/report/collection-record.js';
import { type GarbageNow, garbageNow } from './gc/report/garbage-now.js';
import { describeKey, findObject, type ObjectDescription, type ObjectName } from './gc/report/objects.js';
import { type CollectionPlan, type Plan, type PolicyPlan, planCollection } from './gc/report/plan.js';
import { diskUsageBy, type UsageOptions, type UsageReport } from './gc/report/retained.js';
import { type Why, type WhyOptions, why } from './gc/report/why.js';
import type { ClockSteps, ExpiryTime } from './gc/schedule/expiry-clock.js';
import { nextExpiry } from './gc/schedule/expiry-wake.js';
import { Scheduler } from './gc/schedule/scheduler.js';
import type { GCStats } from './gc/stats.js';
import type { DiskPool } from './gc/sweep/disk-pool.js';
import type { OrphanState } from './gc/sweep/orphan-guard.js';
import type { ResourceType } from './gc/types.js';
import type { HistoryOptions } from './history/history.js';
import type { Instant } from './model/time.js';
import { drawPicture, type PictureOptions } from './pictures/draw.js';
import { planPolicy } from './policy/plan.js';
import { type Policy, parsePolicy } from './policy/policy.js';
import { ContainerStore } from './stores/containers.js';
import type { ContentStore } from './stores/content/content.js';
import type { EventsPublisher, StoreHost } from './stores/host.js';
import { ImageStore } from './stores/images.js';
import { LeaseManager } from './stores/leases.js';
import type { MountManager } from './stores/mounts/manager.js';
import { NamespaceStore } from './stores/namespaces.js';
import { SandboxStore } from './stores/sandboxes.js';
import type { Snapshotter } from './stores/snapshots.js';
import { closeAll } from './system/close-all.js';
import { Serial } from './system/serial.js';
import { traced } from './tracing.js';

/** Options of one collection. */
export type RunOptions = Omit<CollectOptions, 'signal' | 'only'>;

/** An open store. */
export class DB implements AsyncDisposable {
  /** The names of images. */
  readonly images: ImageStore;
  /** The records of containers. */
  readonly containers: ContainerStore;
  /** The records of sandboxes. */
  readonly sandboxes: SandboxStore;
  /** The leases. */
  readonly leases: LeaseManager;
  /** The namespaces and their labels. */
  readonly namespaces: NamespaceStore;
  readonly #host: DBHost;
  readonly #raw: RawStore;
  /** When the tree is shared over etcd. */
  readonly #cluster: Cluster | undefined;
  readonly #pool: DiskPool | undefined;
  readonly #switches: Pick<DBOptions, 'enableEtcdGC' | 'leaseBackend'>;
  readonly #collections = new Serial();
  readonly #backups = new Map<AbortController, Promise<unknown>>();
  /** Collects at once, when the options ask for that. */
  readonly #scheduler: Scheduler<GCStats> | undefined;
  #closing: Promise<void> | undefined;

  /** Use `openDB` or `newDB`. */
  constructor(
    host: DBHost,
    pool?: DiskPool,
    switches: Pick<DBOptions, 'enableEtcdGC' | 'leaseBackend' | 'collect'> = {},
  ) {
    this.#host = host;
    this.#pool = pool;
    this.#switches = switches;
    const { engine } = host;
    const cluster =
      engine.shared === undefined
        ? undefined
        : new Cluster(
            engine.shared,
            host,
            (run) => this.#betweenRuns(run),
            () => this.enableEtcdGC,
          );
    this.#cluster = cluster;
    this.#raw = new RawStore(engine);
    this.images = new ImageStore(host);
    this.containers = new ContainerStore(host);
    this.sandboxes = new SandboxStore(host);
    this.leases = new LeaseManager(host);
    this.namespaces = new NamespaceStore(host);
    if (switches.collect === 'immediate') this.#scheduler = new Scheduler<GCStats>(this, { immediate: true });
  }

  /** @internal The host of the stores. */
  get host(): StoreHost {
    return this.#host;
  }
  /** The engine with the records. */
  get engine(): Engine {
    return this.#host.engine;
  }
  /** Opened with `readOnly`. */
  get isReadOnly(): boolean {
    return this.engine.isReadOnly;
  }
  /** The option, or else the current process-wide default. */
  get leaseBackend(): string {
    return this.#switches.leaseBackend ?? LeaseBackend;
  }
  /** As `leaseBackend`. */
  get enableEtcdGC(): boolean {
    return this.#switches.enableEtcdGC ?? EnableEtcdGC;
  }
  /** The mounts that are active. */
  get mounts(): MountManager {
    return this.#host.mounts;
  }
  /** The blobs. */
  get content(): ContentStore {
    return this.#host.contentStore;
  }
  /** The blobs; the same as `content`. */
  contentStore(): ContentStore {
    return this.#host.contentStore;
  }
  /** The namespaced snapshotter, or undefined when none of that name is configured. */
  snapshotter(name: string): Snapshotter | undefined {
    return this.#host.snapshotterStores.get(name);
  }
  /** All snapshotters, as a new map. */
  snapshotters(): Map<string, Snapshotter> {
    return new Map(this.#host.snapshotterStores);
  }

  /** Brings the schema up to date; called by `openDB` and `newDB`, idempotent. */
  init(_ctx?: CallContext): Promise<void> {
    return initSchema(this.engine);
  }

  /** Write transaction: `fn`'s store calls join it through `withTransactionContext(ctx, tx)`. */
  update<T>(fn: (tx: Transaction) => T | Promise<T>, ctx: CallContext = {}): Promise<T> {
    return this.#host.update(ctx, fn);
  }
  /** Read transaction at one revision; a write inside is FailedPrecondition. */
  view<T>(fn: (tx: Transaction) => T | Promise<T>): Promise<T> {
    return this.#host.view({}, fn);
  }
  /** The context with which the stores' calls join the transaction. */
  withTransactionContext(ctx: CallContext, tx: Transaction): CallContext {
    return withTransactionContext(ctx, tx);
  }

  /**
   * Runs one collection; a call during another waits and then runs its own. Rejects with the first error of
   * marking or removing records; errors of backends are logged, counted in the stats and retried by the next
   * run.
   *
   * Over etcd one host collects at a time: returns empty stats when this one may not (`enableEtcdGC`) or
   * another does.
   */
  async garbageCollect(ctx: CallContext = {}, options: RunOptions = {}): Promise<GCStats> {
    if (!options.dryRun) this.#checkWritable();
    const run = () =>
      collect(this.#host, { ...this.#defaults(), ...options, ...(ctx.signal && { signal: ctx.signal }) });
    const cluster = this.#cluster;
    const isAlone = cluster === undefined || options.dryRun;
    const context = () => ({ dryRun: options.dryRun === true, fullSweep: options.fullSweep === true });
    return traced('collection', context, () => this.#betweenRuns(isAlone ? run : () => cluster.collect(run)));
  }

  #defaults(): RunOptions {
    return this.#cluster === undefined ? {} : { sliceBudgetMs: CLUSTER_SLICE_MS };
  }

  /**
   * The store's collections of the past, newest first, with the first names of what each removed; runs that changed
   * nothing are left out. Over etcd those of this host. A bounded number is kept (256 KiB), also across restarts.
   */
  history(options: HistoryOptions = {}): Promise<CollectionRecord[]> {
    return this.#host.history.read(options);
  }

  /** What a collection would remove now, as plain JSON that can be inspected, stored and applied later. */
  planCollection(ctx: CallContext = {}, options: RunOptions = {}): Promise<CollectionPlan> {
    return this.#betweenRuns(() =>
      planCollection(this.#host, { ...options, ...(ctx.signal && { signal: ctx.signal }) }),
    );
  }
  /**
   * What a policy would retire now, what goes with that, and why every other root stays: a plan for `applyPlan`.
   * InvalidArgument names the rule and the field of what is not a policy.
   */
  async planPolicy(policy: Policy, ctx: CallContext = {}): Promise<PolicyPlan> {
    return planPolicy(this.#host, (run) => this.#betweenRuns(run), parsePolicy(policy), ctx.signal);
  }
  /**
   * Retires those roots of a plan that are still what it says, then removes only those objects that are still
   * garbage; the result lists the rest. InvalidArgument: not a plan. FailedPrecondition: a plan of another store or a
   * later revision, or the mass guard, before anything is removed.
   */
  async applyPlan(plan: Plan, ctx: CallContext = {}, options: RunOptions = {}): Promise<PlanOutcome> {
    this.#checkWritable();
    const run = () =>
      applyPlan(this.#host, plan, {
        ...this.#defaults(),
        ...options,
        ...(ctx.signal && { signal: ctx.signal }),
      });
    return this.#betweenRuns(async () => this.#cluster?.collectOrFail(run) ?? run());
  }

  /** Resolves an argument of `why` to an object. NotFound; InvalidArgument when several match. */
  async find(ctx: CallContext, object: string | ObjectName): Promise<ObjectDescription> {
    const name = typeof object === 'string' ? { name: object } : object;
    const ns = requireNamespace(ctx);
    return this.#host.read(ctx, (reader) =>
      describeKey(findObject(reader, [...this.snapshotters().keys()], ns, name)),
    );
  }
  /**
   * Why an object of the context's namespace is kept, or since when it is garbage. By name, id, ref or
   * snapshot key, or by digest or its beginning (at least 4 hex digits). NotFound; InvalidArgument when
   * several match.
   */
  why(ctx: CallContext, object: string | ObjectName, options: WhyOptions = {}): Promise<Why> {
    const name = typeof object === 'string' ? { name: object } : object;
    const result = why(this.#host, (run) => this.#betweenRuns(run), ctx, name, options);
    return this.hosts?.inWhy(result) ?? result;
  }
  /**
   * Bytes by root of each kind, by namespace or by snapshotter, of the context's namespace or, without one,
   * of all. NotFound: a name in `without` that has no row.
   */
  du(ctx: CallContext = {}, options: UsageOptions = {}): Promise<UsageReport> {
    const report = diskUsageBy(this.#host, (run) => this.#betweenRuns(run), ctx, options);
    return this.hosts?.inUsage(report) ?? report;
  }
  /**
   * What holds the disk, of all namespaces, as a text in pieces: a tree for other programs, or a page. Sums are those of `du`.
   * InvalidArgument: no such format. ResourceExhausted: too much for the format.
   */
  picture(ctx: CallContext = {}, options: PictureOptions = {}): AsyncGenerator<string, void, void> {
    return drawPicture(this.#host, (run) => this.#betweenRuns(run), ctx, options);
  }
  /** The hosts that share the tree over etcd; undefined for an embedded store. */
  get hosts(): ClusterHosts | undefined {
    return this.#cluster?.hosts;
  }
  /** The known orphans of the backends: see `CollectOptions.orphanGuard`. */
  get orphans(): OrphanState {
    return this.#host.orphans.state;
  }
  /** The time that expiries are compared with, and how often the wall clock was set since the store was opened. */
  get expiryTime(): ExpiryTime & { readonly steps: Readonly<ClockSteps> } {
    return this.#host.expiryClock;
  }
  /**
   * Compares the store with the disk, while it is in use; with `repair` moves files away that have a blob's
   * name but not its content. Findings are not errors: see the report.
   */
  async check(ctx: CallContext = {}, options: CheckOptions = {}): Promise<CheckReport> {
    const { engine } = this;
    if (options.repair) this.#checkWritable();
    const parts = {
      hasAllContent: engine.shared === undefined || sharesDirectories(engine.shared),
      hasAllSnapshots: engine.shared === undefined,
      verifyGraph: () => this.#betweenRuns(async () => engine.verifyGraph()),
    };
    return this.#host.read({}, () => checkStore(this.#host, parts, ctx.signal, options));
  }
  /**
   * Copies the whole store, as of one moment, into a new directory, while it is in use; what was acknowledged
   * before the call is in it. Collections remove no bytes during the backup. `restoreBackup` restores it.
   * AlreadyExists: the directory is not empty. InvalidArgument: it is inside the root. Unavailable: no space;
   * nothing is left then. What is missing in the store itself is not an error: see `problems` of the report.
   */
  async backup(directory: string, options: BackupOptions = {}): Promise<BackupReport> {
    this.#host.checkCall(options.signal === undefined ? {} : { signal: options.signal });
    const abort = new AbortController();
    const signal =
      options.signal === undefined ? abort.signal : AbortSignal.any([options.signal, abort.signal]);
    const run = async (): Promise<BackupReport> => {
      // Between collections: a sweep that has begun may have checked records of the backup's moment.
      const release = await this.#betweenRuns(async () => this.#host.suspendSweeps());
      try {
        return await backUp(this.#host, directory, { ...options, signal });
      } finally {
        release();
      }
    };
    const running = run();
    this.#backups.set(abort, running);
    try {
      return await running;
    } finally {
      this.#backups.delete(abort);
    }
  }
  /** What nothing keeps now; undefined before the first collection of an open store that did not bring its marks. */
  async garbage(ctx: CallContext = {}): Promise<GarbageNow | undefined> {
    this.#host.checkCall(ctx);
    return garbageNow(this.#host, () => this.#host.garbageWatch.age(), ctx.signal);
  }
  /** Reports new garbage soon after each change. */
  get garbageWatch(): { listen(fn: () => void): () => void } {
    return this.#host.garbageWatch;
  }
  /** Compares every mark that lives on between collections with a count anew, beside the writers. */
  checkMarks(): Promise<CheckedMarks> {
    return this.#betweenRuns(() => this.#host.liveMarks.check(this.engine.graph));
  }
  /** How often `checkMarks` compared marks, and how often some were wrong; then collections mark from the roots. */
  get marksChecked(): { readonly checks: number; readonly alarms: number } {
    return this.#host.liveMarks;
  }
  /** The earliest time later than `after` at which a lease, image or ingest expires; used by the scheduler. */
  nextExpiry(after: Instant): Instant | undefined {
    this.#host.checkCall({});
    return nextExpiry(this.engine, after);
  }

  /** Serializes operations that mark. */
  #betweenRuns<T>(run: () => Promise<T>): Promise<T> {
    return this.#collections.run(async () => this.#host.read({}, run));
  }

  /** InvalidArgument outside the range of registered types, AlreadyExists for a second one of a type. */
  registerCollectibleResource(type: ResourceType, collector: Collector): void {
    this.#host.collectors.register(type, collector);
  }
  /** Calls `fn` after every successful update, in the order of the registrations. */
  registerMutationCallback(fn: MutationCallback): void {
    this.#host.registerMutationCallback(fn);
  }
  /** The events publisher, unless the context carries a transaction. */
  publisher(ctx: CallContext): EventsPublisher | undefined {
    return ctx.tx === undefined ? this.#host.publisher : undefined;
  }

  // Raw keys and locks: a small key/value space beside the tree, with the semantics of an etcd client.

  /** Raw keys with their values: one, or all that begin so (`prefix`). */
  get(key: string, options: GetOptions = {}): Promise<Map<string, string>> {
    return this.#raw.get(key, options);
  }
  /** Stores a raw key. */
  put(key: string, value: string, options: PutOptions = {}): Promise<void> {
    return this.#raw.put(key, value, options);
  }
  /** Removes raw keys; returns their number. */
  del(key: string, options: { prefix?: boolean } = {}): Promise<number> {
    return this.#raw.del(key, options);
  }
  /** One transaction over raw keys; mutation callbacks run as for `update`. */
  eUpdate<T>(fn: (transactor: Transactor) => Promise<T>, ctx: CallContext = {}): Promise<T> {
    return this.#raw.eUpdate(fn, (body) => this.#host.update(ctx, body));
  }
  /** Raw keys outside a transaction. */
  transactor(): Transactor {
    return this.#raw;
  }
  /**
   * Exclusive lock, over etcd if the tree is there, else within this process; resolves to the unlock
   * function.
   */
  lock(prefix: string, ctx: CallContext = {}): Promise<Unlock> {
    return this.#raw.lock(prefix, ctx.signal);
  }
  /** As `lock`, shared with other readers. */
  rLock(prefix: string, ctx: CallContext = {}): Promise<Unlock> {
    return this.#raw.rLock(prefix, ctx.signal);
  }
  /** As `lock`, without waiting. Unavailable: somebody has it. */
  tryLock(prefix: string): Promise<Unlock> {
    return this.#raw.tryLock(prefix);
  }

  /** Waits for a running collection, aborts backups, then closes everything; later calls fail. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }
  /** Closes it, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#scheduler?.close();
    this.#host.close();
    this.#cluster?.close();
    for (const abort of this.#backups.keys()) abort.abort(failedPrecondition('the store is being closed'));
    await this.#collections.run(async () => undefined);
    await Promise.allSettled(this.#backups.values());
    if (!this.isReadOnly) await this.#storeState();
    await closeAll([
      ...[...this.#host.backends.values()].map((backend) => () => backend.close()),
      () => this.#host.content.close?.(),
      async () => this.#host.mountPoints?.close(),
      () => this.#pool?.close(),
      () => this.#host.history.close(),
      () => this.engine.close(),
    ]);
  }

  async #storeState(): Promise<void> {
    await this.#host.lastUse.close();
    await this.#host.dirty.store().catch((error: unknown) => {
      this.#host.log('info', 'the state of the sweeps could not be stored', {
        error: String(error),
      });
    });
    await this.#host.orphans.mark();
  }

  #checkWritable(): void {
    if (this.isReadOnly) throw openedReadOnly();
  }
}
