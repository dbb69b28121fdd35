/**
 * An ordered table of byte keys of any length over one LMDB database, whose own keys are limited. Called by the
 * storage. Reads are synchronous; writes only inside a batch of the writer.
 *
 * A key up to KEY_MAX bytes is stored as it is. Longer ones that share their first KEY_MAX bytes are a group: a row of
 * those bytes and 01 has its number, and each key is stored as 01, the number and the rest of the key, which may be too long again.
 * No key of the table begins with 01, so groups lie apart; a walk goes through one where its row stands.
 * The row 01 has the number given last.
 */
import type { Database } from '../../../system/lmdb/lmdb.js';
import { asBuffer, successor } from '../../core/bytes.js';

/** LMDB allows 1978 bytes with pages of 4 KiB; few, large keys make for a deep tree. */
const KEY_MAX = 1024;
/** First byte of what lies apart, and the last one of a group's row. */
const GROUP = 0x01;
const NUMBER_BYTES = 5;
const LAST_NUMBER = Buffer.from([GROUP]);
const FIRST_KEY = Buffer.from([GROUP + 1]);
const ROWS_AT_ONCE = 4096;
/** Layouts before 3 stored a long key as its beginning and its SHA-256, with the whole of it before the value. */
const HASHED_KEY_BYTES = KEY_MAX + 32;
const HASHED_LENGTH_BYTES = 4;

export type Row = [key: Buffer, value: Buffer];
type ByteDatabase = Database<Uint8Array, Uint8Array>;

export class Table {
  readonly #db: ByteDatabase;

  constructor(db: ByteDatabase) {
    this.#db = db;
  }

  /** Bytes of the value that the last `get` returned; its buffer may be longer. */
  lastSize = 0;

  /** The value's bytes, valid until the next read of any table. */
  get(key: Buffer): Buffer | undefined {
    let stored = key;
    while (stored.length > KEY_MAX) {
      const group = this.#groupOf(stored);
      if (group === undefined) return undefined;
      stored = memberOf(group, stored);
    }
    const value = this.#db.getBinaryFast(stored);
    this.lastSize = lastSizeOf(this.#db);
    return asBuffer(value);
  }

  /** In a batch of the writer. The buffers must stay as they are until the batch is done. */
  put(key: Buffer, value: Uint8Array): void {
    let stored = key;
    while (stored.length > KEY_MAX) {
      stored = memberOf(this.#groupOf(stored) ?? this.#newGroup(stored), stored);
    }
    this.#db.put(stored, value);
  }

  remove(key: Buffer): void {
    const groups: { row: Buffer; group: Buffer }[] = [];
    let stored = key;
    while (stored.length > KEY_MAX) {
      const group = this.#groupOf(stored);
      if (group === undefined) return;
      groups.push({ row: groupRow(stored), group });
      stored = memberOf(group, stored);
    }
    this.#db.remove(stored);
    for (const { row, group } of groups.reverse()) {
      if (this.#stored(group, successor(group), 1).length > 0) return;
      this.#db.remove(row);
    }
  }

  /** What the rows of a long key's group begin with. */
  #groupOf(key: Buffer): Buffer | undefined {
    const number = this.#db.getBinary(groupRow(key));
    return number === undefined ? undefined : groupPrefix(number);
  }

  #newGroup(key: Buffer): Buffer {
    const last = this.#db.getBinary(LAST_NUMBER);
    const number = Buffer.alloc(NUMBER_BYTES);
    number.writeUIntBE(
      (last === undefined ? 0 : asBuffer(last).readUIntBE(0, NUMBER_BYTES)) + 1,
      0,
      NUMBER_BYTES,
    );
    this.#db.put(LAST_NUMBER, number);
    this.#db.put(groupRow(key), number);
    return groupPrefix(number);
  }

  /** Up to `limit` rows from `lower` (left out when `exclusive`) to before `upper` (undefined: no end). */
  range(lower: Buffer, exclusive: boolean, upper: Buffer | undefined, limit: number): Row[] {
    const rows: Row[] = [];
    const from = lower.length === 0 || lower[0]! <= GROUP ? FIRST_KEY : lower;
    this.#collect(rows, limit, NOTHING, 0, { lower: from, exclusive: exclusive && from === lower, upper });
    return rows;
  }

  /** Adds rows whose keys are what was cut off before, and what is stored but for its first bytes. */
  #collect(rows: Row[], limit: number, before: Buffer, cut: number, bounds: Bounds): void {
    const { lower, exclusive, upper } = bounds;
    let start: Buffer = lower.length > KEY_MAX ? groupRow(lower) : lower;
    const end = upper !== undefined && upper.length > KEY_MAX ? successor(groupRow(upper)) : upper;
    while (rows.length < limit) {
      const count = Math.min(limit - rows.length + 1, ROWS_AT_ONCE);
      const stored = this.#stored(start, end, count);
      for (const [key, value] of stored) {
        if (rows.length >= limit) return;
        if (key.length > KEY_MAX) {
          const whole = Buffer.concat([before, key.subarray(cut, KEY_MAX)]);
          const group = groupPrefix(value);
          this.#collect(rows, limit, whole, group.length, within(group, key, bounds));
        } else if (!exclusive || !key.equals(lower)) {
          rows.push([before.length === 0 ? key : Buffer.concat([before, key.subarray(cut)]), value]);
        }
      }
      const last = stored[stored.length - 1];
      if (stored.length < count || last === undefined) return;
      start = Buffer.concat([last[0], ZERO]);
    }
  }

  /** Rows as LMDB has them. */
  #stored(start: Buffer, end: Buffer | undefined, limit: number): Row[] {
    const options = end === undefined ? { start, limit } : { start, end, limit };
    const rows: Row[] = [];
    for (const { key, value } of this.#db.getRange(options)) rows.push([asBuffer(key), asBuffer(value)]);
    return rows;
  }

  /** In a transaction: brings the long keys of a layout before 3 to where they are looked for. */
  moveHashedKeys(): void {
    const hashed: Uint8Array[] = [];
    for (const key of this.#db.getKeys()) if (key.length === HASHED_KEY_BYTES) hashed.push(key);
    for (const stored of hashed) {
      const bytes = Buffer.from(this.#db.getBinary(stored)!);
      const end = HASHED_LENGTH_BYTES + bytes.readUInt32LE(0);
      this.#db.remove(stored);
      this.put(bytes.subarray(HASHED_LENGTH_BYTES, end), bytes.subarray(end));
    }
  }
}

interface Bounds {
  readonly lower: Buffer;
  readonly exclusive: boolean;
  readonly upper: Buffer | undefined;
}

/** The same bounds inside a group. */
function within(group: Buffer, row: Buffer, { lower, exclusive, upper }: Bounds): Bounds {
  const isIn = (key: Buffer | undefined): key is Buffer =>
    key !== undefined && key.length > KEY_MAX && key.compare(row, 0, KEY_MAX, 0, KEY_MAX) === 0;
  return {
    lower: isIn(lower) ? memberOf(group, lower) : group,
    exclusive: exclusive && isIn(lower),
    upper: isIn(upper) ? memberOf(group, upper) : successor(group),
  };
}

/** Where the number of a long key's group is. */
const groupRow = (key: Buffer): Buffer => Buffer.concat([key.subarray(0, KEY_MAX), LAST_NUMBER]);

const groupPrefix = (number: Uint8Array): Buffer => Buffer.concat([LAST_NUMBER, number]);

/** A long key as its group has it. */
const memberOf = (group: Buffer, key: Buffer): Buffer => Buffer.concat([group, key.subarray(KEY_MAX)]);

/** Size of the value that `getBinaryFast` returned last, which may be in a longer buffer; missing in the typings. */
export const lastSizeOf = (db: unknown): number => (db as { lastSize: number }).lastSize;

const ZERO = Buffer.from([0]);
const NOTHING = Buffer.alloc(0);
