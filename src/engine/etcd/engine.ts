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
import { failedPrecondition, OutcomeUnknown, throwIfAborted, unavailable } from '../../errors.js';
import type {
  ChangeSet,
  Engine,
  EngineStats,
  Indexer,
  Key,
  ReadValue,
  ScanOptions,
  Transaction,
  UpdateOptions,
  Value,
} from '../contract.js';
import { Effects } from '../core/effects.js';
import type { Past } from '../core/history.js';
import { type Turn, Turns } from '../core/turns.js';
import type { GraphCore } from '../graph.js';
import type { EtcdClient } from './client.js';
import type { Committer, Hold } from './commit.js';
import { Confirmation } from './confirmation.js';
import type { Counters } from './counters.js';
import type { Layout } from './layout.js';
import { EtcdLocks, type Fence } from './locks.js';
import type { Mirror } from './mirror.js';
import { notedGraph } from './noted-graph.js';
import type { Session } from './session.js';
import { EtcdTransaction } from './transaction.js';

/** Conflicts after which this host's other commits wait for a transaction. */
const CONFLICTS_MAX = 4;
/** Conflicts after which the commits of all hosts wait for a transaction, while its body runs no longer than a moment. */
const CONFLICTS_ALONE_MAX = 10;
const HOLD_MS_MAX = 1_000;
const ATTEMPTS_MAX = 16;
/** A removal of garbage conflicts with every new reference anywhere: it is patient instead of failing. */
const GARBAGE_ATTEMPTS_MAX = 100;
const GARBAGE_CONFLICTS_MAX = 12;
const PAUSE_MS = 2;
/** What work that can wait leaves to others between two commits. */
const BACKGROUND_PAUSE_MS = 3;

/** Who removed records; `unknown`: no commit of any host, or one that this host missed. */
export type Remover = 'this host' | 'another host' | 'unknown';

/** Told what other hosts do. */
export interface ClusterListener {
  /** Records that a commit removes, before they go. */
  removing(keys: readonly Key[], by: Remover): void;
  /** Users of another host deleted something. */
  remoteDeletions(count: number): void;
  /** A host has finished a collection. */
  collected(): void;
}

export interface EtcdEngineParts {
  client: EtcdClient;
  layout: Layout;
  mirror: Mirror;
  session: Session;
  counters: Counters;
  committer: Committer;
  indexer: Indexer;
  graph: GraphCore;
}

type Outcome<T> =
  | { done: true; result: T; tx: EtcdTransaction; committed: boolean }
  | { done: false; tx: EtcdTransaction };

/** With what privileges an attempt runs. */
interface Right {
  readonly turn: Turn | undefined;
  readonly hold: Hold | undefined;
  readonly signal: AbortSignal | undefined;
}

export class EtcdEngine implements Engine {
  readonly kind = 'etcd';
  readonly graph: GraphCore;
  readonly locks: EtcdLocks;
  readonly client: EtcdClient;
  readonly layout: Layout;
  /** For this room and cluster-hosts.ts. */
  readonly committer: Committer;
  readonly #mirror: Mirror;
  readonly #embedded: Engine;
  readonly #session: Session;
  readonly #confirmation: Confirmation;
  readonly #counters: Counters;
  readonly #indexer: Indexer;
  readonly #turns = new Turns();
  /** The transaction whose body runs in this very turn. */
  #running: EtcdTransaction | undefined;
  /** Commits on their way, with what they change. */
  readonly #committing = new Map<Promise<unknown>, Past>();
  #closing: Promise<void> | undefined;
  #missedRemovals = false;
  /** The host whose own leases are meant by a lease's id; undefined: leases are shared. Set before use, by src/open.ts. */
  leaseScope: string | undefined;

  constructor(parts: EtcdEngineParts) {
    this.client = parts.client;
    this.layout = parts.layout;
    this.#mirror = parts.mirror;
    this.#embedded = parts.mirror.engine;
    this.#session = parts.session;
    this.#confirmation = new Confirmation(parts.client, parts.mirror, () => this.#checkOpen());
    this.#counters = parts.counters;
    this.committer = parts.committer;
    this.#indexer = parts.indexer;
    this.locks = new EtcdLocks(parts.client, parts.session);
    this.graph = notedGraph(parts.graph, () => {
      if (this.#running !== undefined) this.#running.readsGraph = true;
    });
    const missed = (_keys: readonly Key[], by: Remover): void => {
      if (by !== 'this host') this.#missedRemovals = true;
    };
    this.listen({ removing: missed, remoteDeletions() {}, collected() {} });
  }

  /** One listener, told from now on. */
  listen(listener: ClusterListener): void {
    const { hostId } = this.client.settings;
    this.#mirror.listener = {
      removing: (host, keys) => {
        if (host === undefined) listener.removing(keys, 'unknown');
        else listener.removing(keys, host === hostId ? 'this host' : 'another host');
      },
      deletions: (host, count) => {
        if (host !== hostId) listener.remoteDeletions(count);
      },
      collected: () => listener.collected(),
      counterGone: (name) => this.#counters.forgetOne(name),
      lockChanged: (name) => this.locks.changed(name),
    };
  }

  // ------------------------------------------------------------------------------------------------- plain reads

  get revision(): number {
    return this.#embedded.revision;
  }
  /** Revision of etcd up to which the mirror holds everything. */
  get etcdRevision(): number {
    return this.#mirror.revision;
  }
  get epoch(): number {
    return this.#embedded.epoch + this.#mirror.epoch;
  }
  /** Whether the mirror went on from a clean stop of this host, and nobody missed what others removed since. */
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
  links(from: Key, relation: string): Iterable<Key> {
    return this.#embedded.links(from, relation);
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
  idOf(key: Key): number | undefined {
    return this.#embedded.idOf(key);
  }
  isReferenced(key: Key): boolean {
    return this.#embedded.isReferenced(key);
  }
  mightBeReferenced(prefixes: readonly Key[], leaves: readonly string[]): Promise<Uint8Array> {
    return this.#embedded.mightBeReferenced(prefixes, leaves);
  }

  /**
   * Resolves when the mirror holds everything that any host had committed when this was called. Unavailable when
   * etcd cannot say.
   */
  confirm(): Promise<void> {
    return this.#confirmation.confirm();
  }

  /** `confirm`, unless this engine was told that its reads may be old. */
  fresh(): Promise<void> | undefined {
    return this.client.settings.serializable ? undefined : this.confirm();
  }

  // ------------------------------------------------------------------------------------------------ transactions

  async view<T>(fn: (tx: Transaction) => T | Promise<T>): Promise<T> {
    this.#checkOpen();
    await this.fresh();
    await this.#mirror.ready();
    const { leaseScope } = this;
    return this.#embedded.view((tx) => fn(Object.assign(tx, { leaseScope })));
  }

  async update<T>(fn: (tx: Transaction) => T | Promise<T>, options: UpdateOptions = {}): Promise<T> {
    const effects = new Effects();
    const { signal } = options;
    let last: EtcdTransaction | undefined;
    try {
      for (let attempt = 1; ; attempt++) {
        this.#checkOpen();
        throwIfAborted(signal);
        let turn: Turn | undefined;
        let hold: Hold | undefined;
        let limit: NodeJS.Timeout | undefined;
        try {
          if (last?.readsGraph) {
            // No writer of this host waits for it; after many conflicts all hosts do, for the moment of one commit.
            if (attempt > GARBAGE_CONFLICTS_MAX) hold = await this.committer.hold(signal);
          } else if (attempt > CONFLICTS_MAX) {
            turn = await this.#turns.alone(signal);
            await Promise.allSettled(this.#committing.keys());
            if (attempt > CONFLICTS_ALONE_MAX) {
              hold = await this.committer.hold(signal);
              // The body may wait for something: then the others go on, and it runs again.
              limit = setTimeout(() => void hold?.release(), HOLD_MS_MAX);
            }
          } else if (this.#turns.isBlocked(undefined)) await this.#turns.pass(signal);
          // Never synchronous: a caller that goes on at once must not take the commit for done.
          await this.#mirror.ready();
          const outcome = await this.#attempt(fn, attempt, effects, { turn, hold, signal });
          if (!outcome.done || !outcome.committed) await hold?.release();
          last = outcome.tx;
          if (outcome.done) {
            turn?.();
            for (const hook of outcome.tx.hooks) hook();
            if (options.background && outcome.committed) await sleep(BACKGROUND_PAUSE_MS);
            if (attempt > 1) await effects.undo(attempt);
            return outcome.result;
          }
          await this.#conflicted(attempt, outcome.tx);
        } catch (error) {
          await hold?.release();
          throw error;
        } finally {
          clearTimeout(limit);
          turn?.();
        }
      }
    } catch (error) {
      if (!(error instanceof OutcomeUnknown)) await effects.undo();
      throw error;
    }
  }

  async #conflicted(attempt: number, tx: EtcdTransaction): Promise<void> {
    if (attempt >= (tx.readsGraph ? GARBAGE_ATTEMPTS_MAX : ATTEMPTS_MAX)) {
      throw unavailable(`the transaction met a conflict in each of ${attempt} runs`, {
        remedy: 'try again when the other hosts write less, or make the transaction smaller',
      });
    }
    // The watch may have missed that a counter was forgotten.
    if (attempt > 2) for (const counter of tx.handedOut.keys()) this.#counters.forgetOne(counter);
    // A refused removal has cost etcd as much as a write: writers shall not wait behind one after the other.
    if (tx.readsGraph) await sleep(BACKGROUND_PAUSE_MS);
    else if (attempt > 1) await sleep((1 + Math.random()) * PAUSE_MS * Math.min(attempt, 8));
  }

  async #attempt<T>(
    fn: (tx: Transaction) => T | Promise<T>,
    attempt: number,
    effects: Effects,
    right: Right,
  ): Promise<Outcome<T>> {
    for (;;) {
      const outcome = await this.#run(fn, attempt, effects, right);
      if (outcome.done) return outcome;
      await this.committer.checkGuards(outcome.tx);
      if (outcome.tx.needs === undefined) return outcome;
      await this.#counters.reserve(outcome.tx.needs);
    }
  }

  /** Runs the body once over the mirror as it is, and commits what it wrote. */
  #run<T>(
    fn: (tx: Transaction) => T | Promise<T>,
    attempt: number,
    effects: Effects,
    { turn, hold, signal }: Right,
  ): Promise<Outcome<T>> {
    return this.#embedded.view(async (view) => {
      const { history } = this.#mirror;
      const tx = new EtcdTransaction({
        view,
        indexer: this.#indexer,
        effects,
        counters: this.#counters,
        attempt,
        etcdRevision: this.#mirror.revision,
        epoch: this.epoch,
        leaseScope: this.leaseScope,
        isClosed: () => this.#closing !== undefined,
      });
      history.enter(view.revision);
      try {
        let result: T;
        try {
          result = await this.#body(fn, tx);
        } catch (error) {
          if (tx.needs !== undefined || (await this.#isOfThePast(tx))) return { done: false, tx };
          throw error;
        }
        // A body that went on after it was refused a number has no number.
        if (tx.needs !== undefined) return { done: false, tx };
        // Under the gate nobody may be waited for: they wait for it themselves.
        while (hold === undefined && this.#turns.isBlocked(turn)) await this.#turns.pass(signal);
        throwIfAborted(signal);
        this.#checkOpen();
        if (hold === undefined) await this.#afterRivals(tx);
        if (this.#isStale(tx)) return { done: false, tx };
        const committed = await this.#commit(tx, signal, hold);
        return committed === undefined ? { done: false, tx } : { done: true, result, tx, committed };
      } finally {
        tx.end();
        history.leave(view.revision);
      }
    });
  }

  #body<T>(fn: (tx: Transaction) => T | Promise<T>, tx: EtcdTransaction): T | Promise<T> {
    const outer = this.#running;
    this.#running = tx;
    try {
      return fn(tx);
    } finally {
      this.#running = outer;
    }
  }

  /** An error of a body that had read what is no longer true is no error of the body: it runs again. */
  async #isOfThePast(tx: EtcdTransaction): Promise<boolean> {
    if (this.#closing !== undefined) return false;
    if (this.#isStale(tx)) return true;
    const { keys, prefixes, links, linkSets } = tx.reads;
    if (keys.size + prefixes.size + links.size + linkSets.size === 0) return false;
    await this.fresh();
    return this.#isStale(tx);
  }

  /** Waits for commits of this host that would make this one fail: cheaper than being refused by etcd. */
  async #afterRivals(tx: EtcdTransaction): Promise<void> {
    for (const [committing, rival] of this.#committing) {
      if (!tx.reads.touchedBy(rival)) continue;
      await committing.catch(() => undefined);
      if (this.#isStale(tx)) return;
    }
  }

  #isStale(tx: EtcdTransaction): boolean {
    if (tx.epoch !== this.epoch || this.#mirror.isLoading) return true;
    return this.#mirror.history.since(tx.revision).some((past) => tx.reads.touchedBy(past));
  }

  /** Whether anything was written; undefined: a conflict. */
  async #commit(
    tx: EtcdTransaction,
    signal: AbortSignal | undefined,
    hold: Hold | undefined,
  ): Promise<boolean | undefined> {
    if (tx.isEmpty) {
      await this.fresh();
      if (this.#isStale(tx)) return undefined;
      await this.committer.checkGuards(tx);
      return false;
    }
    if (tx.readsGraph && this.#mirror.damaged !== undefined) {
      throw failedPrecondition('a record in etcd is damaged; what it refers to is unknown, so nothing goes', {
        object: this.#mirror.damaged,
        remedy: 'repair or delete the key with etcdctl',
      });
    }
    const committing = this.committer.commit(tx, () => this.#isStale(tx), signal, hold);
    const shown = committing.then(async (revision) => {
      if (revision === undefined) return undefined;
      for (const prefix of tx.droppedCounters) this.#counters.forget(prefix);
      await this.#mirror.reach(revision);
      return true;
    });
    this.#committing.set(shown, tx.changes);
    try {
      return await shown;
    } finally {
      this.#committing.delete(shown);
    }
  }

  /** What removals of garbage must find in etcd from now on: the collecting host's lock. */
  fenceGarbage(fence: Fence | undefined): void {
    this.committer.fence = fence;
  }

  /** For tests: what runs before garbage is removed, and whether the removal is fenced at all. */
  setTestHooks(options: { fencing?: boolean; beforeGarbage?: () => Promise<void> | void }): void {
    this.committer.fencing = options.fencing ?? true;
    this.committer.beforeGarbage = options.beforeGarbage;
  }

  // --------------------------------------------------------------------------------------------------------- rest

  feed(since: number, signal?: AbortSignal): AsyncIterable<ChangeSet> {
    this.#checkOpen();
    return this.#embedded.feed(since, signal);
  }

  verifyGraph(): string[] {
    return this.#embedded.verifyGraph();
  }

  /** What others commit goes to another machine, and does not wait for what this thread does next. */
  async quiet(): Promise<void> {}

  async flush(): Promise<void> {
    this.#checkOpen();
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
    // A cluster that is gone must not keep the host from closing; what stays behind expires or is taken over.
    await this.#counters.close().catch(() => undefined);
    await this.committer.close().catch(() => undefined);
    await this.#session.close();
    await this.#mirror.close();
    this.client.close();
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) {
      throw failedPrecondition('the store is closed', { remedy: 'open it again' });
    }
  }
}
