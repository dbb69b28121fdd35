/**
 * One attempt of a transaction (or a view): reads at its revision with its own writes on top, remembers what it read
 * and what it wants written. engine.ts makes one per attempt, commits it and ends it; it is of no use afterwards.
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

  readonly #reads = new ReadSet();
  /** What commits newer than this transaction replaced. */
  readonly #pastRecords: Layer<Uint8Array> = new SortedMap();
  readonly #pastLinks: Layer<true> = new SortedMap();
  #absorbed: number;

  readonly #records = new SortedMap<RecordChange>();
  /** The same writes, as a layer over what is read. */
  readonly #written: ReadLayer<Uint8Array> = new Written(this.#records);
  readonly #links: Layer<true> = new SortedMap();
  /** Whose links change here. */
  readonly #linked = new Set<Key>();
  /** Records deleted here: none of their stored links count. */
  readonly #wiped = new Set<Key>();
  readonly #hooks: (() => void)[] = [];
  /** Whether a record was deleted here. */
  takesAway = false;
  /** Entries as they were read, good while no other commit comes between. */
  readonly #known = new Map<Key, Entry | undefined>();
  /** Links as they were found in the storage; good as long. */
  readonly #knownLinks = new Map<LinkKey, boolean>();
  readonly #droppedCounters = new Set<Key>();
  /** Highest number handed out here by counter. */
  readonly #numbers = new Map<Key, number>();

  constructor(
    host: TransactionHost,
    options: { revision: number; writable: boolean; attempt: number; effects: Effects; background: boolean },
  ) {
    this.#host = host;
    this.revision = options.revision;
    this.writable = options.writable;
    this.attempt = options.attempt;
    this.background = options.background;
    this.#effects = options.effects;
    this.#epoch = host.epoch;
    this.#absorbed = options.revision;
    host.history.enter(options.revision);
  }

  // ------------------------------------------------------------------------------------------------------ reading

  get(key: Key): Value | undefined {
    this.#checkUse();
    this.#reads.keys.add(key);
    const own = this.#records.get(key);
    if (own !== undefined) return own.bytes === undefined ? undefined : decodeValue(key, own.bytes);
    this.#absorb();
    if (this.#pastRecords.has(key)) {
      const bytes = this.#pastRecords.get(key);
      return bytes === undefined ? undefined : decodeValue(key, bytes);
    }
    return this.#host.storage.value(key);
  }

  has(key: Key): boolean {
    this.#checkUse();
    this.#reads.keys.add(key);
    const own = this.#records.get(key);
    if (own !== undefined) return own.bytes !== undefined;
    this.#absorb();
    if (this.#pastRecords.has(key)) return this.#pastRecords.get(key) !== undefined;
    if (!this.writable) return this.#host.storage.has(key);
    // Who asks mostly writes the record next, and its commit asks for the entry.
    const entry = this.#host.storage.entry(key);
    this.#known.set(key, entry);
    return entry?.bytes !== undefined;
  }

  *scan(prefix: Key, options: ScanOptions = {}): Generator<[Key, Value]> {
    this.#checkUse();
    this.#reads.prefixes.add(prefix);
    let left = options.limit ?? Number.POSITIVE_INFINITY;
    if (left <= 0) return;
    const storage = this.#host.storage;
    const entries = layered<Uint8Array>(
      below(prefix),
      options.after,
      (after, limit) => storage.range(prefix, after, limit, copied).entries,
      () => this.#layers(this.#pastRecords, this.#written),
    );
    for (const [key, bytes] of entries) {
      this.#checkUse();
      yield [key, decodeValue(key, bytes)];
      if (--left <= 0) return;
    }
  }

  *links(from: Key, relation: string): Generator<Key> {
    this.#checkUse();
    const prefix = linkPrefix(from, relation);
    this.#reads.linkSets.add(prefix);
    for (const [link] of this.#linkEntries(prefix, from)) {
      this.#checkUse();
      yield splitLink(link).to;
    }
  }

  hasLinks(from: Key, relation: string): boolean {
    for (const _ of this.links(from, relation)) return true;
    return false;
  }

  hasLink(from: Key, relation: string, to: Key): boolean {
    this.#checkUse();
    const link = linkPrefix(from, relation) + to;
    this.#reads.links.add(link);
    if (this.#links.has(link)) return this.#links.get(link) !== undefined;
    if (this.#wiped.has(from)) return false;
    this.#absorb();
    if (this.#pastLinks.has(link)) return this.#pastLinks.get(link) !== undefined;
    const stored = this.#host.storage.hasLink(link);
    this.#knownLinks.set(link, stored);
    return stored;
  }

  #linkEntries(prefix: string, from: Key): Generator<[LinkKey, true]> {
    const storage = this.#host.storage;
    const wiped = this.#wiped.has(from);
    return layered<true>(
      prefix,
      undefined,
      (after, limit) => (wiped ? [] : storage.linkRange(prefix, after, limit).map((link) => [link, true])),
      () => (wiped ? [this.#links] : this.#layers(this.#pastLinks, this.#links)),
    );
  }

  #layers<V>(past: Layer<V>, own: ReadLayer<V>): ReadLayer<V>[] {
    this.#absorb();
    return [past, own];
  }

  /** Takes in what newer commits replaced; the oldest of them tells what stood here at our revision. */
  #absorb(): void {
    for (const past of this.#host.history.since(this.#absorbed)) {
      for (const [key, bytes] of past.records) {
        if (!this.#pastRecords.has(key)) this.#pastRecords.set(key, bytes);
      }
      for (const [link, present] of past.links) {
        if (!this.#pastLinks.has(link)) this.#pastLinks.set(link, present ? true : undefined);
      }
      this.#absorbed = past.revision;
    }
  }

  // ------------------------------------------------------------------------------------------------------ writing

  put(key: Key, value: Value): void {
    this.#checkWrite();
    checkKey(key);
    const before = this.#records.get(key);
    const bytes = encodeValue(key, value);
    this.#records.set(key, {
      bytes,
      adjacency: this.#host.indexer.node(key, value),
      recreated: before !== undefined && (before.recreated || before.bytes === undefined),
    });
  }

  delete(key: Key): boolean {
    this.#checkWrite();
    const existed = this.#existsForDelete(key);
    this.#wipeLinks(key);
    if (!existed) return false;
    this.#records.set(key, DELETED);
    this.takesAway = true;
    return true;
  }

  /** As `has`, but reads the whole entry, which the commit will ask for. */
  #existsForDelete(key: Key): boolean {
    if (this.#records.has(key) || this.#host.history.since(this.revision).length > 0) return this.has(key);
    this.#reads.keys.add(key);
    const entry = this.#host.storage.entry(key);
    this.#known.set(key, entry);
    return entry?.bytes !== undefined;
  }

  #wipeLinks(from: Key): void {
    this.#wiped.add(from);
    if (!this.#linked.has(from)) return;
    const prefix = linksPrefix(from);
    const own: LinkKey[] = [];
    for (const [link] of this.#links.from(prefix)) {
      if (!link.startsWith(prefix)) break;
      own.push(link);
    }
    for (const link of own) this.#links.delete(link);
  }

  link(from: Key, relation: string, to: Key): boolean {
    this.#checkWrite();
    checkKey(from);
    checkKey(to);
    if (this.hasLink(from, relation, to)) return false;
    this.#links.set(linkPrefix(from, relation) + to, true);
    this.#linked.add(from);
    return true;
  }

  unlink(from: Key, relation: string, to: Key): boolean {
    this.#checkWrite();
    if (!this.hasLink(from, relation, to)) return false;
    this.#links.set(linkPrefix(from, relation) + to, undefined);
    this.#linked.add(from);
    return true;
  }

  dropLink(from: Key, relation: string, to: Key): void {
    // The graph must not lose an edge twice.
    if (this.#host.indexer.link(from, relation, to) !== undefined) {
      this.unlink(from, relation, to);
      return;
    }
    this.#checkWrite();
    const link = linkPrefix(from, relation) + to;
    this.#links.set(link, undefined);
    this.#linked.add(from);
    this.#knownLinks.set(link, true);
  }

  next(counter: Key): number {
    this.#checkWrite();
    checkKey(counter);
    const number = this.#host.counters.next(counter);
    this.#numbers.set(counter, number);
    return number;
  }

  dropCounters(prefix: Key): void {
    this.#checkWrite();
    this.#droppedCounters.add(prefix);
    for (const counter of this.#numbers.keys()) {
      if (counter === prefix || counter.startsWith(below(prefix))) this.#numbers.delete(counter);
    }
  }

  once<T>(name: string, effect: () => Promise<T>, undo?: (result: T) => Promise<void>): Promise<T> {
    this.#checkUse();
    return this.#effects.once(this.attempt, name, effect, undo);
  }

  onCommit(hook: () => void): void {
    this.#checkUse();
    this.#hooks.push(hook);
  }

  // -------------------------------------------------------------------------------------------------- for engine.ts

  /** Whether anything read here has changed since; then its outcome means nothing. */
  get stale(): boolean {
    if (this.#epoch !== this.#host.epoch) return true;
    return this.#host.history.since(this.revision).some((past) => this.#reads.touchedBy(past));
  }

  get records(): SortedMap<RecordChange> {
    return this.#records;
  }
  get known(): ReadonlyMap<Key, Entry | undefined> {
    return this.#known;
  }
  get numbers(): ReadonlyMap<Key, number> {
    return this.#numbers;
  }
  get droppedCounters(): ReadonlySet<Key> {
    return this.#droppedCounters;
  }
  get hooks(): readonly (() => void)[] {
    return this.#hooks;
  }

  /** The links that change, against the newest state; `isNewest`: this transaction has seen that. */
  linkChanges(isNewest: boolean): Map<LinkKey, boolean> {
    const changes = new Map<LinkKey, boolean>();
    const storage = this.#host.storage;
    for (const from of this.#wiped) {
      if (!this.#mayOwnLinks(from, isNewest)) continue;
      const prefix = linksPrefix(from);
      for (let after: LinkKey | undefined; ; ) {
        const links = storage.linkRange(prefix, after, 1024);
        for (const link of links) changes.set(link, false);
        if (links.length < 1024) break;
        after = links[links.length - 1];
      }
    }
    for (const [link, present] of this.#links.entries()) {
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
    const known = isNewest ? this.#known.get(from) : undefined;
    const id = known === undefined ? storage.idOf(from) : known.id;
    return indexer.mayOwnLinks(from, id === undefined || id === NO_ID ? 0 : graph.inDegreeOf(id));
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#host.history.leave(this.revision);
  }

  #checkUse(): void {
    if (this.#ended) {
      throw failedPrecondition('the transaction has ended', { remedy: 'begin a new one' });
    }
    if (this.#epoch !== this.#host.epoch) {
      throw unavailable('what the transaction read could not be stored', { remedy: 'run it again' });
    }
  }

  #checkWrite(): void {
    this.#checkUse();
    if (!this.writable) {
      throw failedPrecondition('the transaction is read-only', { remedy: 'use update instead of view' });
    }
  }
}

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
function checkKey(key: Key): void {
  if (key === '' || key.startsWith('\0') || key.endsWith('\0') || key.includes('\0\0')) {
    throw invalidArgument(`key ${printable(key)} has an empty component`, { object: key });
  }
  if (LONE_SURROGATE.test(key)) {
    throw invalidArgument(`key ${printable(key)} is not well-formed Unicode`, { object: key });
  }
}

const LONE_SURROGATE = /\p{Surrogate}/u;
