/**
 * A map like SortedMap, kept apart by the first component of its keys: walking one collection in order must not make
 * every other one pay for being kept in order. Used for commits that are on their way to the tree.
 */
import { compareUtf8 } from '../../model/utf8.js';
import { SEPARATOR } from '../schema/keys.js';
import { SortedMap } from './sorted-map.js';

export class PartitionedMap<V> {
  readonly #parts = new Map<string, SortedMap<V>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: string): V | undefined {
    const part = this.#parts.get(partOf(key));
    // Most collections are empty most of the time: their keys need not be hashed.
    return part === undefined || part.size === 0 ? undefined : part.get(key);
  }

  set(key: string, value: V): void {
    const name = partOf(key);
    let part = this.#parts.get(name);
    if (part === undefined) {
      part = new SortedMap();
      this.#parts.set(name, part);
    }
    const before = part.size;
    part.set(key, value);
    this.#size += part.size - before;
  }

  delete(key: string): boolean {
    if (this.#parts.get(partOf(key))?.delete(key) !== true) return false;
    this.#size--;
    return true;
  }

  *keys(): Generator<string> {
    for (const part of this.#parts.values()) yield* part.keys();
  }

  /** Entries from `start` on that begin with `within`, in order; without `start` itself when `exclusive`. */
  *from(start: string, exclusive: boolean, within: string): Generator<[string, V]> {
    if (within.includes(SEPARATOR)) {
      const part = this.#parts.get(partOf(within));
      if (part !== undefined && part.size > 0) yield* part.from(start, exclusive);
      return;
    }
    const first = partOf(start) + SEPARATOR;
    const names = [...this.#parts.keys()].filter((name) => compareUtf8(name + SEPARATOR, first) >= 0);
    names.sort((a, b) => compareUtf8(a + SEPARATOR, b + SEPARATOR));
    for (const name of names) yield* this.#parts.get(name)!.from(start, exclusive);
  }
}

function partOf(key: string): string {
  const end = key.indexOf(SEPARATOR);
  return end < 0 ? key : key.slice(0, end);
}
