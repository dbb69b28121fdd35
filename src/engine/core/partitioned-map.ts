/**
 * A map like SortedMap, kept apart by the beginnings of its keys (the first component by default): walking one part in
 * order must not make every other one pay for being kept in order. Used by memtables.
 */
import { compareUtf8 } from '../../model/utf8.js';
import { SEPARATOR } from '../schema/keys.js';
import { SortedMap } from './sorted-map.js';

export class PartitionedMap<V> {
  readonly #parts = new Map<string, SortedMap<V>>();
  readonly #end: string;
  #size = 0;

  /** @param end what a part's name ends at */
  constructor(end: string = SEPARATOR) {
    this.#end = end;
  }

  get size(): number {
    return this.#size;
  }

  /** What one part holds, in no particular order. */
  part(name: string): { readonly size: number; entries(): Iterable<[string, V]> } | undefined {
    return this.#parts.get(name);
  }

  get(key: string): V | undefined {
    // Mostly there is nothing, in any collection or in the key's: it need not be taken apart, nor hashed.
    if (this.#size === 0) return undefined;
    const part = this.#parts.get(this.#partOf(key));
    return part === undefined || part.size === 0 ? undefined : part.get(key);
  }

  has(key: string): boolean {
    return this.#parts.get(this.#partOf(key))?.has(key) === true;
  }

  set(key: string, value: V): void {
    const name = this.#partOf(key);
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
    if (this.#parts.get(this.#partOf(key))?.delete(key) !== true) return false;
    this.#size--;
    return true;
  }

  /** In no particular order. */
  *entries(): Generator<[string, V]> {
    for (const part of this.#parts.values()) yield* part.entries();
  }

  /** Entries from `start` on that begin with `within`, in order; without `start` itself when `exclusive`. */
  *from(start: string, exclusive: boolean, within: string): Generator<[string, V]> {
    if (within.includes(this.#end)) {
      const part = this.#parts.get(this.#partOf(within));
      if (part !== undefined && part.size > 0) yield* part.from(start, exclusive);
      return;
    }
    const first = this.#partOf(start) + this.#end;
    const parts = [...this.#parts].filter(([name]) => compareUtf8(name + this.#end, first) >= 0);
    parts.sort(([a], [b]) => compareUtf8(a + this.#end, b + this.#end));
    for (const [, part] of parts) yield* part.from(start, exclusive);
  }

  #partOf(key: string): string {
    const end = key.indexOf(this.#end);
    return end < 0 ? key : key.slice(0, end);
  }
}
