/**
 * The etcd engine: one tree shared by several hosts. Made by open.ts; called through DB and by embedders.
 *
 * Each host reads its own mirror of the tree (mirror.ts) and commits to etcd (commit.ts); an update resolves when its
 * commit is decided in etcd and shown by this host's mirror. Transactions of all hosts are serialisable. Reads of
 * the engine itself are of the mirror as it is; `confirm`, `view` and `update` first make sure that it holds
 * everything that was committed before they were called, unless `serializable` was asked for.
 *
 * Durability: what is decided in etcd is on disk at a majority of its members. The mirror is a copy; losing it costs
 * loading it again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type EbbtideError, failedPrecondition, invalidArgument, unavailable } from '../../errors.js';
import { formatTimestamp, now } from '../../model/time.js';
import type {
  ChangeSet,
  Engine,
  EngineStats,
  GetOptions,
  Key,
  ReadValue,
  Remover,
  ScanOptions,
  SharedTree,
  SharedTreeListener,
  StoredNode,
  TreeHost,
  Unlock,
  Value,
} from '../contract.js';
import type { CoreEngine } from '../core/engine.js';
import type { EndRun } from '../core/exclusive.js';
import type { Changed } from '../core/history.js';
import type { Attempt } from '../core/transaction.js';
import { type Body, type Privilege, UpdateLoop } from '../core/update-loop.js';
import type { GraphCore } from '../graph.js';
import type { EtcdClient } from './client/client.js';
import { EtcdLocks, fenceOf } from './cluster/locks.js';
import { knownHosts } from './cluster/members.js';
import type { Session } from './cluster/session.js';
import type { ClosedGate, Committer } from './commit/commit.js';
import type { Counters } from './commit/counters.js';
import { EtcdTransaction } from './commit/transaction.js';
import { forgetHost } from './forget-host.js';
import { LAST, type Layout, rawName } from './format/layout.js';
import { Confirmation } from './mirror/confirmation.js';
import type { Mirror } from './mirror/mirror.js';
import { observedGraph } from './observed-graph.js';
import { EtcdRawKeys } from './raw-keys.js';

/** Conflicts after which this host's other commits wait for a transaction. */
const CONFLICTS_MAX = 4;
/** Conflicts after which the commits of all hosts wait for a transaction, while its body runs no longer than a moment. */
const CONFLICTS_ALONE_MAX = 10;
const GATE_MS_MAX = 1_000;
const ATTEMPTS_MAX = 16;
/** A removal of garbage conflicts with every new reference anywhere: it is patient instead of failing. */
const GARBAGE_ATTEMPTS_MAX = 100;
const GARBAGE_CONFLICTS_MAX = 12;
const PAUSE_MS = 2;
/** What work that can wait leaves to others between two commits. */
const BACKGROUND_PAUSE_MS = 3;

export interface EtcdEngineParts {
  client: EtcdClient;
  layout: Layout;
  mirror: Mirror;
  session: Session;
  counters: Counters;
  committer: Committer;
}

/** What an attempt may do while others wait. */
interface Right extends Privilege<boolean> {
  /** Set: the commits of all hosts wait. */
  readonly gate: ClosedGate | undefined;
}

/** The engine over etcd; made by `openEtcdEngine`. */
export class EtcdEngine extends UpdateLoop<EtcdTransaction, boolean, Right> implements Engine, SharedTree {
  readonly kind = 'etcd';
  readonly shared: SharedTree = this;
  readonly hostId: string;
  readonly backendId: string;
  readonly graph: GraphCore;
  readonly locks: EtcdLocks;
  /** @internal */
  readonly client: EtcdClient;
  /** @internal */
  readonly layout: Layout;
  /** @internal */
  readonly committer: Committer;
  readonly #rawKeys: EtcdRawKeys;
  readonly #mirror: Mirror;
  readonly #embedded: CoreEngine;
  readonly #session: Session;
  readonly #confirmation: Confirmation;
  readonly #counters: Counters;
  /** The transaction whose body is running synchronously. */
  #running: EtcdTransaction | undefined;
  /** Commits on their way, with what they change. */
  readonly #committing = new Map<Promise<unknown>, Changed>();
  #closing: Promise<void> | undefined;
  #missedRemovals = false;
  leaseScope: string | undefined;

  constructor(parts: EtcdEngineParts) {
    super();
    this.client = parts.client;
    this.hostId = parts.client.settings.hostId;
    this.backendId = parts.client.settings.backendId;
    this.layout = parts.layout;
    this.#rawKeys = new EtcdRawKeys(parts.client, parts.layout);
    this.#mirror = parts.mirror;
    this.#embedded = parts.mirror.engine;
    this.#session = parts.session;
    this.#confirmation = new Confirmation(parts.client, parts.mirror, () => this.checkOpen());
    this.#counters = parts.counters;
    this.committer = parts.committer;
    this.locks = new EtcdLocks(parts.client, parts.session);
    this.graph = observedGraph(
      () => parts.mirror.engine.graph,
      () => {
        if (this.#running !== undefined) this.#running.readsGraph = true;
      },
    );
    const missed = (_keys: readonly Key[], by: Remover): void => {
      if (by !== 'this host') this.#missedRemovals = true;
    };
    this.listen({ removing: missed, remoteDeletions() {}, collected() {}, setBack() {} });
  }

  listen(listener: SharedTreeListener): void {
    const { hostId } = this;
    this.#mirror.listener = {
      removing: (host, keys) => {
        if (host === undefined) listener.removing(keys, 'unknown');
        else listener.removing(keys, host === hostId ? 'this host' : 'another host');
      },
      deletions: (host, count) => {
        if (host !== hostId) listener.remoteDeletions(count);
      },
      collected: () => listener.collected(),
      setBack: () => listener.setBack(),
      counterGone: (name) => this.#counters.forgetOne(name),
      lockChanged: (name) => this.locks.changed(name),
    };
  }

  // ------------------------------------------------------------------------------------------------- plain reads

  get revision(): number {
    return this.#embedded.revision;
  }
  get wasSetBack(): boolean {
    return this.#mirror.state.isDoubtful;
  }
  setBackNoted(): Promise<void> {
    return this.#mirror.state.trust();
  }
  /** Revision of etcd up to which the mirror holds everything. */
  get etcdRevision(): number {
    return this.#mirror.revision;
  }
  get epoch(): number {
    return this.#embedded.epoch + this.#mirror.epoch;
  }
  /** Whether the mirror went on from a clean stop of this host, and no removal of others was missed since. */
  readonly isReadOnly = false;

  get cleanStart(): boolean {
    // A host that was removed from the cluster has lost its flags there.
    const went = this.#mirror.resumed && this.#session.wasKnown;
    return this.#embedded.cleanStart && went && !this.#missedRemovals;
  }

  get(key: Key): Value | undefined {
    return this.#embedded.get(key);
  }
  has(key: Key): boolean {
    return this.#embedded.has(key);
  }
  scan(prefix: Key, options?: ScanOptions): Iterable<[Key, Value]> {
    return this.#embedded.scan(prefix, options);
  }
  visit(prefix: Key, after: Key | undefined, read: ReadValue<void>): Key | undefined {
    return this.#embedded.visit(prefix, after, read);
  }
  firstKey(prefix: Key, after: Key | undefined): Key | undefined {
    return this.#embedded.firstKey(prefix, after);
  }
  links(from: Key, relation: string, first?: number): Iterable<Key> {
    return this.#embedded.links(from, relation, first);
  }
  hasLinks(from: Key, relation: string): boolean {
    return this.#embedded.hasLinks(from, relation);
  }
  hasLink(from: Key, relation: string, to: Key): boolean {
    return this.#embedded.hasLink(from, relation, to);
  }
  keyOf(id: number): Key | undefined {
    return this.#embedded.keyOf(id);
  }
  readNode<T>(id: number, read: (node: StoredNode) => T): T | undefined {
    return this.#embedded.readNode(id, read);
  }
  idOf(key: Key): number | undefined {
    return this.#embedded.idOf(key);
  }
  isReferenced(key: Key): boolean {
    return this.#embedded.isReferenced(key);
  }
  /** The mirror counts its own revisions. */
  isGone(key: Key): boolean {
    return !this.#embedded.has(key);
  }

  mightBeReferenced(prefixes: readonly Key[], leaves: readonly string[]): Promise<Uint8Array> {
    return this.#embedded.mightBeReferenced(prefixes, leaves);
  }

  confirm(): Promise<void> {
    return this.#confirmation.confirm();
  }

  /** `confirm`, unless reads may be old (option `serializable`). */
  fresh(): Promise<void> | undefined {
    return this.client.settings.serializable ? undefined : this.confirm();
  }

  // ------------------------------------------------------------------------------------------------ transactions

  override async view<T>(fn: Body<T>): Promise<T> {
    this.checkOpen();
    await this.fresh();
    await this.#mirror.ready();
    return super.view(fn);
  }

  protected async enter(
    attempt: number,
    last: EtcdTransaction | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Right | undefined> {
    let run: EndRun | undefined;
    let gate: ClosedGate | undefined;
    let limit: NodeJS.Timeout | undefined;
    const end = async (committed: boolean | undefined): Promise<void> => {
      clearTimeout(limit);
      run?.();
      // The commit has opened it.
      if (committed !== true) await gate?.open();
    };
    try {
      if (last?.readsGraph) {
        // No writer of this host waits for it; after many conflicts all hosts do, for the moment of one commit.
        if (attempt > GARBAGE_CONFLICTS_MAX) gate = await this.committer.closeGate(signal);
      } else if (attempt > CONFLICTS_MAX) {
        run = await this.exclusive.begin(signal);
        await Promise.allSettled(this.#committing.keys());
        if (attempt > CONFLICTS_ALONE_MAX) {
          gate = await this.committer.closeGate(signal);
          // The body may wait for something: then the others go on, and it runs again.
          limit = setTimeout(() => void gate?.open(), GATE_MS_MAX);
        }
      } else while (this.exclusive.isBlocked(undefined)) await this.exclusive.pass(signal);
      // Never synchronous: a caller that goes on at once must not take the commit for done.
      await this.#mirror.ready();
    } catch (error) {
      await end(undefined);
      throw error;
    }
    return run === undefined && gate === undefined ? undefined : { run, gate, end };
  }

  protected begin(attempt: Attempt): EtcdTransaction {
    return new EtcdTransaction(this.#embedded, attempt, {
      counters: this.#counters,
      etcdRevision: this.#mirror.revision,
      mirrorEpoch: this.#mirror.epoch,
      leaseScope: this.leaseScope,
      checkOpen: () => this.checkOpen(),
    });
  }

  protected end(tx: EtcdTransaction): void {
    tx.end();
  }

  protected override run<T>(fn: Body<T>, tx: EtcdTransaction): T | Promise<T> {
    const outer = this.#running;
    this.#running = tx;
    try {
      return fn(tx);
    } finally {
      this.#running = outer;
    }
  }

  /** With the gate closed it must not wait for others, which wait for the gate. */
  protected override isBlocked(right: Right | undefined): boolean {
    return right?.gate === undefined && super.isBlocked(right);
  }

  /** One that has no number for a counter runs again, even if its body went on without. */
  protected override isStale(tx: EtcdTransaction): boolean {
    if (tx.needs !== undefined || tx.mirrorEpoch !== this.#mirror.epoch || this.#mirror.isLoading)
      return true;
    return tx.isStale;
  }

  protected override async isOutdated(tx: EtcdTransaction): Promise<boolean> {
    if (tx.needs !== undefined) return true;
    if (this.#closing !== undefined) return false;
    if (this.isStale(tx)) return true;
    if (tx.reads.isEmpty) return false;
    await this.fresh();
    return this.isStale(tx);
  }

  protected async conflicted(tx: EtcdTransaction, attempt: number): Promise<boolean> {
    await this.committer.checkGuards(tx);
    if (tx.needs !== undefined) {
      await this.#counters.reserve(tx.needs);
      return false;
    }
    if (attempt >= (tx.readsGraph ? GARBAGE_ATTEMPTS_MAX : ATTEMPTS_MAX)) {
      throw unavailable(`the transaction met a conflict in each of ${attempt} runs`, {
        remedy: 'try again when the other hosts write less, or make the transaction smaller',
      });
    }
    // The watch may have missed that a counter was forgotten.
    if (attempt > 2) for (const counter of tx.handedOut.keys()) this.#counters.forgetOne(counter);
    // A refused removal has cost etcd as much as a write: writers shall not wait for one after the other.
    if (tx.readsGraph) await sleep(BACKGROUND_PAUSE_MS);
    else if (attempt > 1) await sleep((1 + Math.random()) * PAUSE_MS * Math.min(attempt, 8));
    return true;
  }

  /** Waits for commits of this host that would make this one fail: cheaper than being refused by etcd. */
  async #afterRivals(tx: EtcdTransaction): Promise<void> {
    for (const [committing, rival] of this.#committing) {
      if (!tx.reads.touchedBy(rival)) continue;
      await committing.catch(() => undefined);
      if (this.isStale(tx)) return;
    }
  }

  /** Whether anything was written; undefined: a conflict. */
  protected async commit(
    tx: EtcdTransaction,
    right: Right | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean | undefined> {
    if (right?.gate === undefined) await this.#afterRivals(tx);
    if (this.isStale(tx)) return undefined;
    if (tx.isEmpty) {
      await this.fresh();
      if (this.isStale(tx)) return undefined;
      await this.committer.checkGuards(tx);
      return false;
    }
    const { damaged } = this.#mirror;
    if (tx.readsGraph && damaged !== undefined) {
      const name = this.client.settings.prefix + this.layout.record(damaged);
      throw failedPrecondition('a record in etcd is damaged; what it refers to is unknown, so nothing goes', {
        object: damaged,
        remedy: `repair or delete the key ${JSON.stringify(name)} with etcdctl`,
      });
    }
    const committing = this.committer.commit(tx, () => this.isStale(tx), signal, right?.gate);
    const shown = committing.then(async (revision) => {
      if (revision === undefined) return undefined;
      for (const prefix of tx.droppedCounters) this.#counters.forget(prefix);
      await this.#mirror.reach(revision);
      return true;
    });
    this.#committing.set(shown, { records: tx.records, links: tx.ownLinks });
    try {
      return await shown;
    } finally {
      this.#committing.delete(shown);
    }
  }

  /** A commit that is decided in etcd is durable. */
  protected async durable(): Promise<void> {}

  protected async paced(committed: boolean): Promise<void> {
    if (committed) await sleep(BACKGROUND_PAUSE_MS);
  }

  // ---------------------------------------------------------------------------------------------- the shared tree

  fenceGarbage(lock: Unlock | undefined): void {
    this.committer.fence = lock && fenceOf(lock);
  }

  async announceCollection(): Promise<void> {
    await this.client.txn([], [{ put: LAST, value: formatTimestamp(now()) }]);
    await this.confirm();
  }

  hosts(): Promise<ReadonlyMap<string, TreeHost>> {
    return knownHosts(this.client);
  }

  forgetHost(id: string, alive: () => EbbtideError): Promise<void> {
    return forgetHost(this.client, this.committer, id, alive);
  }

  readRaw(key: string, options: GetOptions): Promise<Map<string, string>> {
    return this.#rawKeys.read(key, options);
  }

  /** The commit knows nothing of what the key was: its end comes from outside. */
  async putRawWithLease(key: string, value: string, lease: string): Promise<void> {
    if (key === '') throw invalidArgument('key must not be empty');
    await this.committer.putLeased(rawName(key), value, lease);
  }

  /** For tests: what runs before garbage is removed, and whether the removal is fenced at all. */
  setTestHooks(options: { fencing?: boolean; beforeGarbage?: () => Promise<void> | void }): void {
    this.committer.fencing = options.fencing ?? true;
    this.committer.beforeGarbage = options.beforeGarbage;
  }

  // --------------------------------------------------------------------------------------------------------- rest

  feed(since: number, signal?: AbortSignal): AsyncIterable<ChangeSet> {
    this.checkOpen();
    return this.#embedded.feed(since, signal);
  }

  verifyGraph(): string[] {
    return this.#embedded.verifyGraph();
  }

  /** What others commit goes to another machine, and does not wait for what this thread does next. */
  async foregroundDone(): Promise<void> {}

  async flush(): Promise<void> {
    this.checkOpen();
  }

  stats(): EngineStats {
    return this.#embedded.stats();
  }

  /** Lets commits that were sent come to their end, gives back what this host holds, and closes. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.locks.close();
    await Promise.allSettled(this.#committing.keys());
    // A cluster that is gone must not keep the host from closing; what is left expires or is taken over.
    await this.#counters.close().catch(() => undefined);
    await this.committer.close().catch(() => undefined);
    await this.#session.close();
    await this.#mirror.close();
    this.client.close();
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  protected checkWritable(): void {
    this.checkOpen();
  }

  protected checkOpen(): void {
    if (this.#closing !== undefined) {
      throw failedPrecondition('the store is closed', { remedy: 'open it again' });
    }
  }
}
