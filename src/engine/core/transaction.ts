/**
 * One attempt of a transaction (or a view): reads at its revision with its own writes on top, remembers what it read
 * and what it wants written. An engine makes one per attempt (update-loop.ts), commits it and ends it; it is of no use
 * afterwards. Over etcd it reads the mirror (etcd/transaction.ts).
 */
import { failedPrecondition, invalidArgument, unavailable } from '../../errors.js';
import type { Indexer, Key, ScanOptions, Transaction, Value } from '../contract.js';
import type { GraphCore } from '../graph.js';
import { decodeValue, encodeValue, printable } from '../schema/codec.js';
import type { Counters } from './counters.js';
import type { Effects } from './effects.js';
import { type History, ReadSet } from './history.js';
import type { RecordChange } from './planner.js';
import { below, type Layer, layered, type ReadLayer } from './reads.js';
import { SortedMap } from './sorted-map.js';
import {
  copied,
  type Entry,
  type LinkKey,
  linkPrefix,
  linksPrefix,
  NO_ID,
  type Storage,
  splitLink,
} from './storage.js';

export interface TransactionHost {
  readonly storage: Storage;
  readonly history: History;
  readonly indexer: Indexer;
  readonly graph: GraphCore;
  readonly counters: Counters;
  /** Grows when commits were lost: what was read before may never have been stored. */
  readonly epoch: number;
  /** Revision of the newest commit. */
  readonly revision: number;
}

/** How a transaction is begun. */
export interface Attempt {
  readonly writable: boolean;
  readonly attempt: number;
  readonly effects: Effects;
  /** Its commit can wait. */
  readonly background: boolean;
}

export class EngineTransaction implements Transaction {
  readonly revision: number;
  readonly writable: boolean;
  readonly attempt: number;
  /** Its commit can wait. */
  readonly background: boolean;
  readonly #host: TransactionHost;
  readonly #effects: Effects;
  readonly #epoch: number;
  #ended = false;

  readonly reads = new ReadSet();
  /** What commits newer than this transaction replaced. */
  readonly #replacedRecords: Layer<Uint8Array> = new SortedMap();
  readonly #replacedLinks: Layer<true> = new SortedMap();
  #absorbed: number;

  /** What is to be written. */
  readonly records = new SortedMap<RecordChange>();
  /** Links that are made (true) or dropped here. */
  readonly ownLinks: Layer<true> = new SortedMap();
  /** Records deleted here: none of their stored links count. */
  readonly wiped = new Set<Key>();
  readonly droppedCounters = new Set<Key>();
  /** Highest number handed out here by counter. */
  readonly numbers = new Map<Key, number>();
  readonly hooks: (() => void)[] = [];
  /** Entries as they were read, good while no other commit comes between. */
  readonly known = new Map<Key, Entry | undefined>();
  /** Whether a record was deleted here. */
  takesAway = false;
  /** Whether a link was made here. */
  #links = false;

  /** `records`, as a layer over what is read. */
  readonly #written: ReadLayer<Uint8Array> = new Written(this.records);
  /** Whose links change here. */
  protected readonly linked = new Set<Key>();
  /** Links as they were found in the storage; good as long as `known`. */
  readonly #knownLinks = new Map<LinkKey, boolean>();

  constructor(host: TransactionHost, { writable, attempt, effects, background }: Attempt) {
    this.#host = host;
    this.revision = host.revision;
    this.writable = writable;
    this.attempt = attempt;
    this.background = background;
    this.#effects = effects;
    this.#epoch = host.epoch;
    this.#absorbed = this.revision;
    host.history.enter(this.revision);
  }

  // ------------------------------------------------------------------------------------------------------ reading

  get(key: Key): Value | undefined {
    this.checkUse();
    const own = this.records.get(key);
    if (own !== undefined) return own.bytes === undefined ? undefined : decodeValue(key, own.bytes);
    const value = this.stored(key);
    this.reads.keys.set(key, value !== undefined);
    return value;
  }

  /** What was stored under a key at this revision. Not part of what was read. */
  stored(key: Key): Value | undefined {
    this.#absorb();
    if (!this.#replacedRecords.has(key)) return this.#host.storage.value(key);
    const bytes = this.#replacedRecords.get(key);
    return bytes === undefined ? undefined : decodeValue(key, bytes);
  }

  has(key: Key): boolean {
    this.checkUse();
    const own = this.records.get(key);
    if (own !== undefined) return own.bytes !== undefined;
    const isThere = this.#isStored(key);
    this.reads.keys.set(key, isThere);
    return isThere;
  }

  #isStored(key: Key): boolean {
    this.#absorb();
    if (this.#replacedRecords.has(key)) return this.#replacedRecords.get(key) !== undefined;
    if (!this.writable) return this.#host.storage.has(key);
    // A caller that asks mostly writes or deletes the record next, and its commit asks for the entry.
    const entry = this.#host.storage.entry(key);
    this.known.set(key, entry);
    return entry?.bytes !== undefined;
  }

  *scan(prefix: Key, options: ScanOptions = {}): Generator<[Key, Value]> {
    this.checkUse();
    this.reads.prefixes.add(prefix);
    let left = options.limit ?? Number.POSITIVE_INFINITY;
    if (left <= 0) return;
    const storage = this.#host.storage;
    const entries = layered<Uint8Array>(
      below(prefix),
      options.after,
      (after, limit) => storage.range(prefix, after, limit, copied).entries,
      () => this.#layers(this.#replacedRecords, this.#written),
    );
    for (const [key, bytes] of entries) {
      this.checkUse();
      yield [key, decodeValue(key, bytes)];
      if (--left <= 0) return;
    }
  }

  *links(from: Key, relation: string, first?: number): Generator<Key> {
    this.checkUse();
    const prefix = linkPrefix(from, relation);
    this.reads.linkSets.add(prefix);
    for (const [link] of this.#linkEntries(prefix, from, first)) {
      this.checkUse();
      yield splitLink(link).to;
    }
  }

  hasLinks(from: Key, relation: string): boolean {
    for (const _ of this.links(from, relation)) return true;
    return false;
  }

  hasLink(from: Key, relation: string, to: Key): boolean {
    this.checkUse();
    const link = linkPrefix(from, relation) + to;
    if (this.ownLinks.has(link)) return this.ownLinks.get(link) !== undefined;
    if (this.wiped.has(from)) return false;
    const isThere = this.#isLinkStored(link);
    this.reads.links.set(link, isThere);
    return isThere;
  }

  #isLinkStored(link: LinkKey): boolean {
    this.#absorb();
    if (this.#replacedLinks.has(link)) return this.#replacedLinks.get(link) !== undefined;
    // What newer commits changed is among what they replaced.
    const stored = this.#knownLinks.get(link) ?? this.#host.storage.hasLink(link);
    this.#knownLinks.set(link, stored);
    return stored;
  }

  #linkEntries(prefix: string, from: Key, first?: number): Generator<[LinkKey, true]> {
    const wiped = this.wiped.has(from);
    return layered<true>(
      prefix,
      undefined,
      (after, limit) => (wiped ? [] : this.#storedLinks(prefix, after, limit)),
      () => (wiped ? [this.ownLinks] : this.#layers(this.#replacedLinks, this.ownLinks)),
      first,
    );
  }

  #storedLinks(prefix: string, after: LinkKey | undefined, limit: number): [LinkKey, true][] {
    const links = this.#host.storage.linkRange(prefix, after, limit);
    // A caller that goes through links mostly drops them.
    if (this.writable && this.#knownLinks.size < KNOWN_LINKS_MAX) {
      for (const link of links) this.#knownLinks.set(link, true);
    }
    return links.map((link) => [link, true]);
  }

  #layers<V>(replaced: Layer<V>, own: ReadLayer<V>): ReadLayer<V>[] {
    this.#absorb();
    return [replaced, own];
  }

  /** Takes in what newer commits replaced; the oldest of them has what stood here at our revision. */
  #absorb(): void {
    for (const before of this.#host.history.since(this.#absorbed)) {
      for (const [key, bytes] of before.records) {
        if (!this.#replacedRecords.has(key)) this.#replacedRecords.set(key, bytes);
      }
      for (const [link, present] of before.links) {
        if (!this.#replacedLinks.has(link)) this.#replacedLinks.set(link, present ? true : undefined);
      }
      this.#absorbed = before.revision;
    }
  }

  // ------------------------------------------------------------------------------------------------------ writing

  put(key: Key, value: Value): void {
    this.checkWrite();
    checkKey(key);
    const before = this.records.get(key);
    const bytes = encodeValue(key, value);
    this.records.set(key, {
      bytes,
      adjacency: this.#host.indexer.node(key, value),
      recreated: before !== undefined && (before.recreated || before.bytes === undefined),
    });
  }

  delete(key: Key): boolean {
    this.checkWrite();
    const existed = this.has(key);
    this.#wipeLinks(key);
    if (!existed) return false;
    this.records.set(key, DELETED);
    this.takesAway = true;
    return true;
  }

  #wipeLinks(from: Key): void {
    this.wiped.add(from);
    if (!this.linked.has(from)) return;
    const prefix = linksPrefix(from);
    const own: LinkKey[] = [];
    for (const [link] of this.ownLinks.from(prefix)) {
      if (!link.startsWith(prefix)) break;
      own.push(link);
    }
    for (const link of own) this.ownLinks.delete(link);
  }

  link(from: Key, relation: string, to: Key): boolean {
    this.checkWrite();
    checkKey(from);
    checkKey(to);
    if (this.hasLink(from, relation, to)) return false;
    this.ownLinks.set(linkPrefix(from, relation) + to, true);
    this.linked.add(from);
    this.#links = true;
    return true;
  }

  unlink(from: Key, relation: string, to: Key): boolean {
    this.checkWrite();
    if (!this.hasLink(from, relation, to)) return false;
    this.ownLinks.set(linkPrefix(from, relation) + to, undefined);
    this.linked.add(from);
    return true;
  }

  dropLink(from: Key, relation: string, to: Key): void {
    // The graph must not lose an edge twice.
    if (this.#host.indexer.link(from, relation, to) !== undefined) {
      this.unlink(from, relation, to);
      return;
    }
    this.checkWrite();
    const link = linkPrefix(from, relation) + to;
    this.ownLinks.set(link, undefined);
    this.linked.add(from);
    this.#knownLinks.set(link, true);
  }

  next(counter: Key): number {
    this.checkWrite();
    checkKey(counter);
    const number = this.#host.counters.next(counter);
    this.numbers.set(counter, number);
    return number;
  }

  dropCounters(prefix: Key): void {
    this.checkWrite();
    this.droppedCounters.add(prefix);
    for (const counter of this.numbers.keys()) {
      if (counter === prefix || counter.startsWith(below(prefix))) this.numbers.delete(counter);
    }
  }

  once<T>(name: string, effect: () => Promise<T>, undo?: (result: T) => Promise<void>): Promise<T> {
    this.checkUse();
    return this.#effects.once(this.attempt, name, effect, undo);
  }

  onCommit(hook: () => void): void {
    this.checkUse();
    this.hooks.push(hook);
  }

  // ----------------------------------------------------------------------------------------------- for the engines

  /** Whether its commit needs room on the disk: all but one that only drops links. */
  get needsRoom(): boolean {
    return this.records.size > 0 || this.#links;
  }

  /** Whether anything read here has changed since; then its outcome means nothing. */
  get isStale(): boolean {
    if (this.#epoch !== this.#host.epoch) return true;
    return this.#host.history.since(this.revision).some((before) => this.reads.touchedBy(before));
  }

  /** The links that change, against the newest state; `isNewest`: this transaction has seen that. */
  linkChanges(isNewest: boolean): Map<LinkKey, boolean> {
    const changes = new Map<LinkKey, boolean>();
    const storage = this.#host.storage;
    for (const from of this.wiped) {
      if (!this.#mayOwnLinks(from, isNewest)) continue;
      const prefix = linksPrefix(from);
      for (let after: LinkKey | undefined; ; ) {
        const links = storage.linkRange(prefix, after, 1024);
        for (const link of links) changes.set(link, false);
        if (links.length < 1024) break;
        after = links[links.length - 1];
      }
    }
    for (const [link, present] of this.ownLinks.entries()) {
      const wanted = present === true;
      const stored = (isNewest ? this.#knownLinks.get(link) : undefined) ?? storage.hasLink(link);
      if (stored === wanted) changes.delete(link);
      else changes.set(link, wanted);
    }
    return changes;
  }

  #mayOwnLinks(from: Key, isNewest: boolean): boolean {
    const { indexer, graph, storage } = this.#host;
    if (indexer.mayOwnLinks === undefined) return true;
    const known = isNewest ? this.known.get(from) : undefined;
    const id = known === undefined ? storage.idOf(from) : known.id;
    return indexer.mayOwnLinks(from, id === undefined || id === NO_ID ? 0 : graph.inDegreeOf(id));
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#host.history.leave(this.revision);
  }

  protected checkUse(): void {
    if (this.#ended) {
      throw failedPrecondition('the transaction has ended', { remedy: 'begin a new one' });
    }
    if (this.#epoch !== this.#host.epoch) {
      throw unavailable('what the transaction read could not be stored', { remedy: 'run it again' });
    }
  }

  protected checkWrite(): void {
    this.checkUse();
    if (!this.writable) {
      throw failedPrecondition('the transaction is read-only', { remedy: 'use update instead of view' });
    }
  }
}

const KNOWN_LINKS_MAX = 4096;
const DELETED: RecordChange = { bytes: undefined, adjacency: undefined, recreated: false };

class Written implements ReadLayer<Uint8Array> {
  readonly #records: SortedMap<RecordChange>;

  constructor(records: SortedMap<RecordChange>) {
    this.#records = records;
  }

  get size(): number {
    return this.#records.size;
  }

  *from(start: string, exclusive: boolean): Generator<[string, Uint8Array | undefined]> {
    for (const [key, { bytes }] of this.#records.from(start, exclusive)) yield [key, bytes];
  }
}

/** A key that engines can store: non-empty components of well-formed text. */
export function checkKey(key: Key): void {
  if (key === '' || key.startsWith('\0') || key.endsWith('\0') || key.includes('\0\0')) {
    throw invalidArgument(`key ${printable(key)} has an empty component`, { object: key });
  }
  if (LONE_SURROGATE.test(key)) {
    throw invalidArgument(`key ${printable(key)} is not well-formed Unicode`, { object: key });
  }
}

const LONE_SURROGATE = /\p{Surrogate}/u;
