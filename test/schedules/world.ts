/**
 * One store under a schedule: the real stores, transactions, graph core and collection over a storage and backends
 * whose every step the scheduler decides on, with a judge looking on. What a `Mutation` takes away is taken away from
 * outside, by wrapping; only the graph's barrier is switched by the core's own option for tests. Both cores mark in
 * steps, between which the schedule goes on.
 */

import { DBHost } from '../../src/db-host.js';
import type { Engine, Transaction } from '../../src/engine/contract.js';
import { CoreEngine } from '../../src/engine/core/engine.js';
import type { GraphCore, MarkOptions } from '../../src/engine/graph.js';
import { type CollectHost, type CollectOptions, collect } from '../../src/gc/collect.js';
import { createGraph } from '../../src/gc/graph.js';
import { metadataIndexer } from '../../src/gc/references.js';
import type { GCStats } from '../../src/gc/stats.js';
import { Streams } from '../../src/gc/streams.js';
import { ResourceMount, ResourceStream } from '../../src/gc/types.js';
import { now } from '../../src/model/time.js';
import { ContainerStore } from '../../src/stores/containers.js';
import { Guards } from '../../src/stores/guards.js';
import { ImageStore } from '../../src/stores/images.js';
import { LeaseManager } from '../../src/stores/leases.js';
import { SandboxStore } from '../../src/stores/sandboxes.js';
import { altered } from '../stores/store-world.js';
import { FakeContent, FakeSnapshotter } from '../support/fake-backends.js';
import type { Random } from '../support/random.js';
import { type Faults, Steps, scheduledContent, scheduledSnapshotter } from './backends.js';
import { fill } from './fill.js';
import { Judge } from './judge.js';
import { type DiskFaults, WatchedStorage } from './mirror.js';
import * as names from './names.js';
import { Mounts, type Resource, watched } from './resources.js';
import type { Scheduler } from './scheduler.js';

/** A protection that a schedule runs without. */
export const mutations = [
  /** What is committed during a run changes no mark. */
  'no-barrier',
  /** The journal is followed from the end of marking instead of its beginning. */
  'late-journal',
  /** Slices remove what was listed, without asking again. */
  'no-recheck',
  /** Conditions and collectors are asked once, before the first slice. */
  'no-resettle',
  /** Backend sweeps take guards that nobody else knows of. */
  'no-guards',
  /** Bytes go without waiting until the removal of their records is on disk. */
  'no-flush',
  /** Backend sweeps do not ask whether a record names the item. */
  'no-sweep-recheck',
] as const;
export type Mutation = (typeof mutations)[number];

export interface WorldOptions {
  readonly core: GraphCore['kind'];
  readonly mutation?: Mutation | undefined;
}

const noSuch = new Set<string>();

export class ScheduledWorld {
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly judge: Judge;
  readonly faults: Faults = { rate: 0 };
  readonly content = new FakeContent();
  readonly snapshotters = new Map(names.snapshotters.map((name) => [name as string, new FakeSnapshotter()]));
  readonly engine: Engine;
  readonly host: DBHost;
  readonly images: ImageStore;
  readonly containers: ContainerStore;
  readonly sandboxes: SandboxStore;
  readonly leases: LeaseManager;
  readonly streams = new Streams();
  readonly resources: Resource[] = [];
  readonly #mutation: Mutation | undefined;
  readonly #collectHost: CollectHost;
  readonly #storage: WatchedStorage;

  constructor(random: Random, scheduler: Scheduler, options: WorldOptions) {
    this.random = random;
    this.scheduler = scheduler;
    this.#mutation = options.mutation;
    this.#storage = new WatchedStorage(scheduler, random);
    this.judge = new Judge({
      storage: this.#storage,
      content: this.content,
      snapshotters: this.snapshotters,
      resources: this.resources,
      violation: (text) => scheduler.stop(text),
    });
    const steps = new Steps(scheduler, random, this.faults);
    this.engine = new CoreEngine({
      kind: 'memory',
      storage: this.#storage,
      revision: 0,
      cleanStart: true,
      indexer: metadataIndexer,
      graph: this.#graph(options.core),
    });
    this.host = new DBHost({
      engine: this.engine,
      content: scheduledContent(this.content, steps, this.judge),
      backends: new Map(
        [...this.snapshotters].map(([name, real]) => [
          name,
          scheduledSnapshotter(name, real, steps, this.judge),
        ]),
      ),
      policy: random.pick(['shared', 'isolated']),
      durability: random.pick(['flushed', 'flushed', 'visible']),
      jobs: { removeTrees: async () => ({ removed: 0, bytes: 0, errors: [] }) },
      log: (level, message, details) => {
        if (level !== 'info') scheduler.note(`${message} ${JSON.stringify(details ?? {})}`);
      },
    });
    this.host.dirty.load();
    this.images = new ImageStore(this.host);
    this.containers = new ContainerStore(this.host);
    this.sandboxes = new SandboxStore(this.host);
    this.leases = new LeaseManager(this.host);
    this.#collectHost = this.#hostOfCollections();
  }

  get disk(): DiskFaults {
    return this.#storage.faults;
  }

  /** Puts records, backend items and resources there. */
  async fill(): Promise<void> {
    const { engine, content, snapshotters, random } = this;
    await fill({ engine, content, snapshotters, random });
    this.#addResources();
    this.#storage.watcher = this.judge;
  }

  #addResources(): void {
    const { random } = this;
    if (random.chance(0.4)) return;
    for (const name of names.mounts) {
      const namespace = random.pick(names.namespaces);
      const list = (max: number) =>
        Array.from({ length: random.int(max + 1) }, () => names.node(random, namespace));
      const lease = random.chance(0.4) ? { lease: random.pick(names.leases) } : {};
      const active = random.chance(0.3);
      this.resources.push({
        word: 'mount',
        namespace,
        name,
        active,
        ...lease,
        parents: list(1),
        references: list(2),
      });
    }
    for (const name of names.streams) this.addStream('ns1', name, random.pick([...names.leases, undefined]));
    const slow = random.chance(0.5);
    const answer = () => (slow ? this.scheduler.step('collector answers') : undefined);
    const mounts = this.resources.filter(({ word }) => word === 'mount');
    this.host.collectors.register(ResourceMount, watched(new Mounts(mounts, answer), this.judge));
    this.host.collectors.register(ResourceStream, watched(this.streams, this.judge));
  }

  addStream(namespace: string, name: string, lease: string | undefined): void {
    this.streams.register({ namespace, lease }, name, { close: () => {} });
    const held = lease === undefined ? {} : { lease };
    const active = lease === undefined;
    this.resources.push({ word: 'stream', namespace, name, active, ...held, parents: [], references: [] });
  }

  collect(options: CollectOptions = {}): Promise<GCStats> {
    return collect(this.#collectHost, options);
  }

  // -------------------------------------------------------------------------------------------------- the graph

  #graph(kind: GraphCore['kind']): GraphCore {
    const stepNodes = this.random.pick([1, 1, 3, 16_384]);
    const core = createGraph(kind);
    const changes: Partial<GraphCore> = {
      mark: async (at, options = {}) => {
        await this.scheduler.step('marking begins');
        this.judge.runBegins(at);
        const result = await core.mark(at, this.#markOptions({ ...options, stepNodes }));
        await this.scheduler.step('marking has ended');
        return result;
      },
      endRun: () => {
        this.judge.runEnds();
        core.endRun();
      },
    };
    if (this.#mutation === 'no-recheck') changes.stillCandidates = (ids) => ids.slice();
    if (this.#mutation === 'no-resettle') {
      let listed = false;
      changes.candidates = (from, count) => {
        listed = true;
        return core.candidates(from, count);
      };
      changes.withFlags = (flags) => (listed ? new Uint32Array() : core.withFlags(flags));
      changes.endRun = () => {
        listed = false;
        this.judge.runEnds();
        core.endRun();
      };
    }
    return altered<GraphCore>(core, changes);
  }

  #markOptions(options: MarkOptions): MarkOptions {
    if (this.#mutation === 'no-barrier') return { ...options, barrier: false };
    if (this.#mutation === 'late-journal') return { ...options, barrier: 'late' };
    return options;
  }

  // -------------------------------------------------------------------------------------------- the collection

  /** The host as a collection sees it: its commits are known by whose they are. */
  #hostOfCollections(): CollectHost {
    const { engine, judge, scheduler } = this;
    const waits = this.random.chance(0.3);
    const flush = engine.flush.bind(engine);
    const update = <T>(fn: (tx: Transaction) => T | Promise<T>, options = {}): Promise<T> => {
      const commit = () =>
        engine.update((tx) => {
          const result = fn(tx);
          judge.origin = 'collection';
          // Behind the commit, which follows in the same breath.
          queueMicrotask(() => {
            judge.origin = 'writer';
          });
          return result;
        }, options);
      return waits ? scheduler.step('slice waits for its turn').then(commit) : commit();
    };
    const changes: Partial<Engine> = {
      update,
      flush: () => {
        judge.runIsComplete();
        return this.#mutation === 'no-flush' ? Promise.resolve() : flush();
      },
    };
    if (this.#mutation === 'no-sweep-recheck') changes.mentioned = () => false;
    const host: Partial<CollectHost> = { engine: altered<Engine>(engine, changes) };
    const parts: Partial<CollectHost> =
      this.#mutation === 'no-guards'
        ? {
            guards: new Guards(),
            contentStore: { inFlightIngests: () => noSuch },
            snapshotterStores: new Map(),
          }
        : {};
    return altered<CollectHost>(this.host, { ...host, ...parts });
  }

  // -------------------------------------------------------------------------------------------------- at rest

  /** Two quiet collections, the second with a walk; then nothing may be left anywhere. */
  async settle(): Promise<void> {
    this.faults.rate = 0;
    this.disk.lossRate = 0;
    await this.collect();
    const stats = await this.collect({ fullSweep: true });
    if (stats.backendErrors > 0) this.scheduler.stop('a quiet collection had trouble with a backend');
    const differences = this.engine.verifyGraph();
    if (differences.length > 0)
      this.scheduler.stop(`the graph is not what the records say: ${differences[0]}`);
    this.judge.atRest(now());
  }
}
