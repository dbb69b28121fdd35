/**
 * One attempt of a transaction over etcd: reads the mirror at one revision with its own writes on top, remembers
 * what it read and what it wants written. engine.ts makes one per attempt; commit.ts turns it into an etcd
 * transaction. In memory only.
 */
import { EbbtideError, failedPrecondition, invalidArgument } from '../../errors.js';
import { compareUtf8 } from '../../model/utf8.js';
import type { Indexer, Key, ScanOptions, Transaction, Unlock, Value } from '../contract.js';
import type { Effects } from '../core/effects.js';
import { type Past, ReadSet } from '../core/history.js';
import { below, type Layer, layered } from '../core/reads.js';
import { SortedMap } from '../core/sorted-map.js';
import { type LinkKey, linkPrefix, linksPrefix, splitLink } from '../core/storage.js';
import { decodeValue, encodeValue, printable } from '../schema/codec.js';
import type { Counters, HandedOut } from './counters.js';
import { type Fence, fenceOf } from './locks.js';

/** Thrown through the body when a counter has no number at hand: the body runs again when there is one. */
class NeedsNumbers extends EbbtideError {
  constructor() {
    super('Unavailable', 'numbers of a counter are being reserved; the transaction runs again', {});
  }
}

interface RecordWrite {
  /** Encoded; undefined deletes. */
  readonly bytes: Uint8Array | undefined;
  readonly recreated: boolean;
}

/** A value of the mirror, or one that is encoded so that nobody can share it. */
type Held = { value: Value } | { bytes: Uint8Array };

/** Operations and conditions that a commit should have at most: etcd takes 128 of each, some are added at the end. */
const FITTING = 104;

export interface TransactionParts {
  view: Transaction;
  indexer: Indexer;
  effects: Effects;
  counters: Counters;
  attempt: number;
  /** Revision of etcd that the view shows. */
  etcdRevision: number;
  epoch: number;
  leaseScope: string | undefined;
  isClosed: () => boolean;
}

export class EtcdTransaction implements Transaction {
  readonly writable = true;
  readonly attempt: number;
  readonly etcdRevision: number;
  readonly epoch: number;
  /** See engine.ts. */
  readonly leaseScope: string | undefined;
  readonly reads = new ReadSet();
  /** Keys that were read, and whether there was a record. */
  readonly found = new Map<Key, boolean>();
  readonly foundLinks = new Map<LinkKey, boolean>();
  readonly writes = new SortedMap<RecordWrite>();
  readonly linkWrites: Layer<true> = new SortedMap();
  readonly wiped = new Set<Key>();
  readonly handedOut = new Map<Key, HandedOut>();
  readonly droppedCounters = new Set<Key>();
  readonly hooks: (() => void)[] = [];
  /** The body asked the graph what is garbage. */
  readsGraph = false;
  readonly numbersRawKeys = true;
  /** Deletions that users asked for. */
  deletions = 0;
  /** Locks that must be held still when it commits. */
  readonly guards: Fence[] = [];
  /** The counter whose numbers have to be reserved before the body can run. */
  needs: Key | undefined;
  readonly #layer: Layer<Held> = new SortedMap();
  /** Owners of links that are changed: each has a stamp. */
  readonly #stamped = new Set<Key>();
  #rangesWiped = 0;
  readonly #view: Transaction;
  readonly #indexer: Indexer;
  readonly #effects: Effects;
  readonly #counters: Counters;
  readonly #isClosed: () => boolean;
  #ended = false;

  constructor(parts: TransactionParts) {
    this.#view = parts.view;
    this.#indexer = parts.indexer;
    this.#effects = parts.effects;
    this.#counters = parts.counters;
    this.#isClosed = parts.isClosed;
    this.attempt = parts.attempt;
    this.etcdRevision = parts.etcdRevision;
    this.epoch = parts.epoch;
    this.leaseScope = parts.leaseScope;
  }

  get revision(): number {
    return this.#view.revision;
  }
  countDeletion(): void {
    this.deletions++;
  }

  guardBy(unlock: Unlock): Unlock {
    const fence = fenceOf(unlock);
    if (fence === undefined) return unlock;
    this.guards.push(fence);
    return async () => {
      // One that was lost stays a guard: the transaction must not commit after it.
      await unlock();
      this.guards.splice(this.guards.indexOf(fence), 1);
    };
  }

  get isEmpty(): boolean {
    return this.writes.size + this.linkWrites.size + this.wiped.size + this.droppedCounters.size === 0;
  }

  /** Changes that fit into one etcd transaction still, each with two conditions; beyond, the commit is a unit. */
  get room(): number {
    const { writes, linkWrites, found, foundLinks, reads } = this;
    const ops = writes.size + linkWrites.size + this.#stamped.size + this.#rangesWiped;
    // What was found is compared twice, but for garbage that goes (plan.ts).
    const once = this.readsGraph ? writes.size : 0;
    const conditions =
      2 * (found.size + foundLinks.size) - once + reads.linkSets.size + reads.prefixes.size * 2;
    return Math.max(0, Math.floor((FITTING - Math.max(ops, conditions)) / 2));
  }

  // ------------------------------------------------------------------------------------------------------ reading

  get(key: Key): Value | undefined {
    this.#checkUse();
    const own = this.writes.get(key);
    if (own !== undefined) return own.bytes === undefined ? undefined : decodeValue(key, own.bytes);
    const value = this.#view.get(key);
    this.#read(key, value !== undefined);
    return value;
  }

  has(key: Key): boolean {
    this.#checkUse();
    const own = this.writes.get(key);
    if (own !== undefined) return own.bytes !== undefined;
    const found = this.#view.has(key);
    this.#read(key, found);
    return found;
  }

  #read(key: Key, found: boolean): void {
    this.reads.keys.add(key);
    this.found.set(key, found);
  }

  *scan(prefix: Key, options: ScanOptions = {}): Generator<[Key, Value]> {
    this.#checkUse();
    this.reads.prefixes.add(prefix);
    let left = options.limit ?? Number.POSITIVE_INFINITY;
    if (left <= 0) return;
    const read = (after: Key | undefined, limit: number): [Key, Held][] =>
      Array.from(
        this.#view.scan(prefix, { limit, ...(after !== undefined && { after }) }),
        ([key, value]) => [key, { value }],
      );
    for (const [key, held] of layered<Held>(below(prefix), options.after, read, () => [this.#layer])) {
      this.#checkUse();
      yield [key, 'bytes' in held ? decodeValue(key, held.bytes) : held.value];
      if (--left <= 0) return;
    }
  }

  *links(from: Key, relation: string): Generator<Key> {
    this.#checkUse();
    const prefix = linkPrefix(from, relation);
    this.reads.linkSets.add(prefix);
    const own: [Key, boolean][] = [];
    for (const [link, present] of this.linkWrites.from(prefix)) {
      if (!link.startsWith(prefix)) break;
      own.push([splitLink(link).to, present === true]);
    }
    let at = 0;
    const stored = this.wiped.has(from) ? [] : this.#view.links(from, relation);
    for (const to of stored) {
      for (; at < own.length && compareUtf8(own[at]![0], to) < 0; at++) if (own[at]![1]) yield own[at]![0];
      if (own[at]?.[0] === to) {
        if (own[at]![1]) yield to;
        at++;
      } else yield to;
      this.#checkUse();
    }
    for (; at < own.length; at++) if (own[at]![1]) yield own[at]![0];
  }

  hasLinks(from: Key, relation: string): boolean {
    for (const _ of this.links(from, relation)) return true;
    return false;
  }

  hasLink(from: Key, relation: string, to: Key): boolean {
    this.#checkUse();
    const link = linkPrefix(from, relation) + to;
    if (this.linkWrites.has(link)) return this.linkWrites.get(link) !== undefined;
    if (this.wiped.has(from)) return false;
    const found = this.#view.hasLink(from, relation, to);
    this.reads.links.add(link);
    this.foundLinks.set(link, found);
    return found;
  }

  // ------------------------------------------------------------------------------------------------------ writing

  put(key: Key, value: Value): void {
    this.#checkUse();
    checkKey(key);
    const before = this.writes.get(key);
    const bytes = encodeValue(key, value);
    const recreated = before !== undefined && (before.recreated || before.bytes === undefined);
    this.writes.set(key, { bytes, recreated });
    this.#layer.set(key, { bytes });
  }

  delete(key: Key): boolean {
    const existed = this.has(key);
    this.wiped.add(key);
    if (this.mayOwnLinks(key)) {
      this.#stamped.add(key);
      this.#rangesWiped++;
    }
    const prefix = linksPrefix(key);
    const own: LinkKey[] = [];
    for (const [link] of this.linkWrites.from(prefix)) {
      if (!link.startsWith(prefix)) break;
      own.push(link);
    }
    for (const link of own) this.linkWrites.delete(link);
    if (!existed) return false;
    this.writes.set(key, { bytes: undefined, recreated: false });
    this.#layer.set(key, undefined);
    return true;
  }

  link(from: Key, relation: string, to: Key): boolean {
    this.#checkUse();
    checkKey(from);
    checkKey(to);
    if (this.hasLink(from, relation, to)) return false;
    this.linkWrites.set(linkPrefix(from, relation) + to, true);
    this.#stamped.add(from);
    return true;
  }

  unlink(from: Key, relation: string, to: Key): boolean {
    this.#checkUse();
    if (!this.hasLink(from, relation, to)) return false;
    this.linkWrites.set(linkPrefix(from, relation) + to, undefined);
    this.#stamped.add(from);
    return true;
  }

  dropLink(from: Key, relation: string, to: Key): void {
    this.unlink(from, relation, to);
  }

  next(counter: Key): number {
    this.#checkUse();
    checkKey(counter);
    const handed = this.#counters.next(counter);
    if (handed === undefined) {
      this.needs = counter;
      throw new NeedsNumbers();
    }
    this.handedOut.set(counter, handed);
    return handed.number;
  }

  dropCounters(prefix: Key): void {
    this.#checkUse();
    this.droppedCounters.add(prefix);
  }

  once<T>(name: string, effect: () => Promise<T>, undo?: (result: T) => Promise<void>): Promise<T> {
    this.#checkUse();
    return this.#effects.once(this.attempt, name, effect, undo);
  }

  onCommit(hook: () => void): void {
    this.#checkUse();
    this.hooks.push(hook);
  }

  // ------------------------------------------------------------------------------------------- for engine, commit

  /** What it is about to change, as far as its own writes show. */
  get changes(): Past {
    const records = new Map<Key, undefined>();
    for (const key of this.writes.keys()) records.set(key, undefined);
    const links = new Map<string, boolean>();
    for (const link of this.linkWrites.keys()) links.set(link, true);
    return { revision: 0, records, links };
  }

  /** What the mirror holds under a key at this transaction's revision; not counted as read. */
  stored(key: Key): Value | undefined {
    return this.#view.get(key);
  }

  /** Whether the link is made by this transaction. */
  hasLinkWrite({ from, relation, to }: { from: Key; relation: string; to: Key }): boolean {
    return this.linkWrites.get(linkPrefix(from, relation) + to) === true;
  }

  mayOwnLinks(key: Key): boolean {
    return this.#indexer.mayOwnLinks?.(key, 255) ?? true;
  }

  end(): void {
    this.#ended = true;
  }

  #checkUse(): void {
    if (this.#ended) {
      throw failedPrecondition('the transaction has ended', { remedy: 'begin a new one' });
    }
    if (this.#isClosed()) throw failedPrecondition('the store is closed', { remedy: 'open it again' });
  }
}

/** A key that engines can store: non-empty components of well-formed text. */
function checkKey(key: Key): void {
  if (key === '' || key.startsWith('\0') || key.endsWith('\0') || key.includes('\0\0')) {
    throw invalidArgument(`key ${printable(key)} has an empty component`, { object: key });
  }
  if (LONE_SURROGATE.test(key)) {
    throw invalidArgument(`key ${printable(key)} is not well-formed Unicode`, { object: key });
  }
}

const LONE_SURROGATE = /\p{Surrogate}/u;
