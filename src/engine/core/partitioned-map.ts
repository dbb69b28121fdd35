/**
 * A map like SortedMap, kept apart by the beginnings of its keys (the first component by default): walking one part in
 * order must not make every other one pay for being kept in order. Used by memtables and the memory engine.
 */
import { compareUtf8 } from '../../model/utf8.js';
import { SEPARATOR } from '../schema/keys.js';
import { SortedMap } from './sorted-map.js';

const UNITS = 32;
const slotOf = (key: string): number => key.charCodeAt(0) % UNITS || 0;

interface Part<V> {
  readonly name: string;
  readonly map: SortedMap<V>;
}

export class PartitionedMap<V> {
  readonly #parts = new Map<string, SortedMap<V>>();
  /** The parts lately asked for, by the first unit of their names. */
  readonly #lately: (Part<V> | undefined)[] = new Array<undefined>(UNITS).fill(undefined);
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
    const part = this.#partFor(key);
    return part === undefined || part.size === 0 ? undefined : part.get(key);
  }

  has(key: string): boolean {
    return this.#partFor(key)?.has(key) === true;
  }

  set(key: string, value: V): void {
    let part = this.#partFor(key);
    if (part === undefined) {
      part = new SortedMap();
      this.#parts.set(this.#partOf(key), part);
    }
    const before = part.size;
    part.set(key, value);
    this.#size += part.size - before;
  }

  delete(key: string): boolean {
    const part = this.#partFor(key);
    if (part?.delete(key) !== true) return false;
    this.#size--;
    if (part.size === 0) {
      this.#parts.delete(this.#partOf(key));
      this.#lately[slotOf(key)] = undefined;
    }
    return true;
  }

  /** In no particular order. */
  *entries(): Generator<[string, V]> {
    for (const part of this.#parts.values()) yield* part.entries();
  }

  /** Entries from `start` on that begin with `within`, in order; without `start` itself when `exclusive`. */
  *from(start: string, exclusive: boolean, within: string): Generator<[string, V]> {
    if (within.includes(this.#end)) {
      const part = this.#partFor(within);
      if (part !== undefined && part.size > 0) yield* part.from(start, exclusive);
      return;
    }
    const first = this.#partOf(start) + this.#end;
    const parts = [...this.#parts].filter(([name]) => compareUtf8(name + this.#end, first) >= 0);
    parts.sort(([a], [b]) => compareUtf8(a + this.#end, b + this.#end));
    for (const [, part] of parts) yield* part.from(start, exclusive);
  }

  clear(): void {
    this.#parts.clear();
    this.#lately.fill(undefined);
    this.#size = 0;
  }

  /** Without taking the key apart when its part is one of the last: that would cost as much as the look-up. */
  #partFor(key: string): SortedMap<V> | undefined {
    const slot = slotOf(key);
    const last = this.#lately[slot];
    if (last !== undefined && this.#isIn(key, last.name)) return last.map;
    const name = this.#partOf(key);
    const map = this.#parts.get(name);
    if (map !== undefined) this.#lately[slot] = { name, map };
    return map;
  }

  #isIn(key: string, part: string): boolean {
    for (let i = 0; i < part.length; i++) if (key.charCodeAt(i) !== part.charCodeAt(i)) return false;
    return key.startsWith(this.#end, part.length);
  }

  #partOf(key: string): string {
    const end = key.indexOf(this.#end);
    return end < 0 ? key : key.slice(0, end);
  }
}
