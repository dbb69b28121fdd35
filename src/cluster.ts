/**
 * What a DB does in addition to its stores when it shares its tree over etcd: elects the host that collects,
 * sweeps this host's backends after removals by other hosts, and runs callbacks for deletions elsewhere.
 * Called by db.ts and open.ts.
 */
import { ClusterHosts } from './cluster-hosts.js';
import type { DBHost } from './db-host.js';
import type { Key, Locks, Remover, SharedTree } from './engine/contract.js';
import { collectionOf, components, leaf, snapshotKey } from './engine/schema/keys.js';
import { EbbtideError, failedPrecondition, isFailedPrecondition, unavailable } from './errors.js';
import { emptyStats, type GCStats } from './gc/stats.js';
import { BackendSweeper } from './gc/sweep/backend-sweeper.js';
import type { BackendItem } from './gc/sweep/orphan-candidates.js';
import { orphanLimits } from './gc/sweep/orphan-guard.js';
import { Guards, type Release } from './stores/guards.js';
import { isOfSystem, messageOf } from './system/system-errors.js';

/** Lock of the host that collects. */
const COLLECTOR = 'scheduler.v1';
/** Records of what this host's backends and directories have. */
const BACKED = new Set(['blobs', 'ingests', 'snapshots', 'mounts']);
/** Removals of other hosts are swept together once none has arrived for this long. */
const SWEEP_AFTER_MS = 250;
const SWEEP_RETRY_MS = 5_000;
const REFUSED_AGAIN_MS = 3600_000;
/**
 * Removals of one slice go into one etcd transaction: a slice ends when that is full (`Transaction.room`), some dozens
 * of removals, or at this budget.
 */
export const CLUSTER_SLICE_MS = 2;

export class Cluster {
  readonly #tree: SharedTree;
  readonly hosts: ClusterHosts;
  readonly #host: DBHost;
  readonly #betweenRuns: <T>(run: () => Promise<T>) => Promise<T>;
  #timer: NodeJS.Timeout | undefined;
  #collecting = false;
  #closed = false;

  readonly #mayCollect: () => boolean;

  /** @param mayCollect whether this host collects the tree; others sweep only their own backends */
  constructor(
    tree: SharedTree,
    host: DBHost,
    betweenRuns: <T>(run: () => Promise<T>) => Promise<T>,
    mayCollect: () => boolean,
  ) {
    this.#tree = tree;
    this.#host = host;
    this.hosts = new ClusterHosts(tree, host);
    this.#betweenRuns = betweenRuns;
    this.#mayCollect = mayCollect;
    host.dirty.onRaised = () => {
      if (!this.#mayCollect()) this.#sweepLater(SWEEP_AFTER_MS);
    };
    tree.listen({
      removing: (keys, by) => {
        if (by === 'this host') return;
        try {
          this.#removedElsewhere(keys, by);
        } catch (error) {
          // Without a list of the removed items the sweep has to cover everything.
          host.log('warn', 'removals of another host are looked for in the backends', {
            error: messageOf(error),
          });
          host.dirty.requireFullScan(host.backends.keys());
        }
      },
      remoteDeletions: (count) => {
        host.dirty.deletedElsewhere(count);
        queueMicrotask(() => host.changedElsewhere());
      },
      setBack: () => host.orphans.setBack(),
      collected: () => {
        if (!this.#collecting) host.dirty.resetDeletions();
      },
    });
    // After an unclean stop this host does not know what others have removed: it scans everything once.
    host.dirty.requireFullScanAfterUncleanStart(host.backends.keys());
    if (host.dirty.contentDirty || host.dirty.dirtySnapshotters.size > 0) this.#sweepLater(SWEEP_AFTER_MS);
  }

  /**
   * Runs a collection if this host may collect and no other one does; otherwise sweeps this host's own
   * backends, and returns zero stats. Rejects with FailedPrecondition when the lock was lost during the run
   * (this host was paused for too long).
   */
  collect(run: () => Promise<GCStats>): Promise<GCStats> {
    const sweepOnly = async (): Promise<GCStats> => {
      await this.sweepOwnBackends();
      return emptyStats();
    };
    return this.#mayCollect() ? this.#elected(run, sweepOnly) : sweepOnly();
  }

  /** The same for operations that must not be skipped silently. */
  collectOrFail<T>(run: () => Promise<T>): Promise<T> {
    if (!this.#mayCollect()) {
      throw failedPrecondition('this host does not collect the shared tree', { remedy: 'set enableEtcdGC' });
    }
    return this.#elected(run, () => {
      throw unavailable('another host is collecting', { remedy: 'try again later' });
    });
  }

  async #elected<T>(run: () => Promise<T>, otherwise: () => T | Promise<T>): Promise<T> {
    const unlock = await this.#host.engine.locks.tryLock(COLLECTOR).catch((error: unknown) => {
      if (error instanceof EbbtideError && error.object === COLLECTOR) return undefined;
      throw error;
    });
    if (unlock === undefined) return otherwise();
    this.#collecting = true;
    this.#tree.fenceGarbage(unlock);
    try {
      await this.#tree.confirm();
      const result = await run();
      await this.#tree.announceCollection();
      return result;
    } finally {
      this.#collecting = false;
      this.#tree.fenceGarbage(undefined);
      await unlock().catch((error: unknown) => {
        this.#host.log('warn', 'the collecting host lost its lock', { error: messageOf(error) });
      });
    }
  }

  // ------------------------------------------------------------------------------------------ own backends

  /**
   * Called before the records are removed, so they can still be read. A removal by no host of this tree (a
   * key deleted by hand, a tree set back) accounts for nothing: the backends are surveyed, and the guard
   * decides.
   */
  #removedElsewhere(keys: readonly Key[], by: Remover): void {
    const { dirty, backends } = this.#host;
    const own = keys.filter((key) => BACKED.has(collectionOf(key)));
    if (own.length === 0) return;
    // Without a look at the records, which may fail: the doubt must be there before they go.
    if (by === 'another host') dirty.removedElsewhere(own.flatMap((key) => this.#itemsOf(key)));
    else if (own.some((key) => collectionOf(key) !== 'mounts')) dirty.requireSurvey([...backends.keys()]);
    this.#sweepLater(SWEEP_AFTER_MS);
  }

  #itemsOf(record: Key): BackendItem[] {
    switch (collectionOf(record)) {
      case 'blobs':
        return [{ kind: 'blob', digest: leaf(record) }];
      case 'ingests': {
        const expected = this.#field(record, 'expected');
        const blobs: BackendItem[] = expected === '' ? [] : [{ kind: 'blob', digest: expected }];
        return [{ kind: 'ingest', ref: this.#field(record, 'ref') }, ...blobs];
      }
      case 'snapshots': {
        const [, namespace = '', snapshotter = ''] = components(record);
        const parent = this.#field(record, 'parent');
        const above = parent === '' ? '' : this.#field(snapshotKey(namespace, snapshotter, parent), 'name');
        return [{ kind: 'snapshot', snapshotter, name: this.#field(record, 'name'), parent: above }];
      }
      default:
        return [];
    }
  }

  #field(record: Key, field: string): string {
    const value = this.#host.engine.get(record);
    const text = typeof value === 'object' ? value[field] : undefined;
    return typeof text === 'string' ? text : '';
  }

  #sweepLater(ms: number): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#betweenRuns(() => this.sweepOwnBackends()).catch((error: unknown) => {
        if (this.#closed) return;
        this.#host.log('warn', 'sweeping the backends failed', { error: messageOf(error) });
        this.#sweepLater(SWEEP_RETRY_MS);
      });
    }, ms);
    this.#timer.unref();
  }

  /** Removes orphans from this host's backends. */
  async sweepOwnBackends(): Promise<void> {
    await this.#tree.confirm();
    const { dirty } = this.#host;
    const sweeper = new BackendSweeper(this.#host, orphanLimits(undefined));
    try {
      await sweeper.survey(false);
    } catch (error) {
      if (!isFailedPrecondition(error) || isOfSystem(error) || this.#closed) throw error;
      // The guard has logged it. Another survey may see a complete tree again.
      this.#sweepLater(REFUSED_AGAIN_MS);
      return;
    }
    let failed = (await this.#host.mounts.sweep()).length > 0;
    await sweeper.sweep((_, { errors }) => {
      if (errors.length > 0) failed = true;
    });
    if (failed) this.#sweepLater(SWEEP_RETRY_MS);
    else if (dirty.retryInMs !== undefined) this.#sweepLater(dirty.retryInMs);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}

/**
 * Guards of hosts that share directories: in addition to the guard within the process, a lock over etcd. A
 * removal holds it exclusively and reads a current mirror; a writer shares it until its record is visible to
 * all.
 */
export class SharedGuards extends Guards {
  readonly #locks: Locks;
  readonly #tree: SharedTree;

  constructor(locks: Locks, tree: SharedTree) {
    super();
    this.#locks = locks;
    this.#tree = tree;
  }

  override async acquire(name: string): Promise<Release> {
    const release = await super.acquire(name);
    for (;;) {
      try {
        const unlock = await this.#locks.lock(`guard/${name.replaceAll('\0', '/')}`);
        await this.#tree.confirm();
        return both(release, unlock);
      } catch (error) {
        // No caller may believe that it holds the guard; waiters have their own time limits.
        if (this.#tree.isClosed) return new Promise<Release>(() => undefined);
        if (!(error instanceof EbbtideError) || error.kind !== 'Unavailable') {
          release();
          throw error;
        }
      }
    }
  }

  override async share(name: string): Promise<Release> {
    const release = await super.share(name);
    try {
      return both(release, await this.#locks.rLock(`guard/${name.replaceAll('\0', '/')}`));
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Never at once: other hosts have to be asked. */
  override tryAcquire(_name: string): Release | undefined {
    return undefined;
  }
  override tryAcquireMany(names: readonly string[]): { taken: boolean[]; release: Release } {
    return { taken: names.map(() => false), release: () => undefined };
  }
}

function both(release: Release, unlock: () => Promise<void>): Release {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    release();
    // A lost lock has ended already.
    unlock().catch(() => undefined);
  };
}

/** Hosts whose backends have one name share the directories. */
export const sharesDirectories = ({ hostId, backendId }: SharedTree): boolean => hostId !== backendId;
