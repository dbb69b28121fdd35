/**
 * The record codec: a value as compact bytes, and back. Engines store these bytes; only this file looks inside.
 * Pure but for one scratch buffer; called on the thread that owns the engine.
 *
 * A value is one byte of kind and its payload. A record is a count of fields, each a name (one byte for a word of
 * the dictionary) and a value; a map whose values are all texts drops the kind of each. Nothing is padded, and an
 * instant equal to the one before it in the record takes one byte. The bytes carry their format version in the
 * first byte's high bits, so that a later form can stand beside this one.
 */
import { EbbtideError, invalidArgument, unknownError } from '../../errors.js';
import type { FieldValue, Key, StoredNode, Value } from '../contract.js';
import { type ByteStore, DamagedBytes } from './bytes.js';
import { TextReader, TextWriter } from './codec-text.js';
import { fieldWords } from './dictionary.js';
import { leaf } from './keys.js';
import { packBytes, unpackBytes } from './packed-bytes.js';

/** What a value is, by the byte before it. */
export const Kind = {
  text: 1,
  record: 2,
  /** A record whose fields are all texts. */
  textMap: 3,
  /** Whole number, 0 … 2^53 - 1. */
  natural: 4,
  /** Whole number below 0, as its distance from -1. */
  negative: 5,
  double: 6,
  instant: 7,
  sameInstant: 8,
  /** Sign, length and magnitude of an instant outside 64 bits. */
  wideInstant: 9,
  true: 10,
  false: 11,
  bytes: 12,
  /** Whole length, packed length, bytes as packed-bytes.ts leaves them. */
  packedBytes: 13,
} as const;

const DEPTH_MAX = 32;
const INSTANT_BYTES = 8;
const I64_MIN = -(2n ** 63n);
const I64_MAX = 2n ** 63n - 1n;
const fieldCodes = new Map<string, number>(fieldWords.map((word, index) => [word, index + 1]));

const writer = new TextWriter();
const reader = new TextReader();
/** Of the record; or, of one that was passed over, where it is. */
let lastInstant: bigint | number | undefined;

/** InvalidArgument when the value holds something that is not a FieldValue. Undefined fields are left out. */
export function encodeValue(key: Key, value: Value): Uint8Array {
  write(key, value);
  return writer.take();
}

/** As `encodeValue`, into a store: for many values that stay. Returns their place there. */
export function encodeInto(store: ByteStore, key: Key, value: Value): number {
  write(key, value);
  return store.add(writer);
}

function write(key: Key, value: Value): void {
  writer.begin(leaf(key));
  lastInstant = undefined;
  try {
    writeValue(value, 0);
  } catch (error) {
    if (error instanceof EbbtideError) {
      throw invalidArgument(`cannot store ${printable(key)}: ${error.message}`, {
        object: key,
        cause: error,
      });
    }
    throw error;
  }
}

/** A fresh value; Unknown, naming the key, when the bytes are damaged. */
export function decodeValue(key: Key, bytes: Uint8Array): Value {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return decodeSlice(key, buffer, 0, buffer.length);
}

/** As `decodeValue`, for a part of a buffer. */
export function decodeSlice(key: Key, buffer: Buffer, start: number, end: number): Value {
  reader.begin(buffer, start, end, key);
  lastInstant = undefined;
  try {
    const value = readValue(0);
    if (!reader.atEnd) throw new DamagedBytes('bytes are left over');
    if (typeof value !== 'string' && !isRecord(value)) throw new DamagedBytes('it is not a record');
    return value;
  } catch (error) {
    throw damagedRecord(error, key);
  }
}

/**
 * Of a record those fields that are wanted, by their names; for callers that read very many records, and need little of each: the
 * others are passed over. A stored text has no fields.
 */
export function decodeFields(node: StoredNode, wanted: ReadonlySet<string>): Fields {
  const { bytes, start, end } = node;
  reader.begin(bytes, start, end, node);
  lastInstant = undefined;
  try {
    const kind = reader.byte();
    const isFields = kind === Kind.record || kind === Kind.textMap;
    const fields = isFields ? readFields(kind === Kind.textMap, 0, wanted) : {};
    if (isFields && !reader.atEnd) throw new DamagedBytes('bytes are left over');
    return fields;
  } catch (error) {
    throw damagedRecord(error, node.key);
  }
}

function damagedRecord(error: unknown, key: Key): unknown {
  if (!(error instanceof DamagedBytes)) return error;
  return unknownError(`the record of ${printable(key)} is damaged: ${error.message}`, {
    object: key,
    remedy: 'run a check and restore the store from a copy',
    cause: error,
  });
}

/** A key as people read it. */
export const printable = (key: Key): string => `"${key.replaceAll('\0', '/')}"`;

type Fields = Readonly<Record<string, FieldValue>>;

const isRecord = (value: unknown): value is Readonly<Record<string, FieldValue>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);

function writeValue(value: FieldValue, depth: number): void {
  switch (typeof value) {
    case 'string':
      writer.byte(Kind.text);
      writer.text(value);
      return;
    case 'number':
      writeNumber(value);
      return;
    case 'bigint':
      writeInstant(value);
      return;
    case 'boolean':
      writer.byte(value ? Kind.true : Kind.false);
      return;
    default:
      if (value instanceof Uint8Array) {
        writeBytes(value);
      } else if (isRecord(value)) {
        writeRecord(value, depth);
      } else {
        const what = value === null ? 'null' : Array.isArray(value) ? 'a list' : `a ${typeof value}`;
        throw invalidArgument(`${what} is not a valid field value`);
      }
  }
}

function writeRecord(record: Readonly<Record<string, FieldValue>>, depth: number): void {
  if (depth === DEPTH_MAX) throw invalidArgument(`records are nested more than ${DEPTH_MAX} deep`);
  const names = Object.keys(record);
  let count = 0;
  let texts = true;
  for (const name of names) {
    const value = record[name];
    if (value === undefined) continue;
    count++;
    if (typeof value !== 'string') texts = false;
  }
  writer.byte(texts ? Kind.textMap : Kind.record);
  writer.varint(count);
  for (const name of names) {
    const value = record[name];
    if (value === undefined) continue;
    if (texts) {
      writer.text(name);
      writer.text(value as string); // `texts` says that every value is one
      continue;
    }
    const code = fieldCodes.get(name) ?? 0;
    writer.byte(code);
    if (code === 0) writer.text(name);
    writeValue(value, depth + 1);
  }
}

function writeBytes(value: Uint8Array): void {
  const packed = packBytes(value);
  writer.byte(packed === undefined ? Kind.bytes : Kind.packedBytes);
  writer.varint(value.length);
  if (packed !== undefined) writer.varint(packed.length);
  writer.bytes(packed ?? value);
}

function writeNumber(value: number): void {
  if (Number.isSafeInteger(value) && !Object.is(value, -0)) {
    writer.byte(value < 0 ? Kind.negative : Kind.natural);
    writer.varint(value < 0 ? -1 - value : value);
  } else {
    writer.byte(Kind.double);
    writer.double(value);
  }
}

function writeInstant(value: bigint): void {
  if (value === lastInstant) {
    writer.byte(Kind.sameInstant);
    return;
  }
  lastInstant = value;
  if (value >= I64_MIN && value <= I64_MAX) {
    writer.byte(Kind.instant);
    writer.i64(value);
    return;
  }
  const digits = (value < 0n ? -value : value).toString(16);
  const magnitude = Buffer.from(digits.length % 2 === 0 ? digits : `0${digits}`, 'hex');
  writer.byte(Kind.wideInstant);
  writer.byte(value < 0n ? 1 : 0);
  writer.varint(magnitude.length);
  writer.bytes(magnitude);
}

function readValue(depth: number): FieldValue {
  const kind = reader.byte();
  switch (kind) {
    case Kind.text:
      return reader.text();
    case Kind.record:
    case Kind.textMap:
      return readRecord(kind === Kind.textMap, depth);
    case Kind.natural:
      return reader.varint();
    case Kind.negative:
      return -1 - reader.varint();
    case Kind.double:
      return reader.double();
    case Kind.instant:
      lastInstant = reader.i64();
      return lastInstant;
    case Kind.sameInstant:
      if (lastInstant === undefined) throw new DamagedBytes('an instant refers to none');
      if (typeof lastInstant === 'number') lastInstant = instantAt(lastInstant);
      return lastInstant;
    case Kind.wideInstant:
      return readWideInstant();
    case Kind.true:
      return true;
    case Kind.false:
      return false;
    case Kind.bytes:
      return reader.bytes(reader.varint());
    case Kind.packedBytes:
      return readPackedBytes();
    default:
      throw new DamagedBytes(`value kind ${kind} is unknown`);
  }
}

const readRecord = (texts: boolean, depth: number): FieldValue => readFields(texts, depth);

/** `wanted`: only those. */
function readFields(texts: boolean, depth: number, wanted?: ReadonlySet<string>): Record<string, FieldValue> {
  if (depth === DEPTH_MAX) throw new DamagedBytes('it is nested too deep');
  const count = reader.varint();
  const record: Record<string, FieldValue> = {};
  for (let i = 0; i < count; i++) {
    const name = texts ? reader.text() : readFieldName();
    if (wanted !== undefined && !wanted.has(name)) {
      if (texts) reader.skipText();
      else skipValue(depth + 1);
      continue;
    }
    const value = texts ? reader.text() : readValue(depth + 1);
    if (name === '__proto__') {
      Object.defineProperty(record, name, { value, enumerable: true, writable: true, configurable: true });
    } else {
      record[name] = value;
    }
  }
  return record;
}

function readFieldName(): string {
  const code = reader.byte();
  const word = code === 0 ? reader.text() : fieldWords[code - 1];
  if (word === undefined) throw new DamagedBytes(`field ${code} is unknown`);
  return word;
}

function skipValue(depth: number): void {
  const kind = reader.byte();
  switch (kind) {
    case Kind.text:
      reader.skipText();
      return;
    case Kind.record:
    case Kind.textMap:
      skipRecord(kind === Kind.textMap, depth);
      return;
    case Kind.instant:
      lastInstant = reader.position;
      reader.skip(INSTANT_BYTES);
      return;
    case Kind.bytes:
      reader.skip(reader.varint());
      return;
    case Kind.packedBytes:
      reader.varint();
      reader.skip(reader.varint());
      return;
    default:
      // Short.
      reader.position--;
      readValue(depth);
  }
}

function skipRecord(texts: boolean, depth: number): void {
  if (depth === DEPTH_MAX) throw new DamagedBytes('it is nested too deep');
  for (let left = reader.varint(); left > 0; left--) {
    if (texts) {
      reader.skipText();
      reader.skipText();
    } else {
      readFieldName();
      skipValue(depth + 1);
    }
  }
}

function instantAt(place: number): bigint {
  const { position } = reader;
  reader.position = place;
  const instant = reader.i64();
  reader.position = position;
  return instant;
}

function readPackedBytes(): Uint8Array {
  const size = reader.varint();
  const bytes = unpackBytes(reader.bytes(reader.varint()), size);
  if (bytes === undefined) throw new DamagedBytes('packed bytes do not unpack');
  return bytes;
}

function readWideInstant(): bigint {
  const negative = reader.byte() === 1;
  const magnitude = reader.bytes(reader.varint());
  if (magnitude.length === 0) throw new DamagedBytes('an instant is empty');
  const value = BigInt(`0x${Buffer.from(magnitude).toString('hex')}`);
  lastInstant = negative ? -value : value;
  return lastInstant;
}
