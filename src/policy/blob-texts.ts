/**
 * The texts of many blobs in a plan, digest and identity, as parts of long texts: a plan may have a million of them, and a text made for
 * each takes most of the time of its rows. Called by rows.ts.
 */
import { NO_ITEM } from '../engine/graph.js';
import type { SlicingBuffer } from '../engine/schema/bytes.js';
import type { Items } from '../gc/report/items.js';

const DIGEST_BYTES = 32;
const DIGITS = 2 * DIGEST_BYTES;
const PREFIX = 'sha256:';
/** Most digits of an instant, with its sign. */
const INSTANT_LENGTH = 20;
const NANOS = 1_000_000_000;
/** What seconds are divided by, for numbers of 32 bits. */
const SECONDS_PART = 100_000;
const ZERO = 0x30;

/** Texts made at once: as many as make one that V8 does not move. */
export const TEXTS_AT_ONCE = 2048;

const digests = Buffer.alloc(TEXTS_AT_ONCE * DIGEST_BYTES) as SlicingBuffer; // every Buffer has its methods
const instants = Buffer.alloc(TEXTS_AT_ONCE * INSTANT_LENGTH);

export class BlobTexts {
  readonly #digests: string;
  readonly #instants: string;
  /** 0: nothing is known of it. */
  readonly #ends: Uint32Array;

  /** @param ids at most `TEXTS_AT_ONCE` */
  constructor(items: Items, ids: Uint32Array) {
    this.#ends = new Uint32Array(ids.length);
    for (let n = 0; n < ids.length; n++) {
      const id = ids[n] ?? 0;
      if (items.parentOf(id) === 0) continue;
      items.copyDigest(items.ofNode[id] ?? NO_ITEM, digests, n * DIGEST_BYTES);
      const [high, low] = [items.createdHigh[id] ?? 0, items.createdLow[id] ?? 0];
      this.#ends[n] = writeInstant(high, low, n * INSTANT_LENGTH);
    }
    this.#digests = digests.hexSlice(0, ids.length * DIGEST_BYTES);
    this.#instants = instants.toString('latin1', 0, ids.length * INSTANT_LENGTH);
  }

  /** Of the n-th id; undefined unless it is a blob whose place and time are known. */
  digestAt(n: number): string | undefined {
    if (this.#ends[n] === 0) return undefined;
    return PREFIX + this.#digests.slice(n * DIGITS, (n + 1) * DIGITS);
  }

  /** As identities of records are written (gc/report/dry-run.ts). */
  identityAt(n: number): string {
    return this.#instants.slice(n * INSTANT_LENGTH, this.#ends[n]);
  }
}

/** Nanoseconds in decimal, without a bigint; returns where they end. */
function writeInstant(high: number, low: number, at: number): number {
  if (high < 0) return at + instants.write(String((BigInt(high) << 32n) | BigInt(low)), at, 'latin1');
  // Divides by parts of 16 bits, which keeps all within what a number holds.
  const middle = (high % NANOS) * 0x10000 + (low >>> 16);
  const last = (middle % NANOS) * 0x10000 + (low & 0xffff);
  const seconds =
    (Math.floor(high / NANOS) * 0x10000 + Math.floor(middle / NANOS)) * 0x10000 + Math.floor(last / NANOS);
  let end = writeDigits(Math.floor(seconds / SECONDS_PART), at, 0);
  end = writeDigits(seconds % SECONDS_PART, end, end > at ? 5 : 0);
  return writeDigits(last % NANOS, end, end > at ? 9 : 1);
}

/** Of a number of 32 bits, `atLeast` digits; returns where they end. */
function writeDigits(number: number, at: number, atLeast: number): number {
  let digits = 0;
  for (let left = number | 0; left > 0; left = (left / 10) | 0) digits++;
  const end = at + Math.max(digits, atLeast);
  let left = number | 0;
  for (let place = end - 1; place >= at; place--) {
    instants[place] = ZERO + (left % 10);
    left = (left / 10) | 0;
  }
  return end;
}
