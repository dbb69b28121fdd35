/**
 * The 512-byte tar header and pax records, parsed strictly: a field that is not a number, a wrong checksum or
 * a record with a wrong length is InvalidArgument, never guessed. Pure functions, bytes in, values out.
 */
import { type EbbtideError, invalidArgument } from '../../../errors.js';
import { NANOS_PER_SECOND } from '../../../model/time.js';
import type { BytePath } from '../paths.js';

export const BLOCK = 512;

/** Values of the type byte. */
export const TypeFlag = {
  file: '0',
  oldFile: '\0',
  link: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
  contiguous: '7',
  pax: 'x',
  paxGlobal: 'g',
  gnuLongName: 'L',
  gnuLongLink: 'K',
  gnuSparse: 'S',
} as const;

export interface RawHeader {
  name: BytePath;
  mode: number;
  /** Below 2^32, see `ownerId`. */
  uid: number;
  gid: number;
  /** Bytes of content in the archive. */
  size: number;
  /** Nanoseconds since 1970. */
  mtime: bigint;
  typeflag: string;
  linkname: BytePath;
  major: number;
  minor: number;
  /** The raw header; valid until the next read of the archive. */
  block: Buffer;
}

export const malformed = (what: string): EbbtideError =>
  invalidArgument(`malformed tar archive: ${what}`, { remedy: 'the archive is damaged or not a tar file' });

/** The header in a block; undefined for a block of zeros. */
export function decodeHeader(block: Buffer): RawHeader | undefined {
  if (isZero(block)) return undefined;
  checkSum(block);
  const magic = block.toString('latin1', 257, 263);
  let name = text(block, 0, 100);
  if (magic === 'ustar\0') {
    const isStar = block.toString('latin1', 508, BLOCK) === 'tar\0';
    // star keeps two times at the end of the field.
    const prefix = text(block, 345, isStar ? 131 : 155);
    if (prefix !== '') name = `${prefix}/${name}`;
  }
  const header: RawHeader = {
    name,
    mode: Number(signedNumber(block, 100, 8, 'mode') & 0o7777n),
    uid: ownerId(signedNumber(block, 108, 8, 'uid'), 'uid'),
    gid: ownerId(signedNumber(block, 116, 8, 'gid'), 'gid'),
    size: number(block, 124, 12, 'size'),
    mtime: signedNumber(block, 136, 12, 'mtime') * NANOS_PER_SECOND,
    typeflag: block.toString('latin1', 156, 157),
    linkname: text(block, 157, 100),
    major: 0,
    minor: 0,
    block,
  };
  if (header.typeflag === TypeFlag.char || header.typeflag === TypeFlag.block) {
    header.major = number(block, 329, 8, 'device');
    header.minor = number(block, 337, 8, 'device');
  }
  return header;
}

export const isZero = (block: Buffer): boolean => {
  for (const byte of block) if (byte !== 0) return false;
  return true;
};

/** Bytes up to the first NUL. */
export function text(block: Buffer, offset: number, length: number): BytePath {
  const end = block.indexOf(0, offset);
  const stop = end < 0 || end > offset + length ? offset + length : end;
  return block.toString('latin1', offset, stop);
}

/** A number that must not be negative. */
export function number(block: Buffer, offset: number, length: number, field: string): number {
  const value = signedNumber(block, offset, length, field);
  if (value < 0n) throw malformed(`negative ${field}`);
  return safeInteger(value, field);
}

/**
 * Ids are unsigned 32-bit numbers. Archives of systems with signed ids have -2 for their user `nobody`, and
 * -1, which becomes 2^32 - 1 and means "no change" to chown(2). InvalidArgument for others: truncated to 32
 * bits, as some programs do, 2^32 would be root.
 */
function ownerId(value: bigint, field: string): number {
  if (value < -(2n ** 31n) || value >= 2n ** 32n)
    throw malformed(`the ${field} ${value} has more than 32 bits`);
  return Number(BigInt.asUintN(32, value));
}

/**
 * Octal text padded with blanks or NULs on either side, or base 256 when the first bit is set. Empty is 0.
 */
function signedNumber(block: Buffer, offset: number, length: number, field: string): bigint {
  if ((block.readUInt8(offset) & 0x80) !== 0) return base256(block.subarray(offset, offset + length));
  const digits = block
    .toString('latin1', offset, offset + length)
    .replace(/^[ \0]+/, '')
    .replace(/\0.*$/s, '')
    .trim();
  if (digits === '') return 0n;
  if (!/^-?[0-7]+$/.test(digits)) throw malformed(`${field} is not a number`);
  return digits.startsWith('-') ? -BigInt(`0o${digits.slice(1)}`) : BigInt(`0o${digits}`);
}

function base256(bytes: Buffer): bigint {
  const negative = (bytes.readUInt8(0) & 0x40) !== 0;
  let value = 0n;
  for (const [i, byte] of bytes.entries()) value = (value << 8n) | BigInt(i === 0 ? byte & 0x7f : byte);
  if (negative) value -= 1n << BigInt(bytes.length * 8 - 1);
  return value;
}

function safeInteger(value: bigint, field: string): number {
  const result = Number(value);
  if (!Number.isSafeInteger(result)) throw malformed(`${field} is too large`);
  return result;
}

/** Accepts both the unsigned sum of the standard and the signed one of old programs. */
function checkSum(block: Buffer): void {
  let unsigned = 0;
  let signed = 0;
  for (let i = 0; i < BLOCK; i++) {
    const byte = i >= 148 && i < 156 ? 32 : (block[i] ?? 0);
    unsigned += byte;
    signed += byte < 128 ? byte : byte - 256;
  }
  const stored = Number(signedNumber(block, 148, 8, 'checksum'));
  if (stored !== unsigned && stored !== signed) throw malformed('wrong header checksum');
}

// ---------------------------------------------------------------------------------------------- pax records

/**
 * Records of a pax header: keys as strings, values as bytes, because extended attributes are binary. The
 * pairs of sparse format 0.0, the only keys whose repetition has a meaning, are returned as the list that
 * format 0.1 has.
 */
export function decodePax(data: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  const sparse: Buffer[] = [];
  let at = 0;
  while (at < data.length && data[at] !== 0) {
    const blank = data.indexOf(0x20, at);
    const digits = blank < 0 ? '' : data.toString('latin1', at, blank);
    const end = at + Number(digits);
    if (!/^[0-9]{1,10}$/.test(digits) || end > data.length || data[end - 1] !== 0x0a) {
      throw malformed('pax record with a wrong length');
    }
    const equals = data.indexOf(0x3d, blank);
    if (equals < 0 || equals >= end || equals === blank + 1) throw malformed('pax record without a key');
    const key = data.toString('utf8', blank + 1, equals);
    const value = Buffer.from(data.subarray(equals + 1, end - 1));
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') sparse.push(value);
    else records.set(key, value);
    at = end;
  }
  if (sparse.length > 0) records.set('GNU.sparse.map', Buffer.from(sparse.join(','), 'latin1'));
  return records;
}

/** A whole, not negative decimal number of a pax record. */
export function paxNumber(value: Buffer, field: string): number {
  const digits = value.toString('latin1');
  if (!/^[0-9]{1,19}$/.test(digits)) throw malformed(`pax ${field} is not a number`);
  return safeInteger(BigInt(digits), `pax ${field}`);
}

/** An id of a pax record: as `ownerId`. */
export function paxOwner(value: Buffer, field: string): number {
  const digits = value.toString('latin1');
  if (!/^-?[0-9]{1,19}$/.test(digits)) throw malformed(`pax ${field} is not a number`);
  return ownerId(BigInt(digits), field);
}

/** No clock needs more. */
const MAX_TIME_DIGITS = 256;

/** Seconds with a fraction, possibly negative, to nanoseconds; digits beyond the ninth are cut. */
export function paxTime(value: Buffer): bigint {
  const match = /^([-+]?)([0-9]+)(?:\.([0-9]*))?$/.exec(value.toString('latin1', 0, MAX_TIME_DIGITS));
  if (match === null) throw malformed('pax time is not a number');
  const [, sign, seconds = '', fraction = ''] = match;
  const nanos = BigInt(seconds) * NANOS_PER_SECOND + BigInt(fraction.slice(0, 9).padEnd(9, '0'));
  return sign === '-' ? -nanos : nanos;
}
