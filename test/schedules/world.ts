/**
 * One store under a schedule: what is on disk (records, backend items, resources), the process that works on it, its
 * deaths and openings, and a judge looking on. Every step of storage and backends is the scheduler's to decide.
 */
import type { GraphCore } from '../../src/engine/graph.js';
import type { CollectOptions } from '../../src/gc/collect.js';
import type { GCStats } from '../../src/gc/stats.js';
import { Streams } from '../../src/gc/streams.js';
import { ResourceMount, ResourceStream } from '../../src/gc/types.js';
import { FakeContent, FakeSnapshotter } from '../support/fake-backends.js';
import type { Random } from '../support/random.js';
import { type Faults, type OneFault, Steps, scheduledContent, scheduledSnapshotter } from './backends.js';
import { fill } from './fill.js';
import { Judge } from './judge.js';
import { Life } from './life.js';
import { Marks } from './marks.js';
import { type DiskFaults, type OnDisk, WatchedStorage } from './mirror.js';
import { environmentMutations, type Mutation } from './mutations.js';
import * as names from './names.js';
import { Mounts, type Resource, watched } from './resources.js';
import type { Scheduler } from './scheduler.js';

export interface WorldOptions {
  readonly core: GraphCore['kind'];
  readonly mutation?: Mutation | undefined;
  /** One backend call that fails, in place of those that the environment makes fail. */
  readonly fault?: OneFault | undefined;
  /** Compares the graph with the records after each commit; default false, then they are compared at the end only. */
  readonly verify?: boolean | undefined;
}

export class ScheduledWorld {
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly marks = new Marks();
  readonly judge: Judge;
  readonly faults: Faults = { before: 0, after: 0, look: 0, outage: false };
  readonly disk: DiskFaults = { lossRate: 0 };
  readonly content = new FakeContent();
  readonly snapshotters = new Map(names.snapshotters.map((name) => [name as string, new FakeSnapshotter()]));
  streams = new Streams();
  readonly resources: Resource[] = [];
  readonly #options: WorldOptions;
  readonly #steps: Steps;
  readonly #policy: 'shared' | 'isolated';
  #storage: WatchedStorage;
  #life: Life;
  #mounts: Mounts | undefined;
  /**
   * Whether backends may have items that only a walk finds: calls that fail leave some. After a death the first collection
   * walks by itself, and removals are known.
   */
  mayHaveOrphans = true;
  /** Collections that want to remove what no record names are refused. */
  metadataLost = false;

  constructor(random: Random, scheduler: Scheduler, options: WorldOptions) {
    this.random = random;
    this.scheduler = scheduler;
    this.#options = options;
    this.faults.only = options.fault;
    this.#steps = new Steps(scheduler, random, this.faults, this.marks);
    this.#policy = random.pick(['shared', 'isolated']);
    this.#storage = this.#newStorage();
    this.judge = new Judge({
      storage: this.#storage,
      content: this.content,
      snapshotters: this.snapshotters,
      resources: this.resources,
      violation: (text) => scheduler.stop(text),
      time: scheduler.time,
      marks: this.marks,
    });
    this.#life = this.#newLife(true);
  }

  get engine() {
    return this.#life.engine;
  }
  get host() {
    return this.#life.host;
  }
  get images() {
    return this.#life.images;
  }
  get containers() {
    return this.#life.containers;
  }
  get sandboxes() {
    return this.#life.sandboxes;
  }
  get leases() {
    return this.#life.leases;
  }

  /** Whether the environment must do something. */
  get isStormy(): boolean {
    return environmentMutations.some((name) => name === this.#options.mutation);
  }

  /** Backend calls so far. */
  get calls(): number {
    return this.#steps.count;
  }

  /** Puts records, backend items and resources there. */
  async fill(): Promise<void> {
    const { engine, content, snapshotters, random } = this;
    await this.#life.load();
    await fill({ engine, content, snapshotters, random });
    this.#addResources();
    await this.host.expiryClock.save(engine);
    this.#storage.watcher = this.judge;
  }

  #newStorage(): WatchedStorage {
    return new WatchedStorage(this.scheduler, this.random, this.disk, this.marks);
  }

  #newLife(cleanStart: boolean): Life {
    const { random, scheduler, judge, marks } = this;
    const { core, mutation, verify = false } = this.#options;
    return new Life({
      random,
      scheduler,
      judge,
      marks,
      storage: this.#storage,
      cleanStart,
      core,
      mutation,
      verify,
      policy: this.#policy,
      content: scheduledContent(this.content, this.#steps, judge),
      backends: new Map(
        [...this.snapshotters].map(([name, real]) => [
          name,
          scheduledSnapshotter(name, real, this.#steps, judge),
        ]),
      ),
    });
  }

  // ---------------------------------------------------------------------------------------------- the resources

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
    const delay = () => (slow ? this.scheduler.step('collector returns') : undefined);
    const mounts = this.resources.filter(({ word }) => word === 'mount');
    this.#mounts = new Mounts(mounts, delay);
    this.#register(this.#mounts);
  }

  #register(mounts: Mounts): void {
    this.host.collectors.register(ResourceMount, watched(mounts, this.judge));
    this.host.collectors.register(ResourceStream, watched(this.streams, this.judge));
  }

  addStream(namespace: string, name: string, lease: string | undefined): void {
    this.streams.register({ namespace, lease }, name, { close: () => {} });
    const held = lease === undefined ? {} : { lease };
    const active = lease === undefined;
    this.resources.push({ word: 'stream', namespace, name, active, ...held, parents: [], references: [] });
  }

  // -------------------------------------------------------------------------------------------- runs and deaths

  collect(options: CollectOptions = {}): Promise<GCStats> {
    return this.#life.collect(options);
  }

  /**
   * The process ends, by itself or in the middle of everything, and another one opens what is on disk; `lost`: the records
   * are not, as when their directory is not mounted.
   */
  async reopen(how: 'closed' | 'died' | 'lost'): Promise<void> {
    const { scheduler, judge } = this;
    scheduler.log(`the process has ${how}`);
    if (how === 'closed') {
      // Commits that are lost now do not keep it open.
      scheduler.spawn('closing', () => this.engine.flush().catch(() => undefined));
      await scheduler.run();
      this.marks.add('opened after a clean close');
    } else if (judge.inRun) this.marks.add('death in a run');
    scheduler.abandon();
    const onDisk = this.#storage.die();
    scheduler.time.died();
    this.content.died();
    this.streams = new Streams();
    const left = this.resources.filter(({ word }) => word !== 'stream');
    this.resources.splice(0, this.resources.length, ...left);
    this.#storage = this.#newStorage();
    this.#life = this.#newLife(how === 'closed');
    if (how === 'lost') {
      this.metadataLost = true;
      scheduler.time.forget();
    } else await this.#read(onDisk);
    // Nothing else happens until the store is open.
    scheduler.spawn('opening', () => this.#life.load());
    await scheduler.run();
    if (this.#mounts) this.#register(this.#mounts);
    judge.opened(this.#storage, how === 'lost');
    this.#storage.watcher = judge;
  }

  /** Fills the new storage with what is on disk. */
  async #read({ mirror, counters }: OnDisk): Promise<void> {
    const put = (tx: Parameters<Parameters<typeof this.engine.update>[0]>[0]): void => {
      for (const [record, value] of mirror.records()) tx.put(record, value);
      for (const [from, relation, to] of mirror.allLinks()) tx.link(from, relation, to);
      for (const [name, value] of counters) for (let n = 0; n < value; n++) tx.next(name);
    };
    await this.engine.update(put, { durability: 'visible' });
  }

  // -------------------------------------------------------------------------------------------------- at rest

  /** A user has looked at what no record names, and consents. */
  async #consent(): Promise<void> {
    if (!this.metadataLost) return;
    this.judge.consent();
    await this.collect({ fullSweep: true, orphanGuard: false });
  }

  /** Collections that nothing disturbs, until the graces are over; then nothing may be left anywhere. */
  async rest(): Promise<void> {
    Object.assign(this.faults, { only: undefined, before: 0, after: 0, look: 0, outage: false });
    this.disk.lossRate = 0;
    await this.#consent();
    await this.collect();
    // Graces are over, and what a backend has refused is tried again.
    this.scheduler.pass(61);
    const stats = await this.collect({ fullSweep: this.mayHaveOrphans });
    if (stats.backendErrors > 0) this.scheduler.stop('an undisturbed collection had trouble with a backend');
    const differences = this.engine.verifyGraph();
    if (differences.length > 0)
      this.scheduler.stop(`the graph is not what the records say: ${differences[0]}`);
    this.judge.atRest(this.scheduler.time.clock.wall());
  }
}
