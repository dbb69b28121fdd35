/**
 * Encodes messages into one buffer, as their definitions say. The general library first builds a list of
 * operations, which for ten thousand images is more garbage than the images themselves. Called by schema.ts;
 * the library still decodes messages, and a test compares the two on every type.
 *
 * Supports what the definitions in api/ use: strings, bytes, booleans, doubles, 32- and 64-bit numbers,
 * enums, messages, lists of strings and messages, maps with string keys. A definition with anything else is
 * refused when it is loaded. Default values are not written.
 */
import protobuf from 'protobufjs';
import {
  begin,
  end,
  expectedAfter,
  putBytes,
  putDouble,
  putNumber,
  putText,
  tagOf,
  Wire,
  written,
} from './wire-writer.js';

/** Writes a value by wire-writer.ts; the definition determines its type. */
export type Writer = (value: unknown) => void;
interface FieldWriter {
  readonly name: string;
  readonly write: Writer;
}

/**
 * The encoder of a message type. The returned buffer belongs to the caller and has the requested number of
 * free bytes before the message. Throws MessageTooLarge for more than `bytesMax` bytes.
 */
export function encoderOf(
  type: protobuf.Type,
  freeBytes = 0,
): (message: unknown, bytesMax?: number) => Buffer {
  const write = messageWriter(type);
  let expected = 0;
  return (message, bytesMax) => {
    const bytes = written(freeBytes, () => write(message), expected, bytesMax);
    expected = expectedAfter(bytes.length);
    return bytes;
  };
}

/** Writes one item of a list, by the name of its field; the list is the concatenation of its items. */
export function itemWriterOf(type: protobuf.Type, name: string): Writer {
  const field = type.fields[name];
  if (field?.repeated !== true) throw new Error(`${type.fullName} has no list "${name}"`);
  return valueWriter(field.resolve(), field.id, true);
}

const writers = new WeakMap<protobuf.Type, Writer>();

export function messageWriter(type: protobuf.Type): Writer {
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
  // Registered before its fields are built, so that a type may contain itself.
  writers.set(type, write);
  const ordered = [...type.fieldsArray].sort((a, b) => a.id - b.id);
  for (const field of ordered) fields.push({ name: field.name, write: fieldWriter(field.resolve()) });
  return write;
}

function fieldWriter(field: protobuf.Field): Writer {
  // The typings do not say that such a field is a MapField.
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
  const keyTag = tagOf(1, Wire.bytes);
  const writeValue = valueWriter(field, 2, true);
  return (map) => {
    const entries = map as Record<string, unknown>;
    for (const key of Object.keys(entries)) {
      const start = begin(tag);
      putText(keyTag, key);
      writeValue(entries[key]);
      end(start);
    }
  };
}

/** `always`: also writes a default value, where its position matters (in lists and maps). */
function valueWriter(field: protobuf.FieldBase, id: number, always: boolean): Writer {
  if (field.resolvedType instanceof protobuf.Type) {
    const tag = tagOf(id, Wire.bytes);
    const write = messageWriter(field.resolvedType);
    return (message) => {
      const start = begin(tag);
      write(message);
      end(start);
    };
  }
  if (field.resolvedType instanceof protobuf.Enum) return numberWriter(id, always);
  switch (field.type) {
    case 'string':
      return textWriter(id, always);
    case 'bytes':
      return bytesWriter(id, always);
    case 'bool':
      return boolWriter(id, always);
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

function numberWriter(id: number, always: boolean): Writer {
  const tag = tagOf(id, Wire.varint);
  return (value) => {
    if (value !== 0 || always) putNumber(tag, value as number);
  };
}

function boolWriter(id: number, always: boolean): Writer {
  const tag = tagOf(id, Wire.varint);
  return (value) => {
    if (value || always) putNumber(tag, value ? 1 : 0);
  };
}

function doubleWriter(id: number, always: boolean): Writer {
  const tag = tagOf(id, Wire.fixed64);
  return (value) => {
    // Minus zero is not a default.
    if (!Object.is(value, 0) || always) putDouble(tag, value as number);
  };
}

function bytesWriter(id: number, always: boolean): Writer {
  const tag = tagOf(id, Wire.bytes);
  return (value) => {
    if (!(value instanceof Uint8Array)) throw new TypeError(`expected bytes, not ${typeof value}`);
    if (value.length !== 0 || always) putBytes(tag, value);
  };
}

function textWriter(id: number, always: boolean): Writer {
  const tag = tagOf(id, Wire.bytes);
  return (value) => {
    // A damaged record may have any value here.
    if (typeof value !== 'string') throw new TypeError(`expected a string, not ${typeof value}`);
    if (value.length !== 0 || always) putText(tag, value);
  };
}
