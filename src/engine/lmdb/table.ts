/**
 * An ordered table of byte keys of any length over one LMDB database, whose own keys are limited. Called by the
 * storage. Reads are synchronous; writes only inside a batch of the writer.
 *
 * A key up to KEY_MAX bytes is stored as it is. A longer one is stored as its first KEY_MAX bytes and its SHA-256,
 * with the whole key in front of the value; keys that share those first bytes form a group, which is read as a whole
 * and sorted by the whole keys, so that the order of the table is always that of the whole keys.
 */
import { createHash } from 'node:crypto';
import type { Database } from '../../system/lmdb.js';
import { asBuffer } from '../core/bytes.js';

/** LMDB allows 1978 bytes with pages of 4 KiB; few, large keys make for a deep tree. */
const KEY_MAX = 1024;
const LENGTH_BYTES = 4;

export type Row = [key: Buffer, value: Buffer];
type ByteDatabase = Database<Uint8Array, Uint8Array>;

export class Table {
  readonly #db: ByteDatabase;

  constructor(db: ByteDatabase) {
    this.#db = db;
  }

  /** Bytes of the value the last `get` answered; its buffer may be longer. */
  lastSize = 0;

  /** The value's bytes, valid until the next read of any table. */
  get(key: Buffer): Buffer | undefined {
    if (key.length > KEY_MAX) return this.#getLong(key);
    const value = this.#db.getBinaryFast(key);
    this.lastSize = lastSizeOf(this.#db);
    return asBuffer(value);
  }

  #getLong(key: Buffer): Buffer | undefined {
    const stored = this.#db.getBinary(storedKey(key));
    if (stored === undefined) return undefined;
    const [whole, value] = splitLong(stored);
    this.lastSize = value.length;
    return whole.equals(key) ? value : undefined;
  }

  /** In a batch of the writer. The buffers must stay as they are until the batch is done. */
  put(key: Buffer, value: Uint8Array): void {
    if (key.length <= KEY_MAX) {
      this.#db.put(key, value);
      return;
    }
    const size = Buffer.allocUnsafe(LENGTH_BYTES);
    size.writeUInt32LE(key.length);
    this.#db.put(storedKey(key), Buffer.concat([size, key, value]));
  }

  remove(key: Buffer): void {
    this.#db.remove(key.length <= KEY_MAX ? key : storedKey(key));
  }

  /** Up to `limit` rows from `lower` (left out when `exclusive`) to before `upper` (undefined: no end). */
  range(lower: Buffer, exclusive: boolean, upper: Buffer | undefined, limit: number): Row[] {
    const rows: Row[] = [];
    const keep = (row: Row): void => {
      const order = Buffer.compare(row[0], lower);
      if (order < 0 || (exclusive && order === 0)) return;
      if (upper === undefined || Buffer.compare(row[0], upper) < 0) rows.push(row);
    };
    let start: Buffer | undefined = lower;
    // LMDB keeps to bounds that it can hold, so that only the first row has to be looked at.
    const isBounded = lower.length <= KEY_MAX && (upper === undefined || upper.length <= KEY_MAX);
    const isLower = (key: Buffer): boolean => exclusive && rows.length === 0 && key.equals(lower);
    const keepPlain = (row: Row): void => {
      if (!isBounded) keep(row);
      else if (!isLower(row[0])) rows.push(row);
    };
    if (lower.length > KEY_MAX) {
      const group = lower.subarray(0, KEY_MAX);
      for (const row of this.#group(group)) keep(row);
      start = successor(group);
    }
    const end = upper !== undefined && upper.length > KEY_MAX ? successor(upper.subarray(0, KEY_MAX)) : upper;
    while (start !== undefined && rows.length < limit) {
      start = this.#readInto(rows, keep, keepPlain, start, end, limit - rows.length);
    }
    return rows.length > limit ? rows.slice(0, limit) : rows;
  }

  /** Reads up to `count` stored rows; answers where to go on, undefined at the end. */
  #readInto(
    rows: Row[],
    keep: (row: Row) => void,
    keepPlain: (row: Row) => void,
    start: Buffer,
    end: Buffer | undefined,
    count: number,
  ): Buffer | undefined {
    const before = rows.length;
    const stored = this.#stored(start, end, count + 1);
    for (const [key, value] of stored) {
      if (rows.length - before >= count) return key;
      if (key.length > KEY_MAX) {
        const group = key.subarray(0, KEY_MAX);
        for (const row of this.#group(group)) keep(row);
        return successor(group);
      }
      keepPlain([key, value]);
    }
    const last = stored[stored.length - 1];
    // A full answer whose rows were not all kept may have more behind it.
    return stored.length === count + 1 && last !== undefined ? Buffer.concat([last[0], ZERO]) : undefined;
  }

  /** Rows as LMDB has them. */
  #stored(start: Buffer, end: Buffer | undefined, limit: number): Row[] {
    const options = end === undefined ? { start, limit } : { start, end, limit };
    const rows: Row[] = [];
    for (const { key, value } of this.#db.getRange(options)) rows.push([asBuffer(key), asBuffer(value)]);
    return rows;
  }

  /** Whole rows of a group, sorted. */
  #group(group: Buffer): Row[] {
    const rows: Row[] = [];
    for (const [key, value] of this.#stored(group, successor(group), Number.MAX_SAFE_INTEGER)) {
      if (key.length > KEY_MAX) rows.push(splitLong(value));
    }
    return rows.sort((a, b) => Buffer.compare(a[0], b[0]));
  }
}

/** Size of the value `getBinaryFast` answered last, which may be in a longer buffer; missing in the typings. */
export const lastSizeOf = (db: unknown): number => (db as { lastSize: number }).lastSize;

const ZERO = Buffer.from([0]);

function storedKey(key: Buffer): Buffer {
  const stored = Buffer.allocUnsafe(KEY_MAX + 32);
  key.copy(stored, 0, 0, KEY_MAX);
  createHash('sha256').update(key).digest().copy(stored, KEY_MAX);
  return stored;
}

function splitLong(stored: Uint8Array): Row {
  const bytes = asBuffer(stored);
  const end = LENGTH_BYTES + bytes.readUInt32LE(0);
  return [bytes.subarray(LENGTH_BYTES, end), bytes.subarray(end)];
}

/** The least bytes behind everything that begins with `prefix`; undefined when there are none. */
export function successor(prefix: Buffer): Buffer | undefined {
  let last = prefix.length - 1;
  while (last >= 0 && prefix[last] === 0xff) last--;
  if (last < 0) return undefined;
  const next = Buffer.from(prefix.subarray(0, last + 1));
  next[last] = next[last]! + 1;
  return next;
}
