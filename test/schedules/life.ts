/**
 * One process over a schedule's store: the real engine, stores and collection on the storage and backends that outlive
 * it. What a `Mutation` takes away is taken away from outside, by wrapping; only the graph's barrier is switched by the
 * core's own option for tests. Both cores mark in steps, between which the schedule goes on.
 */
import type { CallContext } from '../../src/context.js';
import { DBHost, type HostParts } from '../../src/db-host.js';
import type { Engine, Transaction } from '../../src/engine/contract.js';
import { CoreEngine } from '../../src/engine/core/engine.js';
import { type GraphCore, liveFaults, type MarkOptions } from '../../src/engine/graph.js';
import { verifyEachCommit } from '../../src/engine/suite/verified.js';
import { isKind } from '../../src/errors.js';
import { type CollectOptions, collect } from '../../src/gc/collect.js';
import type { CollectHost } from '../../src/gc/host.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { ExpiryClock } from '../../src/gc/schedule/expiry-clock.js';
import type { GCStats } from '../../src/gc/stats.js';
import type { DirtyFlags } from '../../src/gc/sweep/dirty.js';
import { createGraph } from '../../src/graph/carriers.js';
import type { HostClock } from '../../src/model/clock.js';
import { now } from '../../src/model/time.js';
import { ContainerStore } from '../../src/stores/containers.js';
import { Guards } from '../../src/stores/guards.js';
import { ImageStore } from '../../src/stores/images.js';
import { LeaseManager } from '../../src/stores/leases.js';
import { SandboxStore } from '../../src/stores/sandboxes.js';
import { altered } from '../stores/store-world.js';
import type { Random } from '../support/random.js';
import type { Judge } from './judge.js';
import type { Marks } from './marks.js';
import type { WatchedStorage } from './mirror.js';
import type { Mutation } from './mutations.js';
import type { Scheduler } from './scheduler.js';
import type { Change } from './true-time.js';

export interface LifeParts extends Pick<HostParts, 'content' | 'backends' | 'policy'> {
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly judge: Judge;
  readonly marks: Marks;
  readonly storage: WatchedStorage;
  readonly cleanStart: boolean;
  readonly core: GraphCore['kind'];
  readonly mutation: Mutation | undefined;
  /** Compares the graph with the records after each commit. */
  readonly verify: boolean;
}

const noSuch = new Set<string>();

export class Life {
  readonly engine: Engine;
  readonly host: DBHost;
  readonly images: ImageStore;
  readonly containers: ContainerStore;
  readonly sandboxes: SandboxStore;
  readonly leases: LeaseManager;
  readonly #parts: LifeParts;
  readonly #collectHost: CollectHost;

  constructor(parts: LifeParts) {
    this.#parts = parts;
    const { random, scheduler, storage, content, backends, policy } = parts;
    this.engine = new CoreEngine({
      kind: 'memory',
      storage,
      revision: 0,
      cleanStart: parts.cleanStart || parts.mutation === 'no-walk-after-crash',
      indexer: metadataIndexer,
      graph: this.#graph(parts.core),
    });
    if (parts.verify) {
      verifyEachCommit(this.engine, (difference) =>
        scheduler.stop(`after a commit the graph is not what the records say: ${difference}`),
      );
    }
    this.host = new ScheduledHost(parts, {
      engine: this.engine,
      content,
      backends,
      policy,
      expiryClock: this.#expiryClock(),
      durability: random.pick(['flushed', 'flushed', 'visible']),
      jobs: { removeTrees: async () => ({ removed: 0, bytes: 0, errors: [] }) },
      log: (level, message, details) => {
        if (level !== 'info') scheduler.log(`${message} ${JSON.stringify(details ?? {})}`);
      },
    });
    this.images = new ImageStore(this.host);
    this.containers = new ContainerStore(this.host);
    this.sandboxes = new SandboxStore(this.host);
    this.leases = new LeaseManager(this.host);
    this.#collectHost = this.#hostOfCollections();
  }

  /** Reads what is stored beside the records, as the last part of an opening. */
  async load(): Promise<void> {
    await this.host.orphans.lookAtOpen();
    this.host.dirty.load();
    this.host.expiryClock.load(this.engine);
  }

  async collect(options: CollectOptions = {}): Promise<GCStats> {
    const { marks } = this.#parts;
    try {
      const unguarded = this.#parts.mutation === 'no-orphan-guard' && { orphanGuard: false };
      const stats = await collect(this.#collectHost, { ...options, ...unguarded });
      if (stats.backendErrors > 0) marks.add('backend failed in a run');
      return stats;
    } catch (error) {
      if (isKind(error, 'FailedPrecondition')) marks.add('orphan kept by guard');
      if (isKind(error, 'Unavailable') && (error as Error).message.includes('set back'))
        marks.add('run ended because the clock was set back');
      throw error;
    }
  }

  // ------------------------------------------------------------------------------------------------- the clock

  #expiryClock(): ExpiryClock {
    const { scheduler, mutation } = this.#parts;
    let clock: HostClock = scheduler.time.hostClock(now);
    if (mutation === 'monotonic-expiry') {
      let latest = 0n;
      const wall = (): bigint => {
        if (now() > latest) latest = now();
        return latest;
      };
      clock = { ...clock, wall };
    }
    if (mutation === 'no-glance') clock = { ...clock, drift: () => 0 };
    const graceMs = mutation === 'no-grace' ? 0 : undefined;
    const expiryClock = new ExpiryClock({
      clock,
      graceMs,
      log: (_level, message, { seconds }) => scheduler.log(`${message} (${seconds} s)`),
    });
    if (mutation === 'no-step-with-change') expiryClock.saveStep = () => undefined;
    if (mutation === 'no-clock-recheck') expiryClock.checkRun = () => undefined;
    return expiryClock;
  }

  // -------------------------------------------------------------------------------------------------- the graph

  #graph(kind: GraphCore['kind']): GraphCore {
    const { random, scheduler, judge, marks, mutation } = this.#parts;
    const stepNodes = random.pick([1, 1, 3, 16_384]);
    const core = createGraph(kind);
    // Reading live marks brings them up to date, so only some schedules do it after every step.
    const looks = random.chance(0.3);
    const look = (): void => {
      const wrong = (looks && core.wrongLive()) || [];
      if (wrong.length > 0) scheduler.stop(`live marks are not what a walk finds, at node ${wrong[0]}`);
    };
    const changes: Partial<GraphCore> = {
      apply: (ops) => {
        core.apply(ops);
        look();
      },
      mark: async (at, options = {}) => {
        await scheduler.step('marking begins');
        judge.runBegins(at);
        const result = await core.mark(at, this.#markOptions({ ...options, stepNodes }));
        look();
        await scheduler.step('marking has ended');
        return result;
      },
      stillCandidates: (ids) => {
        look();
        for (const id of ids) if (core.marksOf(id) !== 0) marks.add('revived during a slice');
        return mutation === 'no-recheck' ? ids.slice() : core.stillCandidates(ids);
      },
      endRun: () => {
        judge.runEnds();
        core.endRun();
      },
    };
    if (mutation === 'no-refollow') {
      let listed = false;
      changes.candidates = (from, count) => {
        listed = true;
        return core.candidates(from, count);
      };
      changes.withFlags = (flags) => (listed ? new Uint32Array() : core.withFlags(flags));
      changes.endRun = () => {
        listed = false;
        judge.runEnds();
        core.endRun();
      };
    }
    return altered<GraphCore>(core, changes);
  }

  #markOptions(options: MarkOptions): MarkOptions {
    const { mutation, random } = this.#parts;
    if (mutation === 'no-barrier') return { ...options, live: false, barrier: false };
    if (mutation === 'late-journal') return { ...options, live: false, barrier: 'late' };
    const fault = liveFaults.find((name) => mutation === `live-${name}`);
    // Runs of marks of their own are reported, too.
    return { ...options, live: fault ?? random.chance(0.8) };
  }

  // -------------------------------------------------------------------------------------------- the collection

  /** The host as a collection sees it: its commits are known by whose they are. */
  #hostOfCollections(): CollectHost {
    const { engine, host } = this;
    const { random, judge, scheduler, marks, mutation } = this.#parts;
    const waits = random.chance(0.3);
    const flush = engine.flush.bind(engine);
    const update = <T>(fn: (tx: Transaction) => T | Promise<T>, options = {}): Promise<T> => {
      const commit = () =>
        engine.update((tx) => {
          const result = fn(tx);
          judge.origin = 'collection';
          // After the commit, which follows in the same step.
          queueMicrotask(() => {
            judge.origin = 'writer';
          });
          return result;
        }, options);
      return waits ? scheduler.step('slice waits').then(commit) : commit();
    };
    const changes: Partial<Engine> = {
      update,
      flush: () => {
        judge.runIsComplete();
        return mutation === 'no-flush' ? Promise.resolve() : flush();
      },
      isReferenced: (key) => {
        if (mutation === 'no-sweep-recheck') return false;
        const referenced = engine.isReferenced(key);
        if (referenced) marks.add('named again before its bytes went');
        return referenced;
      },
    };
    const parts: Partial<CollectHost> = {
      engine: altered<Engine>(engine, changes),
      dirty: this.#dirty(),
      guards: altered<Guards>(host.guards, {
        acquire: (name) => {
          marks.add('kept by a writer’s guard');
          return host.guards.acquire(name);
        },
      }),
    };
    const unguarded: Partial<CollectHost> = {
      guards: new Guards(),
      contentStore: { inFlightIngests: () => noSuch },
      snapshotterStores: new Map(),
    };
    return altered<CollectHost>(host, { ...parts, ...(mutation === 'no-guards' && unguarded) });
  }

  #dirty(): DirtyFlags {
    const { dirty } = this.host;
    const { mutation } = this.#parts;
    const changes: Partial<DirtyFlags> = {};
    if (mutation === 'no-flag-after-failure') {
      changes.failed = () => undefined;
    }
    if (mutation === 'no-flag-compare') {
      // What was added since the order was taken is forgotten with it.
      changes.swept = (name) => dirty.swept(name, dirty.take(name));
    }
    return altered<DirtyFlags>(dirty, changes);
  }
}

/** Records what a change met, and that it happened. */
class ScheduledHost extends DBHost {
  readonly #parts: LifeParts;

  constructor(parts: LifeParts, hostParts: HostParts) {
    super(hostParts);
    this.#parts = parts;
  }

  override update<T>(ctx: CallContext, fn: (tx: Transaction) => T | Promise<T>): Promise<T> {
    const { marks, scheduler } = this.#parts;
    const change = scheduler.time.change();
    let runs = 0;
    return super.update(ctx, (tx) => {
      if (++runs === 2) marks.add('retry after conflict');
      tx.onCommit(() => this.#made(change));
      return fn(tx);
    });
  }

  #made(change: Change): void {
    change.made = true;
    this.engine.flush().then(
      () => {
        change.durable = true;
      },
      () => {
        change.made = false;
      },
    );
  }
}
