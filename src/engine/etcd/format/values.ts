/**
 * Records as JSON with the field names of containerd's tree, readable with `etcdctl`. Called by commit.ts and
 * mirror.ts; pure. What JSON cannot say is said by an object with one `$…` field, so that every value comes back
 * exactly: times that stand elsewhere than in the usual fields, bytes, numbers that are not JSON.
 *
 * Texts (flags, raw keys) are stored as they are; the schema revision is a decimal.
 */
import { unknownError } from '../../../errors.js';
import { formatTimestamp, parseTimestamp } from '../../../model/time.js';
import type { FieldValue, Key, Value } from '../../contract.js';
import { collectionOf, metaKey } from '../../schema/keys.js';

const VERSION = metaKey('version');
/** Fields that hold a time: written as RFC 3339 without further words. */
const timeFields = new Set(['createdat', 'updatedat', 'expireat']);
const TEXT_MARK = '$';

type Json = string | number | boolean | { [field: string]: Json };

export function valueToText(key: Key, value: Value): string {
  if (typeof value === 'string') return isPlainText(key) ? value : JSON.stringify({ $text: value });
  if (key === VERSION && Object.keys(value).length === 1 && typeof value.version === 'number') {
    return String(value.version);
  }
  if (isPlainText(key)) return typeof value.value === 'string' ? value.value : '';
  return JSON.stringify(record(value));
}

/** Unknown, naming the key, when the text is none that `valueToText` makes. `numbers` are a raw key's. */
export function textToValue(
  key: Key,
  text: string,
  numbers: { create: number; mod: number; version: number },
): Value {
  if (collectionOf(key) === 'raw') return { value: text, ...numbers };
  if (isPlainText(key)) return text;
  try {
    if (key === VERSION && /^\d+$/.test(text)) return { version: Number(text) };
    const json = JSON.parse(text) as Json;
    if (typeof json !== 'object' || json === null) throw new SyntaxError('it is not a record');
    if (isMarked(json, '$text')) return String(json.$text);
    return parseRecord(json);
  } catch (error) {
    throw unknownError(
      `the record "${key.replaceAll('\0', '/')}" in etcd is damaged: ${(error as Error).message}`,
      {
        object: key,
        remedy: 'repair or delete the key with etcdctl',
        cause: error,
      },
    );
  }
}

/** Raw keys, and the flags of backends. */
function isPlainText(key: Key): boolean {
  return collectionOf(key) === 'raw' || key.startsWith(DIRTY);
}
const DIRTY = metaKey('dirty');

function record(value: Readonly<Record<string, FieldValue>>): Json {
  const made: { [field: string]: Json } = {};
  for (const [name, field] of Object.entries(value)) {
    if (field === undefined) continue;
    set(made, name, toJson(name, field));
  }
  return needsMark(made) ? { $record: made } : made;
}

function toJson(name: string, field: FieldValue): Json {
  switch (typeof field) {
    case 'string':
      return timeFields.has(name) ? { $text: field } : field;
    case 'boolean':
      return field;
    case 'number':
      return Number.isFinite(field) && !Object.is(field, -0)
        ? field
        : { $number: Object.is(field, -0) ? '-0' : String(field) };
    case 'bigint':
      return instant(name, field);
    default:
      if (field instanceof Uint8Array) return { $bytes: Buffer.from(field).toString('base64') };
      return record(field);
  }
}

function instant(name: string, at: bigint): Json {
  const text = formatTimestamp(at);
  // Years outside 0000 … 9999 have no such form.
  if (parseTimestamp(text) !== at) return { $nanos: String(at) };
  return timeFields.has(name) ? text : { $time: text };
}

function fromJson(name: string, json: Json): FieldValue {
  if (typeof json === 'string') return timeFields.has(name) ? parsedTime(json) : json;
  if (typeof json !== 'object') return json;
  if (json === null || Array.isArray(json)) throw new SyntaxError(`${name} is not a valid field value`);
  if (isMarked(json, '$text')) return String(json.$text);
  if (isMarked(json, '$time')) return parsedTime(String(json.$time));
  if (isMarked(json, '$nanos')) return BigInt(String(json.$nanos));
  if (isMarked(json, '$bytes')) return new Uint8Array(Buffer.from(String(json.$bytes), 'base64'));
  if (isMarked(json, '$number')) return Number(json.$number);
  return parseRecord(json);
}

function parseRecord(json: { [field: string]: Json }): { readonly [field: string]: FieldValue } {
  const fields = isMarked(json, '$record') && typeof json.$record === 'object' ? json.$record : json;
  const made: Record<string, FieldValue> = {};
  // The object was just parsed: it has no names but its own.
  for (const name in fields) {
    const field = fields[name];
    if (field !== undefined) set(made, name, fromJson(name, field));
  }
  return made;
}

/** The text that was parsed last, with its instant: most records were never updated, so their times come in pairs. */
let lastTime: { text: string; at: bigint } | undefined;

function parsedTime(text: string): bigint {
  if (lastTime?.text === text) return lastTime.at;
  const at = parseTimestamp(text);
  if (at === undefined) throw new SyntaxError(`"${text.slice(0, 64)}" is not a valid time`);
  lastTime = { text, at };
  return at;
}

/** An object that would be taken for one of our own marks. */
function needsMark(json: { [field: string]: Json }): boolean {
  const [name, other] = Object.keys(json);
  return other === undefined && name?.startsWith(TEXT_MARK) === true;
}

const isMarked = (json: { [field: string]: Json }, mark: string): boolean =>
  Object.hasOwn(json, mark) && Object.keys(json).length === 1;

function set<T>(object: Record<string, T>, name: string, value: T): void {
  if (name === '__proto__') {
    Object.defineProperty(object, name, { value, enumerable: true, writable: true, configurable: true });
  } else {
    object[name] = value;
  }
}
