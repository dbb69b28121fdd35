/**
 * Responses of many shapes as JSON, in chunks. What JSON lacks (bigints such as instants, and bytes) is
 * written as an object with one special field, so that it decodes to the same value. Functions are left out.
 * Pure; used by both ends.
 */
import { invalidArgument } from '../../errors.js';

export interface DocumentMessage {
  json: string;
}

const BIGINT = '$int';
const BYTES = '$bytes';

/** Characters of one chunk of a document, and entries of a list that are written at once. */
const CHUNK_CHARACTERS = 64 * 1024;
const ENTRIES_AT_ONCE = 1000;

/** A document in chunks, which bounds the size of a message and the work for it. */
export function* toDocument(value: unknown): Generator<DocumentMessage> {
  let chunk = '';
  for (const text of written(value)) {
    chunk += text;
    while (chunk.length > CHUNK_CHARACTERS) {
      const end = CHUNK_CHARACTERS + (isHighSurrogate(chunk, CHUNK_CHARACTERS - 1) ? 1 : 0);
      yield { json: chunk.slice(0, end) };
      chunk = chunk.slice(end);
    }
  }
  yield { json: chunk };
}

/** Long lists in parts, at any depth of objects. */
function* written(value: unknown): Generator<string> {
  if (Array.isArray(value) && value.length > ENTRIES_AT_ONCE) {
    for (let at = 0; at < value.length; at += ENTRIES_AT_ONCE) {
      const part = JSON.stringify(value.slice(at, at + ENTRIES_AT_ONCE), write);
      yield `${at === 0 ? '[' : ','}${part.slice(1, -1)}`;
    }
    yield ']';
  } else if (isPlain(value)) {
    let first = true;
    for (const [name, part] of Object.entries(value)) {
      if (part === undefined || typeof part === 'function') continue;
      yield `${first ? '{' : ','}${JSON.stringify(name)}:`;
      yield* written(part);
      first = false;
    }
    yield first ? '{}' : '}';
  } else yield JSON.stringify(value, write);
}

const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
const isHighSurrogate = (text: string, at: number): boolean => (text.charCodeAt(at) & 0xfc00) === 0xd800;

/** The value of a document, from all of its chunks. InvalidArgument: not JSON. */
export function fromDocument<T = unknown>(chunks: readonly DocumentMessage[]): T {
  const json = chunks.map((chunk) => chunk.json).join('');
  try {
    return JSON.parse(json, read) as T;
  } catch (cause) {
    throw invalidArgument('the document is not JSON', { cause });
  }
}

function write(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return { [BIGINT]: value.toString() };
  if (value instanceof Uint8Array) return { [BYTES]: Buffer.from(value).toString('base64') };
  return value;
}

function read(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const [name, ...more] = Object.keys(value);
  if (more.length > 0 || name === undefined) return value;
  const content = (value as Record<string, unknown>)[name];
  if (typeof content !== 'string') return value;
  if (name === BIGINT && /^-?\d{1,39}$/.test(content)) return BigInt(content);
  return name === BYTES ? Buffer.from(content, 'base64') : value;
}
