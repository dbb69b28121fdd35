/**
 * Values that were read from the tree lately: a record that is asked for again and again costs a look into a map and a
 * copy, instead of two looks into LMDB and its decoding. Called by the storage, which takes out every key that a commit
 * changes before anybody can read it, and never puts in one that a commit on its way to the tree has changed.
 *
 * Two generations: when the younger one is full, the older one is forgotten and the younger takes its place. What is
 * asked for in the older one comes over. At most some megabytes.
 */
import type { FieldValue, Key, Value } from '../contract.js';

const GENERATION_KEYS = 2048;
/** Larger ones, in their stored form, are not kept. */
export const HOT_BYTES_MAX = 1024;

export class HotValues {
  #young = new Map<Key, Value>();
  #old = new Map<Key, Value>();

  /** The caller's own copy. */
  get(key: Key): Value | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return copyOfValue(young);
    const old = this.#old.get(key);
    return old === undefined ? undefined : this.keep(key, old);
  }

  /** Keeps a value, which nobody else may change from now on; answers a copy. */
  keep(key: Key, value: Value): Value {
    if (this.#young.size >= GENERATION_KEYS) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(key, value);
    return copyOfValue(value);
  }

  delete(keys: Iterable<Key>): void {
    if (this.#young.size + this.#old.size === 0) return;
    for (const key of keys) {
      this.#young.delete(key);
      this.#old.delete(key);
    }
  }
}

/** A value that shares nothing that can be changed. */
export function copyOfValue(value: Value): Value {
  return typeof value === 'string' ? value : copyOfRecord(value);
}

function copyOfRecord(record: Readonly<Record<string, FieldValue>>): Record<string, FieldValue> {
  const copy: Record<string, FieldValue> = { ...record };
  for (const field of Object.keys(copy)) {
    const part = copy[field];
    if (typeof part !== 'object') continue;
    // Not by assignment, which would make a field named __proto__ the object's prototype.
    if (field === '__proto__') Object.defineProperty(copy, field, { value: copyOfPart(part) });
    else copy[field] = copyOfPart(part);
  }
  return copy;
}

const copyOfPart = (part: FieldValue & object): FieldValue =>
  part instanceof Uint8Array ? new Uint8Array(part) : copyOfRecord(part);
