/**
 * Values that were read from the tree lately: a record that is asked for again and again costs a look into a map and a
 * copy, instead of two looks into LMDB and its decoding. Called by the storage, which takes out every key that a commit
 * changes before a read can see it, and never puts in one that a commit on its way to the tree has changed.
 *
 * Two generations: when the younger one is full, the older one is forgotten and the younger takes its place. What is
 * asked for in the older one comes over. At most some megabytes. What is read for the first time is not kept: a caller that goes
 * through a million records would pay for keeping each, and drive out what others ask for.
 */
import type { FieldValue, Key, Value } from '../contract.js';

const GENERATION_KEYS = 2048;
const HASH_BITS = 17;
/** Of the nodes that were asked for: one bit in eight. */
const ASKED_MAX = 1 << (HASH_BITS - 3);
const HASHED_UNITS = 40;
const HASHED_STEP = 5;
/** Larger ones, in their stored form, are not kept. */
export const CACHED_BYTES_MAX = 1024;

/** What was read lately, by a hash: a bit each, of which few are set, so that mostly nothing else is asked. */
class Noted {
  readonly #bits = new Uint8Array(1 << (HASH_BITS - 3));

  has(hash: number): boolean {
    return ((this.#bits[hash >> 3] ?? 0) & (1 << (hash & 7))) !== 0;
  }

  add(hash: number): void {
    this.#bits[hash >> 3] = (this.#bits[hash >> 3] ?? 0) | (1 << (hash & 7));
  }

  clear(): void {
    this.#bits.fill(0);
  }
}

/** Values kept in one generation. */
class Generation {
  readonly values = new Map<Key, Value>();
  /** Hashes of their keys. */
  readonly #keys = new Noted();

  get(key: Key, hash: number): Value | undefined {
    return this.#keys.has(hash) ? this.values.get(key) : undefined;
  }

  set(key: Key, hash: number, value: Value): void {
    this.#keys.add(hash);
    this.values.set(key, value);
  }

  clear(): void {
    this.values.clear();
    this.#keys.clear();
  }
}

export class RecordCache {
  #young = new Generation();
  #old = new Generation();
  /** Nodes that were asked for lately. */
  readonly #asked = new Noted();
  #askedCount = 0;

  /** The caller's own copy. */
  get(key: Key): Value | undefined {
    const hash = hashOf(key);
    const young = this.#young.get(key, hash);
    if (young !== undefined) return copyOfValue(young);
    const old = this.#old.get(key, hash);
    return old === undefined ? undefined : this.keep(key, old);
  }

  /** Records that a node was read; returns whether it was read lately, too (now and then true of one that was not). */
  wasAsked(id: number): boolean {
    const hash = Math.imul(id, 0x9e3779b1) >>> (32 - HASH_BITS);
    if (this.#asked.has(hash)) return true;
    if (++this.#askedCount > ASKED_MAX) {
      this.#asked.clear();
      this.#askedCount = 1;
    }
    this.#asked.add(hash);
    return false;
  }

  /** Keeps a value, which the caller must not change from now on; returns a copy. */
  keep(key: Key, value: Value): Value {
    if (this.#young.values.size >= GENERATION_KEYS) {
      const older = this.#old;
      this.#old = this.#young;
      this.#young = older;
      older.clear();
    }
    this.#young.set(key, hashOf(key), value);
    return copyOfValue(value);
  }

  delete(keys: Iterable<Key>): void {
    if (this.#young.values.size + this.#old.values.size === 0) return;
    for (const key of keys) {
      this.#young.values.delete(key);
      this.#old.values.delete(key);
    }
  }
}

/** Of some of a key's units: the end of a digest, and of what comes before it; enough to distinguish most keys. */
function hashOf(key: Key): number {
  const { length } = key;
  let hash = length;
  for (let at = length - 1; at >= 0 && at > length - HASHED_UNITS; at -= HASHED_STEP) {
    hash = Math.imul(hash, 31) + key.charCodeAt(at);
  }
  return Math.imul(hash, 0x9e3779b1) >>> (32 - HASH_BITS);
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
