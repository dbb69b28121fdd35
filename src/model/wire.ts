/**
 * Encodings of single values in containerd's own metadata file, for readers of such files and the migrations
 * of its tree (engine/schema/legacy.ts). Pure. Damaged bytes are errors of kind Unknown; decoded values never
 * alias them.
 */
import { invalidArgument, unknownError } from '../errors.js';
import type { Any } from './records.js';
import { type Instant, NANOS_PER_SECOND, zeroTime } from './time.js';

const MAX_UINT64 = (1n << 64n) - 1n;
const MAX_INT64 = (1n << 63n) - 1n;
const MIN_INT64 = -(1n << 63n);

// ------------------------------------------------------------------------------------------------------ varints

/** Base-128 groups, lowest first. InvalidArgument beyond 64 bits or for a negative number. */
export function encodeUvarint(value: number | bigint): Uint8Array {
  let rest = BigInt(value);
  if (rest < 0n || rest > MAX_UINT64) throw invalidArgument(`${value} is not an unsigned 64-bit number`);
  const bytes: number[] = [];
  while (rest > 0x7fn) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

/** Zig-zag, then base-128 groups. InvalidArgument beyond 64 bits. */
export function encodeVarint(value: number | bigint): Uint8Array {
  const n = BigInt(value);
  if (n < MIN_INT64 || n > MAX_INT64) throw invalidArgument(`${value} is not a signed 64-bit number`);
  return encodeUvarint(n >= 0n ? n << 1n : -(n << 1n) - 1n);
}

/** The unsigned number at the start of `bytes`; ignores what follows. */
export const decodeUvarint = (bytes: Uint8Array): bigint => readUvarint(bytes, 0).value;

/** The signed number at the start of `bytes`; ignores what follows. */
export function decodeVarint(bytes: Uint8Array): bigint {
  const { value } = readUvarint(bytes, 0);
  return value & 1n ? -(value >> 1n) - 1n : value >> 1n;
}

/** The unsigned number from `start`, as `decodeUvarint` has it; -1 for one that has more than 49 bits, or no end before `end`. */
export function shortUvarint(bytes: Uint8Array, start: number, end: number): number {
  let value = 0;
  let scale = 1;
  for (let at = start; at < end && at < start + 7; at++) {
    const byte = bytes[at] ?? 0;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return value;
    scale *= 128;
  }
  return -1;
}

/** The unsigned number at `offset`, and the offset after it. */
export function readUvarint(bytes: Uint8Array, offset: number): { value: bigint; next: number } {
  let value = 0n;
  for (let i = 0; i < 10; i++) {
    const byte = bytes[offset + i];
    if (byte === undefined) throw unknownError('truncated varint');
    value |= BigInt(byte & 0x7f) << BigInt(7 * i);
    if (byte < 0x80) {
      if (value > MAX_UINT64) break;
      return { value, next: offset + i + 1 };
    }
  }
  throw unknownError('varint of more than 64 bits');
}

// -------------------------------------------------------------------------------------------------------- times

const TIME_BYTES = 15;
/** Version 2 has the seconds of the zone offset in one more byte. */
const TIME_BYTES_V2 = 16;
const UTC_OFFSET = -1;

/** 15 bytes: version 1, seconds since year 1 (i64), nanoseconds (i32), zone offset UTC (i16), all big-endian. */
export function encodeTime(t: Instant): Uint8Array {
  const nanos = (((t - zeroTime) % NANOS_PER_SECOND) + NANOS_PER_SECOND) % NANOS_PER_SECOND;
  const seconds = (t - zeroTime - nanos) / NANOS_PER_SECOND;
  if (seconds < MIN_INT64 || seconds > MAX_INT64) throw invalidArgument('time out of range');
  const view = new DataView(new ArrayBuffer(TIME_BYTES));
  view.setUint8(0, 1);
  view.setBigInt64(1, seconds);
  view.setInt32(9, Number(nanos));
  view.setInt16(13, UTC_OFFSET);
  return new Uint8Array(view.buffer);
}

/** The instant of bytes of version 1 or 2; the zero time for undefined (a missing field). */
export function decodeTime(bytes: Uint8Array | undefined): Instant {
  if (bytes === undefined) return zeroTime;
  const version = bytes[0];
  if (version === undefined) throw unknownError('truncated time: no bytes');
  if (version !== 1 && version !== 2) throw unknownError(`time of unsupported version ${version}`);
  const expected = version === 1 ? TIME_BYTES : TIME_BYTES_V2;
  if (bytes.length !== expected) {
    throw unknownError(`time of version ${version} has ${bytes.length} bytes instead of ${expected}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const nanos = BigInt(view.getUint32(9));
  if (nanos >= NANOS_PER_SECOND) throw unknownError(`time has ${nanos} nanoseconds`);
  // Seconds and nanoseconds are already UTC; the zone only records the writer's setting.
  return zeroTime + view.getBigInt64(1) * NANOS_PER_SECOND + nanos;
}

// ---------------------------------------------------------------------------------------------------------- Any

const WireType = { varint: 0, fixed64: 1, bytes: 2, startGroup: 3, endGroup: 4, fixed32: 5 } as const;
const TYPE_URL_FIELD = 1;
const VALUE_FIELD = 2;
const MAX_FIELD = (1 << 29) - 1;
/** Limit on the nesting of groups in unknown fields. */
const MAX_GROUPS = 100;

/** The protobuf form. Empty fields are omitted, so an empty Any is zero bytes. */
export function encodeAny(any: Any): Uint8Array {
  const parts: Uint8Array[] = [];
  const append = (field: number, content: Uint8Array): void => {
    if (content.length === 0) return;
    parts.push(Uint8Array.of((field << 3) | WireType.bytes), encodeUvarint(content.length), content);
  };
  append(TYPE_URL_FIELD, Buffer.from(any.typeUrl));
  append(VALUE_FIELD, any.value);
  return new Uint8Array(Buffer.concat(parts));
}

/** Decodes the protobuf form: skips unknown fields; of a repeated field the last one counts. */
export function decodeAny(bytes: Uint8Array): Any {
  const { typeUrl, content } = anyIn(bytes);
  return { typeUrl, value: new Uint8Array(content) };
}

/** The type of the message, without copying its bytes. */
export const anyTypeOf = (bytes: Uint8Array): string => anyIn(bytes).typeUrl;

/** Of a message of which only the beginning is there. '' if that has not got it. */
export function anyTypeOfBeginning(bytes: Uint8Array): string {
  try {
    const { end, content } = readField(bytes, readTag(bytes, 0));
    return content === undefined ? '' : anyTypeOf(bytes.subarray(0, end));
  } catch {
    return '';
  }
}

function anyIn(bytes: Uint8Array): { typeUrl: string; content: Uint8Array } {
  let typeUrl = '';
  let value: Uint8Array = NO_BYTES;
  for (let at = 0; at < bytes.length; ) {
    const tag = readTag(bytes, at);
    const { end, content } = readField(bytes, tag);
    if (content !== undefined && tag.field === TYPE_URL_FIELD) typeUrl = decodeText(content);
    else if (content !== undefined && tag.field === VALUE_FIELD) value = content;
    at = end;
  }
  return { typeUrl, content: value };
}
const NO_BYTES = new Uint8Array(0);

interface Tag {
  field: number;
  type: number;
  next: number;
}

function readTag(bytes: Uint8Array, at: number): Tag {
  const { value, next } = readUvarint(bytes, at);
  const field = Number(value >> 3n);
  if (field === 0 || field > MAX_FIELD) throw unknownError('message with an impossible field number');
  return { field, type: Number(value & 7n), next };
}

/** The offset where the field ends and, if it is length-delimited, a view of its content. */
function readField(bytes: Uint8Array, { field, type, next }: Tag): { end: number; content?: Uint8Array } {
  if (type === WireType.varint) return { end: readUvarint(bytes, next).next };
  if (type === WireType.fixed64) return { end: endOf(bytes, next, 8) };
  if (type === WireType.fixed32) return { end: endOf(bytes, next, 4) };
  if (type === WireType.startGroup) return { end: skipGroup(bytes, field, next) };
  if (type !== WireType.bytes) throw unknownError(`message with an unexpected field of wire type ${type}`);
  const length = readUvarint(bytes, next);
  if (length.value > BigInt(bytes.length)) throw unknownError('truncated message');
  const end = endOf(bytes, length.next, Number(length.value));
  return { end, content: bytes.subarray(length.next, end) };
}

function endOf(bytes: Uint8Array, start: number, length: number): number {
  if (start + length > bytes.length) throw unknownError('truncated message');
  return start + length;
}

/** The offset after the end of a group (a deprecated form of nested message); uses a stack, not recursion. */
function skipGroup(bytes: Uint8Array, field: number, start: number): number {
  const open = [field];
  let at = start;
  while (open.length > 0) {
    const tag = readTag(bytes, at);
    at = tag.next;
    if (tag.type === WireType.startGroup) {
      if (open.length >= MAX_GROUPS) throw unknownError('message with groups nested too deeply');
      open.push(tag.field);
    } else if (tag.type !== WireType.endGroup) {
      at = readField(bytes, tag).end;
    } else if (open.pop() !== tag.field) {
      throw unknownError('message with groups that overlap');
    }
  }
  return at;
}

const strictText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decodeText(bytes: Uint8Array): string {
  try {
    return strictText.decode(bytes);
  } catch (cause) {
    throw unknownError('message with a type URL that is not UTF-8', { cause });
  }
}
