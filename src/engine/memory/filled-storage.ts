/** What was filled in, as a storage that is only read. Called by engine.ts. */
import { openedReadOnly } from '../../errors.js';
import type { Key, ReadValue, StoredNode, Value } from '../contract.js';
import { PartitionedMap } from '../core/partitioned-map.js';
import { type Entry, NO_ID, type RecordRange } from '../core/storage.js';
import type { ByteStore } from '../schema/bytes.js';
import { decodeSlice } from '../schema/codec.js';
import { collectionOf } from '../schema/keys.js';
import type { Filled } from './filling.js';
import type { KeyTable } from './key-table.js';
import { MemoryStorage, rangeIn } from './storage.js';

export class FilledStorage extends MemoryStorage {
  readonly #filled: Filled;
  /** Places by key, for walks in order: of those collections that were walked. */
  readonly #inOrder = new PartitionedMap<number>();
  readonly #walked = new Set<string>();

  constructor(filled: Filled) {
    super(filled.links);
    this.#filled = filled;
  }

  override entry(key: Key): Entry | undefined {
    const id = this.idOf(key) ?? NO_ID;
    const place = this.#placeOf(key);
    if (id === NO_ID && place === undefined) return undefined;
    const bytes = place === undefined ? undefined : this.#filled.store.at(place);
    return { id, adjacency: undefined, bytes };
  }

  override value(key: Key): Value | undefined {
    const place = this.#placeOf(key);
    if (place === undefined) return undefined;
    const { chunk, start, end } = this.#filled.store.slice(place);
    return decodeSlice(key, chunk, start, end);
  }

  override has(key: Key): boolean {
    return this.#placeOf(key) !== undefined;
  }

  #placeOf(key: Key): number | undefined {
    const { keys, places, others } = this.#filled;
    const id = keys.find(key);
    if (id === undefined) return others.get(key);
    const place = places.at(id);
    return place < 0 ? undefined : place;
  }

  override range<T>(
    prefix: Key,
    after: Key | undefined,
    limit: number,
    read: ReadValue<T>,
    bytesMax = Number.POSITIVE_INFINITY,
  ): RecordRange<T> {
    this.#order(collectionOf(prefix));
    const { store } = this.#filled;
    return rangeIn(this.#inOrder, prefix, after, limit, (place) => store.at(place), read, bytesMax);
  }

  /** @param wanted '': all */
  #order(wanted: string): void {
    const { keys, places, others } = this.#filled;
    const walked = this.#walked;
    if (walked.has('') || walked.has(wanted)) return;
    const isNew = (one: string): boolean => !walked.has(one) && (wanted === '' || one === wanted);
    const groups = keys.parents.map((parent) => isNew(collectionOf(parent)));
    for (let id = 0; id < keys.length; id++) {
      const place = places.at(id);
      if (place >= 0 && groups[keys.groupOf(id)] === true) this.#inOrder.set(keys.at(id), place);
    }
    for (const [key, place] of others.entries()) if (isNew(collectionOf(key))) this.#inOrder.set(key, place);
    walked.add(wanted);
  }

  override keyOf(id: number): Key | undefined {
    const { keys } = this.#filled;
    return id < keys.length ? keys.at(id) : undefined;
  }

  override readNode<T>(id: number, read: (node: StoredNode) => T): T | undefined {
    const { keys, places, store } = this.#filled;
    if (id >= keys.length) return undefined;
    const place = places.at(id);
    return place < 0 ? undefined : read(new FilledNode(keys, id, store, place));
  }

  override idOf(key: Key): number | undefined {
    return this.#filled.keys.find(key);
  }

  override accept(): never {
    throw openedReadOnly();
  }

  override records(): number {
    return this.#filled.records;
  }
}

class FilledNode implements StoredNode {
  readonly #keys: KeyTable;
  readonly #id: number;
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;

  constructor(keys: KeyTable, id: number, store: ByteStore, place: number) {
    this.#keys = keys;
    this.#id = id;
    const { chunk, start, end } = store.slice(place);
    this.bytes = chunk;
    this.start = start;
    this.end = end;
  }

  get key(): Key {
    return this.#keys.at(this.#id);
  }

  get leaf(): string {
    return this.#keys.leafOf(this.#id);
  }

  get parent(): string {
    return this.#keys.parentOf(this.#id);
  }

  copyDigest(target: Uint8Array, at: number): boolean {
    return this.#keys.copyDigest(this.#id, target, at);
  }
}
