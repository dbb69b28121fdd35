/**
 * The transactional core of the embedded engines: validates and numbers commits (update-loop.ts runs the bodies), keeps the
 * graph beside the records, and hands commits to a storage. memory/ and lmdb/ put a storage below it.
 *
 * Threading: one JavaScript thread. A commit is one synchronous step (validate, plan, number, apply to the graph,
 * hand over); from then on every read sees it. Durability is the storage's business: `update` resolves when the
 * storage says so, and if the storage loses the commit, the step is taken back.
 */
import {
  failedPrecondition,
  notImplemented,
  OutcomeUnknown,
  openedReadOnly,
  present,
  unavailable,
} from '../../errors.js';
import type {
  ChangeSet,
  Durability,
  Engine,
  EngineOptions,
  EngineStats,
  Indexer,
  Key,
  ReadValue,
  ScanOptions,
  StoredNode,
  TreeCopy,
  UpdateOptions,
  Value,
} from '../contract.js';
import type { GraphCore } from '../graph.js';
import { NamedLocks } from '../locks.js';
import { decodeSlice } from '../schema/codec.js';
import { Counters } from './counters.js';
import { Feed, type KeptSet, keptSet } from './feed.js';
import { GraphLost } from './graph-lost.js';
import { History } from './history.js';
import { Nodes } from './nodes.js';
import { type Plan, undoing } from './planner.js';
import { CHUNK_BYTES, CHUNK_MAX, FIRST_CHUNK, layered } from './reads.js';
import {
  type Commit,
  type Entry,
  type LinkKey,
  linkPrefix,
  type Storage,
  type StorageListener,
  splitLink,
  type Written,
} from './storage.js';
import { type Attempt, EngineTransaction, type TransactionHost } from './transaction.js';
import { type Privilege, UpdateLoop } from './update-loop.js';
import { verifyGraph } from './verify.js';

/** Conflicts after which a transaction runs alone. */
const CONFLICTS_MAX = 4;
/** Only a body that conflicts with itself (it commits what it has read past its own transaction) gets this far. */
const ATTEMPTS_MAX = 32;

export interface CoreOptions extends EngineOptions {
  kind: 'memory' | 'lmdb';
  storage: Storage;
  /** Revision of the newest commit in the storage. */
  revision: number;
  cleanStart: boolean;
  readOnly?: boolean;
}

/** A commit that is not visible yet: what goes into the feed then, and what undoes it. Few objects: there may be many. */
interface Step {
  readonly changes: KeptSet;
  readonly inverse: Uint32Array;
  readonly freed: readonly number[];
  readonly taken: readonly number[];
}

export class CoreEngine
  extends UpdateLoop<EngineTransaction, Written>
  implements Engine, TransactionHost, StorageListener
{
  readonly kind: 'memory' | 'lmdb';
  readonly #graph: GraphCore;
  /** Set when the graph is not that of the records any more. */
  #graphLost: GraphLost | undefined;
  readonly indexer: Indexer;
  readonly locks = new NamedLocks();
  readonly cleanStart: boolean;
  readonly isReadOnly: boolean;
  readonly storage: Storage;
  readonly history = new History();
  readonly counters: Counters;
  readonly #nodes: Nodes;
  readonly #feed: Feed;
  readonly #durability: Durability;
  readonly #active = new Set<EngineTransaction>();
  /** Those that the storage has not called visible, oldest first. */
  #pending: Step[] = [];
  #revision: number;
  #epoch = 0;
  #closing: Promise<void> | undefined;

  constructor(options: CoreOptions) {
    super();
    this.kind = options.kind;
    this.#graph = options.graph;
    this.indexer = options.indexer;
    this.storage = options.storage;
    this.cleanStart = options.cleanStart;
    this.#revision = options.revision;
    this.#durability = options.durability ?? 'flushed';
    this.isReadOnly = options.readOnly ?? false;
    this.counters = new Counters(options.storage);
    this.#nodes = new Nodes(options.graph, options.indexer, options.storage);
    this.#feed = new Feed(options.revision);
    options.storage.listen(this);
  }

  // ------------------------------------------------------------------------------------------------- plain reads

  get revision(): number {
    return this.#revision;
  }
  /** GraphLost when it must not be relied on. */
  get graph(): GraphCore {
    if (this.#graphLost !== undefined) throw this.#graphLost;
    return this.#graph;
  }
  get epoch(): number {
    return this.#epoch;
  }

  get(key: Key): Value | undefined {
    this.checkOpen();
    return this.storage.value(key);
  }

  has(key: Key): boolean {
    this.checkOpen();
    return this.storage.has(key);
  }

  /** Sees every commit made before the chunk it is reading; use `view` for one revision throughout. */
  *scan(prefix: Key, options: ScanOptions = {}): Generator<[Key, Value]> {
    let left = options.limit ?? Number.POSITIVE_INFINITY;
    let after = options.after;
    for (let size = FIRST_CHUNK; left > 0; size = Math.min(size * 4, CHUNK_MAX)) {
      this.checkOpen();
      const limit = Math.min(size, left);
      const { entries, more } = this.storage.range(prefix, after, limit, decodeSlice, CHUNK_BYTES);
      yield* entries;
      if (!more) return;
      left -= entries.length;
      after = present(entries.at(-1), 'the last entry')[0];
    }
  }

  /** One process owns the store: no other one commits. */
  fresh(): undefined {
    return undefined;
  }

  visit(prefix: Key, after: Key | undefined, read: ReadValue<void>): Key | undefined {
    this.checkOpen();
    const { entries, more } = this.storage.range(prefix, after, CHUNK_MAX, read, CHUNK_BYTES);
    return more ? present(entries.at(-1), 'the last entry')[0] : undefined;
  }

  firstKey(prefix: Key, after: Key | undefined): Key | undefined {
    this.checkOpen();
    if (this.storage.firstKey !== undefined) return this.storage.firstKey(prefix, after);
    return this.storage.range(prefix, after, 1, () => undefined).entries[0]?.[0];
  }

  *links(from: Key, relation: string, first?: number): Generator<Key> {
    const prefix = linkPrefix(from, relation);
    const read = (after: LinkKey | undefined, limit: number): [LinkKey, true][] => {
      this.checkOpen();
      return this.storage.linkRange(prefix, after, limit).map((link) => [link, true]);
    };
    for (const [link] of layered(prefix, undefined, read, () => [], first)) yield splitLink(link).to;
  }

  hasLinks(from: Key, relation: string): boolean {
    this.checkOpen();
    return this.storage.linkRange(linkPrefix(from, relation), undefined, 1).length > 0;
  }

  hasLink(from: Key, relation: string, to: Key): boolean {
    this.checkOpen();
    return this.storage.hasLink(linkPrefix(from, relation) + to);
  }

  keyOf(id: number): Key | undefined {
    this.checkOpen();
    return this.storage.keyOf(id);
  }

  readNode<T>(id: number, read: (node: StoredNode) => T): T | undefined {
    this.checkOpen();
    return this.storage.readNode(id, read);
  }

  idOf(key: Key): number | undefined {
    this.checkOpen();
    return this.storage.idOf(key);
  }

  isReferenced(key: Key): boolean {
    this.checkOpen();
    const entry = this.storage.entry(key);
    if (entry === undefined) return false;
    return entry.bytes !== undefined || this.graph.inDegreeOf(entry.id) > 0;
  }

  isGone(key: Key, since: number): boolean {
    this.checkOpen();
    return this.storage.isGone?.(key, since) ?? !this.storage.has(key);
  }

  mightBeReferenced(prefixes: readonly Key[], leaves: readonly string[]): Promise<Uint8Array> {
    this.checkOpen();
    if (this.storage.mayExist !== undefined) return this.storage.mayExist(prefixes, leaves);
    return Promise.resolve(new Uint8Array(prefixes.length * leaves.length).fill(1));
  }

  // ------------------------------------------------------------------------------------------------ transactions

  protected enter(
    attempt: number,
    _last: unknown,
    signal: AbortSignal | undefined,
  ): Privilege<Written> | undefined | Promise<Privilege<Written> | undefined> {
    if (attempt > CONFLICTS_MAX) return this.exclusive.begin(signal).then((run) => ({ run, end: run }));
    return this.exclusive.isBlocked(undefined) ? this.#pass(signal) : undefined;
  }

  async #pass(signal: AbortSignal | undefined): Promise<undefined> {
    while (this.exclusive.isBlocked(undefined)) await this.exclusive.pass(signal);
  }

  protected begin(attempt: Attempt): EngineTransaction {
    const tx = new EngineTransaction(this, attempt);
    this.#active.add(tx);
    return tx;
  }

  protected end(tx: EngineTransaction): void {
    tx.end();
    this.#active.delete(tx);
  }

  protected override isOutdated(tx: EngineTransaction): boolean {
    return this.#closing === undefined && tx.isStale;
  }

  protected conflicted(_tx: EngineTransaction, attempt: number): true {
    if (attempt < ATTEMPTS_MAX) return true;
    throw unavailable(`the transaction met a conflict in each of ${ATTEMPTS_MAX} runs`, {
      remedy: 'make changes inside the body through its own transaction only',
    });
  }

  protected durable(written: Written, { durability = this.#durability }: UpdateOptions): Promise<void> {
    return durability === 'visible' ? written.visible : written.flushed;
  }

  protected paced(): Promise<void> {
    return this.storage.paced();
  }

  // ------------------------------------------------------------------------------------------------------- commit

  protected commit(tx: EngineTransaction): Written {
    if (tx.needsRoom) this.storage.admit?.(tx.background || tx.takesAway);
    const isNewest = tx.revision === this.#revision;
    const links = tx.linkChanges(isNewest);
    this.end(tx);
    const { records, numbers, droppedCounters } = tx;
    if (records.size + links.size + numbers.size + droppedCounters.size === 0) return nothingWritten;
    const known = isNewest ? tx.known : nothingKnown;
    const { plan, commit, step } = this.#keepsGraph(() => this.#applied(tx, links, known));
    this.#revision = commit.revision;
    this.#pending.push(step);
    const written = this.#accepted(commit, tx.background);
    this.#nodes.done(plan);
    // Callers that wait for the commit get its error; without any it must not end the process.
    written.visible.catch(() => undefined);
    written.flushed.catch(() => undefined);
    return written;
  }

  /** A step of a commit. After a GraphLost nothing relies on the graph any more. */
  #keepsGraph<T>(step: () => T): T {
    if (this.#graphLost !== undefined) throw this.#graphLost;
    try {
      return step();
    } catch (error) {
      if (error instanceof GraphLost) this.#graphLost = error;
      throw error;
    }
  }

  /** The commit, which the graph has already. Throws with the graph as it was before, or else a GraphLost. */
  #applied(
    tx: EngineTransaction,
    links: ReadonlyMap<LinkKey, boolean>,
    known: ReadonlyMap<Key, Entry | undefined>,
  ): { plan: Plan; commit: Commit; step: Step } {
    const { records, numbers, droppedCounters } = tx;
    const plan = this.#nodes.commit(records.entries(), links, known);
    try {
      const { entries, ops, freed, recordDelta, inverse, taken } = plan;
      const revision = this.#revision + 1;
      const counters = this.counters.changes(droppedCounters, numbers, this.#activeNumbers());
      const commit: Commit = { revision, entries, links, counters, ops, freed, recordDelta };
      const changes = keptSet(revision, records.entries());
      const step: Step = { changes, inverse, freed: [...freed.keys()], taken };
      if (this.history.hasReaders) this.#remember(tx, commit);
      return { plan, commit, step };
    } catch (error) {
      this.#nodes.takeBack(plan, error);
      throw error;
    }
  }

  #accepted(commit: Commit, background: boolean): Written {
    try {
      return this.storage.accept(commit, background);
    } catch (cause) {
      this.#graphLost = new GraphLost(cause);
      throw new OutcomeUnknown('the storage failed in the middle of a commit', {
        remedy: this.#graphLost.remedy,
        cause,
      });
    }
  }

  *#activeNumbers(): Generator<ReadonlyMap<Key, number>> {
    for (const tx of this.#active) yield tx.numbers;
  }

  #remember(tx: EngineTransaction, commit: Commit): void {
    const records = new Map<Key, Uint8Array | undefined>();
    for (const key of tx.records.keys()) records.set(key, this.storage.entry(key)?.bytes);
    const links = new Map<LinkKey, boolean>();
    for (const [link, present] of commit.links) links.set(link, !present);
    this.history.add({ revision: commit.revision, records, links });
  }

  visible(revision: number): void {
    let count = 0;
    for (const step of this.#pending) {
      if (step.changes.revision > revision) break;
      this.#feed.push(step.changes);
      count++;
    }
    this.#pending.splice(0, count);
  }

  /** The graph goes back to what is stored. */
  lost(): void {
    const lost = this.#pending;
    this.#pending = [];
    this.#epoch++;
    this.history.clear();
    const words: number[] = [];
    for (const { inverse } of lost.reverse()) for (const word of undoing(inverse)) words.push(word);
    try {
      if (words.length > 0) this.#graph.apply(Uint32Array.from(words));
    } catch (error) {
      this.#graphLost ??= new GraphLost(error);
      return;
    }
    for (const step of lost) this.#nodes.undone(step);
  }

  // --------------------------------------------------------------------------------------------------------- rest

  feed(since: number, signal?: AbortSignal): AsyncIterable<ChangeSet> {
    this.checkOpen();
    return this.#feed.since(since, signal);
  }

  verifyGraph(): string[] {
    this.checkOpen();
    return verifyGraph(this.storage, this.graph, this.indexer);
  }

  flush(): Promise<void> {
    this.checkOpen();
    return this.storage.flush();
  }

  foregroundDone(): Promise<void> {
    return this.storage.foregroundDone();
  }

  async copyTo(path: string, taken: () => void): Promise<TreeCopy> {
    this.checkOpen();
    if (this.storage.copyTo !== undefined) return this.storage.copyTo(path, taken);
    throw notImplemented('a store in memory cannot be copied');
  }

  stats(): EngineStats {
    this.checkOpen();
    return {
      records: this.storage.records(),
      fileBytes: this.storage.fileBytes(),
      revision: this.#revision,
      journalBytes: this.storage.journalBytes?.() ?? 0,
      logBytes: this.storage.logBytes?.() ?? 0,
    };
  }

  /** Lets commits that were handed over come to their end; transactions still running fail. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.locks.close();
    this.#feed.close();
    await this.storage.close();
  }

  protected checkOpen(): void {
    if (this.#closing !== undefined) {
      throw failedPrecondition('the store is closed', { remedy: 'open it again' });
    }
  }

  protected checkWritable(): void {
    this.checkOpen();
    if (this.isReadOnly) throw openedReadOnly();
  }
}

const nothingKnown: ReadonlyMap<Key, Entry | undefined> = new Map();

const done = Promise.resolve();
const nothingWritten: Written = { visible: done, flushed: done };
