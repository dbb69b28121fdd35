/**
 * Decodes the fields that containerd keeps in a bucket: times, strings, numbers, labels, messages. Called by
 * records.ts and snapshotters.ts. An unreadable field is reported and left out, so that one damaged record
 * hides nothing else.
 */
import type { Bucket, Entry } from '../bolt/bucket.js';
import type { Any, StringMap } from '../model/records.js';
import { type Instant, zeroTime } from '../model/time.js';
import {
  anyTypeOf,
  anyTypeOfBeginning,
  decodeTime,
  decodeUvarint,
  decodeVarint,
  encodeTime,
  shortUvarint,
} from '../model/wire.js';
import { messageOf } from '../system/system-errors.js';

/** Read of a field: of messages, which may have megabytes, only the type is used, and it comes first. */
export const FIELD_BYTES_MAX = 1024 * 1024;

/** Called with a description of anything that differs from what containerd writes. */
export type Complain = (what: string) => void;

export function timeOf(entry: Entry, complain: Complain): Instant {
  // A record that was never changed has the same time twice.
  if (entry.hasValue(last)) return lastInstant;
  const instant = read(entry, decodeTime, undefined, complain);
  if (instant === undefined) return zeroTime;
  const { value } = entry;
  if (last.length !== value.length) last = new Uint8Array(value.length);
  last.set(value);
  lastInstant = instant;
  return instant;
}
let last = encodeTime(zeroTime);
let lastInstant = zeroTime;

/** A size or a count; 0 for a value that no file can have. */
export function numberOf(entry: Entry, complain: Complain): number {
  const short = shortOf(entry);
  // Zig-zag: odd ones are negative.
  if (short >= 0) return short % 2 === 0 ? short / 2 : 0;
  return natural(read(entry, decodeVarint, 0n, complain));
}

export function unsignedOf(entry: Entry, complain: Complain): number {
  const short = shortOf(entry);
  return short >= 0 ? short : natural(read(entry, decodeUvarint, 0n, complain));
}

/** Nearly all numbers; -1 for others. */
const shortOf = ({ bytes, isBucket, valueAt, valueEnd }: Entry): number =>
  isBucket ? -1 : shortUvarint(bytes, valueAt, valueEnd);

const natural = (value: bigint): number => {
  const number = Number(value);
  return Number.isSafeInteger(number) && number > 0 ? number : 0;
};

/**
 * The type of a message, without its bytes: specs and what Kubernetes adds are most of a `meta.db`, and
 * nothing here needs them.
 */
export function anyOf(entry: Entry, complain: Complain): Any {
  return read(entry, typeOf, NO_MESSAGE, complain);
}
const NO_BYTES = new Uint8Array();
export const NO_MESSAGE: Any = { typeUrl: '', value: NO_BYTES };
const typeOf = (bytes: Uint8Array): Any => ({
  typeUrl: bytes.length < FIELD_BYTES_MAX ? anyTypeOf(bytes) : anyTypeOfBeginning(bytes),
  value: NO_BYTES,
});

function read<T, U>(entry: Entry, decode: (bytes: Uint8Array) => T, without: U, complain: Complain): T | U {
  try {
    return decode(entry.value);
  } catch (error) {
    complain(`${entry.key}: ${messageOf(error)}`);
    return without;
  }
}

/**
 * Undefined for a map without entries. Entries with an empty value are dropped unless `keepsEmpty`: only
 * namespaces can have them.
 */
export function textsOf(bucket: Bucket | undefined, keepsEmpty = false): StringMap | undefined {
  let texts: Record<string, string> | undefined;
  bucket?.each((entry) => {
    const { text, key } = entry;
    if (entry.isBucket || (text === '' && !keepsEmpty)) return;
    // By definition, since a label may be called __proto__.
    texts ??= {};
    if (key === '__proto__') Object.defineProperty(texts, key, { value: text, enumerable: true });
    else texts[key] = text;
  });
  return texts;
}

export function anysOf(bucket: Bucket | undefined, complain: Complain): Record<string, Any> | undefined {
  const found: [string, Any][] = [];
  bucket?.each((entry) => {
    if (!entry.isBucket) found.push([entry.key, anyOf(entry, complain)]);
  });
  return found.length === 0 ? undefined : Object.fromEntries(found);
}
