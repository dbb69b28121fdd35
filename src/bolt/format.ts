/**
 * The format of a bbolt file: two meta pages, of which the newest valid one names the root of a B+ tree of pages. Pure;
 * called by the other files of this room. Numbers are little-endian, as bbolt writes them on every machine that Node runs on but
 * s390x.
 *
 *   page     16 bytes: id u64, flags u16, count u16, overflow u32 (pages that follow and belong to it); then elements
 *   branch   16 bytes an element: position u32, key length u32, page u64
 *   leaf     16 bytes an element: flags u32, position u32, key length u32, value length u32
 *   bucket   the value of a leaf element with flag 1: root page u64, sequence u64; root 0: a leaf page follows in the value
 *   meta     magic u32, version u32, page size u32, flags u32, root bucket, freelist u64, high water u64, transaction u64, FNV-1a u64
 *
 * Positions count from the element that has them.
 */
import { EbbtideError } from '../errors.js';

export const PAGE_HEADER_BYTES = 16;
export const ELEMENT_BYTES = 16;
export const BUCKET_BYTES = 16;
export const META_BYTES = 64;

export const PageFlag = { branch: 1, leaf: 2, meta: 4, freelist: 16 } as const;
export const BUCKET_FLAG = 1;

const MAGIC = 0xed0cdaed;
const VERSION = 2;
const TRANSACTION_AT = 48;
const CHECKSUM_AT = 56;
/** Every size that bbolt has been given: the host's pages, or an option. */
export const PAGE_SIZES: readonly number[] = Array.from({ length: 8 }, (_, n) => 512 << n);

/** The tree cannot be followed any further. `page`: where, if that is known. */
export class BoltDamage extends EbbtideError {
  readonly page: number | undefined;

  constructor(path: string, what: string, page?: number) {
    const where = page === undefined ? '' : ` at page ${page}`;
    super('FailedPrecondition', `${path} is damaged${where}: ${what}`, {
      object: path,
      remedy:
        'keep a copy of the file; restore it from a backup, or have `ebbtide salvage` bring back what can be read',
    });
    this.page = page;
  }
}

export interface Meta {
  readonly pageSize: number;
  readonly root: number;
  /** One after the last page that is in use. */
  readonly highWater: number;
  readonly transaction: bigint;
}

/** The meta at `at`, undefined when its bytes are not one: torn, overwritten, or of another format. */
export function parseMeta(bytes: Buffer, at: number): Meta | undefined {
  if (at + META_BYTES > bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.readUInt32LE(at) !== MAGIC || bytes.readUInt32LE(at + 4) !== VERSION) return undefined;
  if (bytes.readBigUInt64LE(at + CHECKSUM_AT) !== fnv1a(bytes, at, at + CHECKSUM_AT)) return undefined;
  const pageSize = bytes.readUInt32LE(at + 8);
  const root = readPageId(view, at + 16);
  const highWater = readPageId(view, at + 40);
  if (!PAGE_SIZES.includes(pageSize) || !Number.isSafeInteger(highWater * pageSize)) return undefined;
  return { pageSize, root, highWater, transaction: bytes.readBigUInt64LE(at + TRANSACTION_AT) };
}

/**
 * The transaction that a meta which is not valid gives: one over which another was being written, or that was damaged elsewhere. Undefined
 * when nothing shows that it is one, and when it is that of `later`, but for that number.
 */
export function invalidTransaction(bytes: Buffer, at: number, later: bigint): bigint | undefined {
  if (
    at + META_BYTES > bytes.length ||
    bytes.readUInt32LE(at) !== MAGIC ||
    bytes.readUInt32LE(at + 4) !== VERSION
  )
    return undefined;
  const changed = Buffer.from(bytes.subarray(at, at + META_BYTES));
  changed.writeBigUInt64LE(later, TRANSACTION_AT);
  return parseMeta(changed, 0) === undefined ? bytes.readBigUInt64LE(at + TRANSACTION_AT) : undefined;
}

/** `parseMeta` of what this returns is `meta`. `freelist`: the page that has it. */
export function encodeMeta({ pageSize, root, highWater, transaction }: Meta, freelist: number): Buffer {
  const bytes = Buffer.alloc(META_BYTES);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(VERSION, 4);
  bytes.writeUInt32LE(pageSize, 8);
  bytes.writeBigUInt64LE(BigInt(root), 16);
  bytes.writeBigUInt64LE(BigInt(freelist), 32);
  bytes.writeBigUInt64LE(BigInt(highWater), 40);
  bytes.writeBigUInt64LE(transaction, TRANSACTION_AT);
  bytes.writeBigUInt64LE(fnv1a(bytes, 0, CHECKSUM_AT), CHECKSUM_AT);
  return bytes;
}

/** Page ids that no file can have become infinite, which no range contains. */
export function readPageId(bytes: DataView, at: number): number {
  const high = bytes.getUint32(at + 4, true);
  return high < 0x100000 ? high * 0x100000000 + bytes.getUint32(at, true) : Number.POSITIVE_INFINITY;
}

const FNV_OFFSET = 0xcbf29ce484222325n;
const FNV_PRIME = 0x100000001b3n;

function fnv1a(bytes: Buffer, start: number, end: number): bigint {
  let hash = FNV_OFFSET;
  for (const byte of bytes.subarray(start, end)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * FNV_PRIME);
  return hash;
}
