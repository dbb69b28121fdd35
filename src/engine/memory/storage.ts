/**
 * A storage in memory: the reference for the others, and the store of tests. Nothing outlives the process;
 * every commit is visible and "flushed" at once.
 */

import { compareUtf8 } from '../../model/utf8.js';
import type { Key, ReadValue, StoredNode, Value } from '../contract.js';
import { asBuffer } from '../core/bytes.js';
import { PartitionedMap } from '../core/partitioned-map.js';
import { below } from '../core/reads.js';
import {
  type Commit,
  type Entry,
  LINK_SEPARATOR,
  type LinkKey,
  NO_ID,
  type RecordRange,
  type Storage,
  type StorageListener,
  type Written,
} from '../core/storage.js';
import { NodeInMemory } from '../core/stored-node.js';
import { decodeValue } from '../schema/codec.js';

const done = Promise.resolve();
const written: Written = { visible: done, flushed: done };

export class MemoryStorage implements Storage {
  readonly #entries = new PartitionedMap<Entry>();
  readonly #links: PartitionedMap<true>;
  readonly #keys: (Key | undefined)[] = [];
  readonly #nodes: (Entry | undefined)[] = [];
  /** The key that was asked for last by its id: mostly its record is asked for next. */
  #lastKey: Key | undefined;
  #lastEntry: Entry | undefined;
  #records = 0;
  readonly #counters = new Map<Key, number>();
  #listener: StorageListener | undefined;

  constructor(links = new PartitionedMap<true>(LINK_SEPARATOR)) {
    this.#links = links;
  }

  listen(listener: StorageListener): void {
    this.#listener = listener;
  }

  entry(key: Key): Entry | undefined {
    return this.#entries.get(key);
  }

  value(key: Key): Value | undefined {
    const entry = key === this.#lastKey ? this.#lastEntry : this.#entries.get(key);
    const bytes = entry?.bytes;
    return bytes === undefined ? undefined : decodeValue(key, bytes);
  }

  has(key: Key): boolean {
    return this.#entries.get(key)?.bytes !== undefined;
  }

  range<T>(
    prefix: Key,
    after: Key | undefined,
    limit: number,
    read: ReadValue<T>,
    bytesMax = Number.POSITIVE_INFINITY,
  ): RecordRange<T> {
    return rangeIn(this.#entries, prefix, after, limit, ({ bytes }) => bytes, read, bytesMax);
  }

  linkRange(prefix: string, after: LinkKey | undefined, limit: number): LinkKey[] {
    const found: LinkKey[] = [];
    for (const [link] of from(this.#links, prefix, after)) {
      if (found.length >= limit || !link.startsWith(prefix)) break;
      found.push(link);
    }
    return found;
  }

  *allLinks(): Generator<LinkKey> {
    for (const [link] of this.#links.entries()) yield link;
  }

  hasLink(link: LinkKey): boolean {
    return this.#links.has(link);
  }

  keyOf(id: number): Key | undefined {
    this.#lastKey = this.#keys[id];
    this.#lastEntry = this.#nodes[id];
    return this.#lastKey;
  }

  readNode<T>(id: number, read: (node: StoredNode) => T): T | undefined {
    const [key, bytes] = [this.#keys[id], this.#nodes[id]?.bytes];
    return key === undefined || bytes === undefined ? undefined : read(new NodeInMemory(key, bytes));
  }

  idOf(key: Key): number | undefined {
    const id = this.#entries.get(key)?.id;
    return id === undefined || id === NO_ID ? undefined : id;
  }

  counter(name: Key): number {
    return this.#counters.get(name) ?? 0;
  }

  countersUnder(prefix: Key): Key[] {
    const start = below(prefix);
    return [...this.#counters.keys()].filter((name) => name === prefix || name.startsWith(start));
  }

  accept(commit: Commit): Written {
    this.#lastKey = undefined;
    for (const id of commit.freed.keys()) {
      this.#keys[id] = undefined;
      this.#nodes[id] = undefined;
    }
    for (const [key, { after: entry }] of commit.entries) {
      if (entry === undefined) {
        this.#entries.delete(key);
      } else {
        this.#entries.set(key, entry);
        if (entry.id === NO_ID) continue;
        this.#keys[entry.id] = key;
        this.#nodes[entry.id] = entry;
      }
    }
    for (const [link, present] of commit.links) {
      if (present) this.#links.set(link, true);
      else this.#links.delete(link);
    }
    for (const [name, value] of commit.counters) {
      if (value === undefined) this.#counters.delete(name);
      else this.#counters.set(name, value);
    }
    this.#records += commit.recordDelta;
    this.#listener?.visible(commit.revision);
    return written;
  }

  records(): number {
    return this.#records;
  }

  fileBytes(): number {
    return 0;
  }

  flush(): Promise<void> {
    return done;
  }

  paced(): Promise<void> {
    return done;
  }

  foregroundDone(): Promise<void> {
    return done;
  }

  async close(): Promise<void> {
    this.#entries.clear();
    this.#links.clear();
    this.#counters.clear();
    this.#keys.length = 0;
    this.#nodes.length = 0;
    this.#lastKey = undefined;
  }
}

/** As `Storage.range`, of what has bytes. */
export function rangeIn<V, T>(
  map: PartitionedMap<V>,
  prefix: Key,
  after: Key | undefined,
  limit: number,
  bytesOf: (value: V) => Uint8Array | undefined,
  read: ReadValue<T>,
  bytesMax: number,
): RecordRange<T> {
  const start = below(prefix);
  const entries: [Key, T][] = [];
  let left = bytesMax;
  for (const [key, value] of from(map, start, after)) {
    if (!key.startsWith(start)) break;
    if (entries.length >= limit || left <= 0) return { entries, more: true };
    const bytes = bytesOf(value);
    if (bytes === undefined) continue;
    entries.push([key, read(key, asBuffer(bytes), 0, bytes.length)]);
    left -= bytes.length;
  }
  return { entries, more: false };
}

/** Entries that begin with `start`, and are after `after` when that is further; maybe others after them. */
function from<V>(map: PartitionedMap<V>, start: string, after: string | undefined): Iterable<[string, V]> {
  return after !== undefined && compareUtf8(after, start) >= 0
    ? map.from(after, true, start)
    : map.from(start, false, start);
}
