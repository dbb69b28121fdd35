/**
 * CRC-32 of any range of a buffer without reading it again: from the checksums of its beginnings, since appending bytes is
 * a multiplication by a power of x (as zlib's crc32_combine does). Called by recovery.ts, where clients' bytes decide how
 * many ranges there are and how long.
 */
import { crc32 } from 'node:zlib';

const POLYNOMIAL = 0xedb88320;
/** Checksums of beginnings are kept for each of these. */
const BLOCK_BYTES = 256;

/** Product of two polynomials modulo the polynomial; the highest bit is the coefficient of 1. */
function product(a: number, b: number): number {
  let sum = 0;
  for (let bit = 0x80000000, factor = b; bit !== 0; bit >>>= 1) {
    if (a & bit) sum ^= factor;
    factor = factor & 1 ? (factor >>> 1) ^ POLYNOMIAL : factor >>> 1;
  }
  return sum >>> 0;
}

/** x to the power of 8 · 2^n: n doublings of one byte. */
const powers = [1 << 23];
for (let power = 1 << 23; powers.length < 32; powers.push(power)) power = product(power, power);

/** A checksum as `bytes` zeros after it would make it, but for their own. */
function shifted(crc: number, bytes: number): number {
  let result = crc;
  let left = bytes;
  for (const power of powers) {
    if (left === 0) break;
    if (left & 1) result = product(power, result);
    left >>>= 1;
  }
  return result;
}

export class CrcRanges {
  readonly #bytes: Buffer;
  /** Of the bytes before each block. */
  readonly #before: Uint32Array;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#before = new Uint32Array(Math.floor(bytes.length / BLOCK_BYTES) + 1);
    for (let block = 1; block < this.#before.length; block++) {
      const at = (block - 1) * BLOCK_BYTES;
      this.#before[block] = crc32(bytes.subarray(at, at + BLOCK_BYTES), this.#before[block - 1]);
    }
  }

  /** As `crc32(bytes.subarray(start, end), seed)`. */
  of(start: number, end: number, seed: number): number {
    return (this.#upTo(end) ^ shifted((this.#upTo(start) ^ seed) >>> 0, end - start)) >>> 0;
  }

  #upTo(end: number): number {
    const block = Math.floor(end / BLOCK_BYTES);
    return crc32(this.#bytes.subarray(block * BLOCK_BYTES, end), this.#before[block]);
  }
}
