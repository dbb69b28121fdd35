/**
 * Writes messages straight into one buffer. The general library builds a list of operations first, which for a list of
 * ten thousand images is more garbage than the images. Called by schema.ts; the library still reads messages, and a test
 * compares the two on every type.
 *
 * Covers what the definitions in api/ use: strings, bytes, booleans, doubles, 32- and 64-bit numbers, enums, messages,
 * lists of strings and messages, maps from strings. A definition with anything else is refused when it is loaded.
 * Default values are not written. Not reentrant, and need not be: nothing here waits.
 */
import protobuf from 'protobufjs';

type Writer = (value: unknown) => void;
interface FieldWriter {
  readonly name: string;
  readonly write: Writer;
}

const FIRST_BYTES = 64 * 1024;
/** A buffer that one large message made larger than this is let go of. */
const KEPT_BYTES_MAX = 1024 * 1024;
const VARINT_BYTES_MAX = 10;
/** Strings up to this many characters are copied here; longer ones are worth a call into the runtime. */
const SHORT_STRING = 32;

const Wire = { varint: 0, fixed64: 1, bytes: 2 } as const;

let buffer = Buffer.allocUnsafe(FIRST_BYTES);
let at = 0;

/** Makes room for so many more bytes. */
function reserve(bytes: number): void {
  if (at + bytes <= buffer.length) return;
  const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, at + bytes));
  buffer.copy(larger, 0, 0, at);
  buffer = larger;
}

/** The encoder of a message type; the answer is the caller's to keep, with so many free bytes before the message. */
export function encoderOf(type: protobuf.Type, freeBytes = 0): (message: unknown) => Buffer {
  const write = messageWriter(type);
  return (message) => {
    at = freeBytes;
    write(message);
    const bytes = Buffer.from(buffer.subarray(0, at));
    if (buffer.length > KEPT_BYTES_MAX) buffer = Buffer.allocUnsafe(FIRST_BYTES);
    return bytes;
  };
}

const writers = new WeakMap<protobuf.Type, Writer>();

function messageWriter(type: protobuf.Type): Writer {
  const known = writers.get(type);
  if (known !== undefined) return known;
  const fields: FieldWriter[] = [];
  const write: Writer = (message) => {
    const values = message as Record<string, unknown>;
    for (const field of fields) {
      const value = values[field.name];
      if (value !== undefined && value !== null) field.write(value);
    }
  };
  // Known before its fields are, so that a type may contain itself.
  writers.set(type, write);
  const ordered = [...type.fieldsArray].sort((a, b) => a.id - b.id);
  for (const field of ordered) fields.push({ name: field.name, write: fieldWriter(field.resolve()) });
  return write;
}

function fieldWriter(field: protobuf.Field): Writer {
  // The types do not tell that a field with this mark is a MapField.
  if (field.map) return mapWriter(field as unknown as protobuf.MapField);
  if (!field.repeated) return valueWriter(field, field.id, false);
  const isText = field.type === 'string' || field.resolvedType instanceof protobuf.Type;
  if (!isText) throw new Error(`lists of ${field.type} are not supported (${field.fullName})`);
  const write = valueWriter(field, field.id, true);
  return (list) => {
    for (const item of list as Iterable<unknown>) write(item);
  };
}

function mapWriter(field: protobuf.MapField): Writer {
  if (field.keyType !== 'string') throw new Error(`maps of ${field.keyType} are not supported`);
  const tag = tagOf(field.id, Wire.bytes);
  const writeKey = stringWriter(1, true);
  const writeValue = valueWriter(field, 2, true);
  return (map) => {
    const entries = map as Record<string, unknown>;
    for (const key of Object.keys(entries)) {
      nested(tag, () => {
        writeKey(key);
        writeValue(entries[key]);
      });
    }
  };
}

/** `always`: also a default value, where its place has a meaning (in lists and maps). */
function valueWriter(field: protobuf.FieldBase, id: number, always: boolean): Writer {
  if (field.resolvedType instanceof protobuf.Type) {
    const tag = tagOf(id, Wire.bytes);
    const write = messageWriter(field.resolvedType);
    return (message) => nested(tag, () => write(message));
  }
  if (field.resolvedType instanceof protobuf.Enum) return numberWriter(id, always);
  switch (field.type) {
    case 'string':
      return stringWriter(id, always);
    case 'bytes':
      return bytesWriter(id, always);
    case 'bool':
      return (value) => {
        if (value || always) putTagged(tagOf(id, Wire.varint), value ? 1 : 0);
      };
    case 'int32':
    case 'int64':
    case 'uint32':
    case 'uint64':
      return numberWriter(id, always);
    case 'double':
      return doubleWriter(id, always);
    default:
      throw new Error(`fields of type ${field.type} are not supported (${field.fullName})`);
  }
}

const tagOf = (id: number, wire: number): number => id * 8 + wire;

function numberWriter(id: number, always: boolean): Writer {
  const tag = tagOf(id, Wire.varint);
  return (value) => {
    if (value !== 0 || always) putTagged(tag, value as number);
  };
}

function putTagged(tag: number, value: number): void {
  reserve(2 * VARINT_BYTES_MAX);
  putVarint(tag);
  putVarint(value);
}

function doubleWriter(id: number, always: boolean): Writer {
  const tag = tagOf(id, Wire.fixed64);
  return (value) => {
    // Minus zero is no default.
    if (Object.is(value, 0) && !always) return;
    reserve(VARINT_BYTES_MAX + 8);
    putVarint(tag);
    at = buffer.writeDoubleLE(value as number, at);
  };
}

function bytesWriter(id: number, always: boolean): Writer {
  const tag = tagOf(id, Wire.bytes);
  return (value) => {
    const bytes = value as Uint8Array;
    if (bytes.length === 0 && !always) return;
    reserve(2 * VARINT_BYTES_MAX + bytes.length);
    putVarint(tag);
    putVarint(bytes.length);
    buffer.set(bytes, at);
    at += bytes.length;
  };
}

function stringWriter(id: number, always: boolean): Writer {
  const tag = tagOf(id, Wire.bytes);
  return (value) => {
    const text = value as string;
    if (text.length === 0 && !always) return;
    // A character takes three bytes at most (two halves of a pair take four).
    reserve(2 * VARINT_BYTES_MAX + text.length * 3);
    putVarint(tag);
    if (text.length <= SHORT_STRING && putAscii(text)) return;
    const guess = varintSize(text.length);
    const written = buffer.write(text, at + guess, 'utf8');
    putLengthBefore(guess, written);
  };
}

/** False, and nothing written, when the text is not ASCII. */
function putAscii(text: string): boolean {
  const start = at + 1;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0x7f) return false;
    buffer[start + i] = code;
  }
  buffer[at] = text.length;
  at = start + text.length;
  return true;
}

/** A message with its length before it, which is known only when it is written. */
function nested(tag: number, write: () => void): void {
  reserve(2 * VARINT_BYTES_MAX);
  putVarint(tag);
  const start = at;
  at += 1;
  write();
  const length = at - start - 1;
  at = start;
  reserve(length + VARINT_BYTES_MAX + 1);
  putLengthBefore(1, length);
}

/** Puts a length before bytes that were written `guess` bytes further on, and moves them if it takes more than that. */
function putLengthBefore(guess: number, length: number): void {
  const size = varintSize(length);
  if (size !== guess) buffer.copyWithin(at + size, at + guess, at + guess + length);
  putVarint(length);
  at += length;
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest > 0x7f; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

function putVarint(value: number): void {
  if (value < 0) {
    putNegative(value);
    return;
  }
  let rest = value;
  while (rest > 0x7f) {
    buffer[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  buffer[at++] = rest;
}

/** As a 64-bit number in two's complement; times before 1970 are the only ones. */
function putNegative(value: number): void {
  let rest = BigInt.asUintN(64, BigInt(Math.trunc(value)));
  while (rest > 0x7fn) {
    buffer[at++] = Number(rest & 0x7fn) | 0x80;
    rest >>= 7n;
  }
  buffer[at++] = Number(rest);
}
