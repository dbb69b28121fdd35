/**
 * Keys under numbers, in the order in which they came: by what is before their last components, of which there are few, and by these, as
 * bytes. Called by filling.ts and filled-storage.ts.
 */
import type { Key } from '../contract.js';
import { SEPARATOR } from '../schema/keys.js';
import { type NameColumns, NameTable } from '../schema/name-table.js';

/** `sha256:` and its digits: nearly all last components. */
const DIGEST_LENGTH = 71;
const UNITS = 32;

/** Where the last component begins. */
function leafStart(key: Key): number {
  const likely = key.length - DIGEST_LENGTH;
  if (likely > 0 && key.charCodeAt(likely - 1) === 0 && !key.includes(SEPARATOR, likely)) return likely;
  return key.lastIndexOf(SEPARATOR) + 1;
}

export class KeyTable {
  readonly #names = new NameTable();
  /** With the separator; their places are the groups of the names. */
  readonly #parents: string[] = [];
  readonly #groups = new Map<string, number>();
  /** Those lately asked for, by the first unit: taking a key apart would cost as much as the rest. */
  readonly #lately = new Int32Array(UNITS).fill(-1);

  get length(): number {
    return this.#names.length;
  }

  /** The number of a key; of a new one what `length` was before. */
  add(key: Key): number {
    const start = leafStart(key);
    return this.#names.add(key, this.#group(key, start) ?? this.#addGroup(key.slice(0, start)), start);
  }

  find(key: Key): number | undefined {
    const start = leafStart(key);
    const group = this.#group(key, start);
    return group === undefined ? undefined : this.#names.find(key, group, start);
  }

  /** Adds what another table has; returns the numbers here. */
  addAll(names: NameColumns, parents: readonly string[]): Uint32Array {
    const groups = parents.map((parent) => this.#groups.get(parent) ?? this.#addGroup(parent));
    return this.#names.addAll(names, groups);
  }

  /** Beginnings of keys. */
  get parents(): readonly string[] {
    return this.#parents;
  }

  /** As `NameTable.columns`. */
  get names(): NameColumns {
    return this.#names.columns();
  }

  at(id: number): Key {
    return this.parentOf(id) + this.leafOf(id);
  }

  /** The place of its beginning in `parents`. */
  groupOf(id: number): number {
    return this.#names.groupOf(id);
  }

  parentOf(id: number): string {
    return this.#parents[this.#names.groupOf(id)] ?? '';
  }

  leafOf(id: number): string {
    return this.#names.at(id);
  }

  copyDigest(id: number, target: Uint8Array, at: number): boolean {
    return this.#names.copyDigest(id, target, at);
  }

  #group(key: Key, start: number): number | undefined {
    const slot = key.charCodeAt(0) % UNITS || 0;
    const last = this.#lately[slot] ?? -1;
    if (last >= 0 && this.#isIn(key, start, this.#parents[last] ?? '')) return last;
    const group = this.#groups.get(key.slice(0, start));
    if (group !== undefined) this.#lately[slot] = group;
    return group;
  }

  /** A loop: the same few beginnings come again and again. */
  #isIn(key: Key, start: number, parent: string): boolean {
    if (parent.length !== start) return false;
    for (let i = 0; i < start; i++) if (key.charCodeAt(i) !== parent.charCodeAt(i)) return false;
    return true;
  }

  #addGroup(parent: string): number {
    const group = this.#parents.push(parent) - 1;
    this.#groups.set(parent, group);
    return group;
  }
}
