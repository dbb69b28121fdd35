/**
 * What the store has, kept beside it from the commits it takes: once as everybody reads it, once as it would be
 * found after a crash. The judge looks here, never through the code under test. Also the storage that feeds them.
 */
import type { Key, Value } from '../../src/engine/contract.js';
import {
  type Commit,
  type EntryChange,
  NO_ID,
  type StorageListener,
  type Written,
} from '../../src/engine/core/storage.js';
import { MemoryStorage } from '../../src/engine/memory/storage.js';
import { decodeValue } from '../../src/engine/schema/codec.js';
import { unavailable } from '../../src/errors.js';
import type { RecordSource } from '../support/oracle.js';
import type { Random } from '../support/random.js';
import type { Marks } from './marks.js';
import type { Scheduler } from './scheduler.js';

/** A commit in the judge's words. */
export interface Change {
  readonly revision: number;
  /** Only records that changed; undefined: deleted. */
  readonly records: readonly (readonly [Key, Value | undefined])[];
  /** Whether there was a record before, by key. */
  readonly existed: ReadonlySet<Key>;
  readonly links: ReadonlyMap<string, boolean>;
}

const collectionOf = (record: Key): string => record.slice(0, record.indexOf('\0'));

export class Mirror implements RecordSource {
  /** Commits that changed a record or a link of the graph. */
  changes = 0;
  readonly #collections = new Map<string, Map<Key, Value>>();
  /** Targets by record and relation. */
  readonly #links = new Map<string, Set<Key>>();

  apply({ records, links }: Change): void {
    if (links.size > 0 || records.some(([record]) => collectionOf(record) !== 'meta')) this.changes++;
    for (const [record, value] of records) {
      if (value === undefined) this.#of(collectionOf(record)).delete(record);
      else this.#of(collectionOf(record)).set(record, value);
    }
    for (const [link, present] of links) {
      const at = link.lastIndexOf('\0\0');
      const from = link.slice(0, at);
      const targets = this.#links.get(from) ?? new Set<Key>();
      this.#links.set(from, targets);
      if (present) targets.add(link.slice(at + 2));
      else targets.delete(link.slice(at + 2));
    }
  }

  /** Records of one collection. */
  scan(collection: string): ReadonlyMap<Key, Value> {
    return this.#of(collection);
  }

  links(from: string, relation: string): Iterable<Key> {
    return this.#links.get(`${from}\0\0${relation}`) ?? [];
  }

  /** Every record and every link, to be written elsewhere. */
  *records(): Generator<[Key, Value]> {
    for (const collection of this.#collections.values()) yield* collection;
  }
  *allLinks(): Generator<[Key, string, Key]> {
    for (const [from, targets] of this.#links) {
      const at = from.indexOf('\0\0');
      for (const to of targets) yield [from.slice(0, at), from.slice(at + 2), to];
    }
  }

  /** Every snapshot with each child it is said to have. */
  *children(): Generator<[Key, Key]> {
    for (const [from, targets] of this.#links) {
      if (!from.endsWith('\0\0children')) continue;
      for (const child of targets) yield [from.slice(0, from.indexOf('\0\0')), child];
    }
  }

  get(record: Key): Value | undefined {
    return this.#of(collectionOf(record)).get(record);
  }

  #of(collection: string): Map<Key, Value> {
    let records = this.#collections.get(collection);
    if (records === undefined) {
      records = new Map();
      this.#collections.set(collection, records);
    }
    return records;
  }
}

function changeOf(commit: Commit): Change {
  const records: [Key, Value | undefined][] = [];
  const existed = new Set<Key>();
  for (const [record, { before, after }] of commit.entries) {
    if (before?.bytes !== undefined) existed.add(record);
    if (before?.bytes === after?.bytes) continue;
    records.push([record, after?.bytes === undefined ? undefined : decodeValue(record, after.bytes)]);
  }
  return { revision: commit.revision, records, existed, links: commit.links };
}

export interface CommitWatcher {
  /** The mirrors are still as before. */
  before(change: Change): void;
  /** The newest mirror has the change. */
  after(change: Change): void;
  /** Everything that was not on disk is undone. */
  lost(): void;
}

/** The commit that takes another one back. */
function inverseOf(commit: Commit): Commit {
  const entries = new Map<Key, EntryChange>();
  const freed = new Map<number, Key>();
  for (const [record, { before, after }] of commit.entries) {
    entries.set(record, { before: after, after: before });
    if (after !== undefined && after.id !== NO_ID && after.id !== before?.id) freed.set(after.id, record);
  }
  const links = new Map([...commit.links].map(([link, present]) => [link, !present]));
  // Numbers once handed out stay so; that is all a counter promises.
  return { ...commit, entries, links, freed, counters: new Map(), recordDelta: -commit.recordDelta };
}

/** Chance that commits are lost instead of flushed. */
export interface DiskFaults {
  lossRate: number;
}

/** What is on the disk when a process has died. */
export interface OnDisk {
  readonly mirror: Mirror;
  readonly counters: ReadonlyMap<Key, number>;
}

/** A storage in memory whose commits are on its disk only when the schedule says so, or not at all. */
export class WatchedStorage extends MemoryStorage {
  readonly newest = new Mirror();
  readonly durable = new Mirror();
  readonly #counters = new Map<Key, number>();
  readonly #faults: DiskFaults;
  readonly #marks: Marks;
  /** Until there is one, commits are on disk at once. */
  watcher: CommitWatcher | undefined;
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  #inner: StorageListener | undefined;
  #unflushed: { commit: Commit; change: Change }[] = [];
  #flushing: Promise<void> = Promise.resolve();

  constructor(scheduler: Scheduler, random: Random, faults: DiskFaults, marks: Marks) {
    super();
    this.#faults = faults;
    this.#marks = marks;
    this.#scheduler = scheduler;
    this.#random = random;
  }

  override listen(listener: StorageListener): void {
    this.#inner = listener;
    super.listen({ visible: () => {}, lost: () => listener.lost() });
  }

  override accept(commit: Commit): Written {
    const change = changeOf(commit);
    this.watcher?.before(change);
    const written = super.accept(commit);
    this.newest.apply(change);
    this.watcher?.after(change);
    const waiting = this.#unflushed.push({ commit, change });
    if (this.watcher === undefined) this.#flush();
    else if (waiting === 1) {
      this.#flushing = this.#scheduler.step('flush of commits').then(() => {
        if (!this.#random.chance(this.#faults.lossRate)) this.#flush();
        else this.#lose();
      });
    }
    return { visible: written.visible, flushed: this.#flushing };
  }

  override flush(): Promise<void> {
    return this.#unflushed.length === 0 ? super.flush() : this.#flushing;
  }

  /** Everything accepted until now is on disk. */
  #flush(): void {
    for (const { commit, change } of this.#unflushed.splice(0)) {
      this.#arrive(commit, change);
      this.#inner?.visible(change.revision);
    }
  }

  #arrive({ counters }: Commit, change: Change): void {
    this.durable.apply(change);
    for (const [name, value] of counters) {
      if (value === undefined) this.#counters.delete(name);
      else this.#counters.set(name, value);
    }
  }

  /** The process dies: of the commits that were on their way the first ones may have arrived. */
  die(): OnDisk {
    const arrived = this.#random.int(this.#unflushed.length + 1);
    if (arrived > 0) this.#marks.add('unacknowledged commits found after a death');
    if (arrived < this.#unflushed.length) this.#marks.add('commits lost by a death');
    for (const { commit, change } of this.#unflushed.splice(0).slice(0, arrived))
      this.#arrive(commit, change);
    return { mirror: this.durable, counters: this.#counters };
  }

  #lose(): never {
    this.#scheduler.log(`${this.#unflushed.length} commits are lost`);
    this.#marks.add('commits lost by a failing disk');
    for (const { commit } of this.#unflushed.splice(0).reverse()) {
      const inverse = inverseOf(commit);
      super.accept(inverse);
      this.newest.apply(changeOf(inverse));
    }
    this.#inner?.lost();
    this.watcher?.lost();
    throw unavailable('the disk says no', { remedy: 'try again' });
  }
}
