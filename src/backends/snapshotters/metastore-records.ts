/**
 * Encoding of the metastore: keys and ids as ordered bytes, records as JSON. Called by metastore.ts; pure.
 */
import { createHash } from 'node:crypto';
import { invalidArgument, unknownError } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import type { Instant } from '../../model/time.js';
import type { SnapshotKind } from '../contract.js';

export interface StoredSnapshot {
  /** Name of its directory, in decimal. */
  id: number;
  key: string;
  kind: SnapshotKind;
  /** Id of the parent; 0 when there is none. */
  parent: number;
  created: Instant;
  updated: Instant;
  labels: StringMap | undefined;
  /** Usage computed at the commit, else 0. */
  inodes: number;
  /** Bytes. */
  size: number;
}

const ID_BYTES = 6;
/** LMDB accepts keys up to 1978 bytes; longer ones are stored by their hash. */
const PLAIN_KEY_BYTES = 1024;
const PLAIN = Buffer.from([0]);
const HASHED = Buffer.from([1]);

export function idBytes(id: number): Buffer {
  const bytes = Buffer.alloc(ID_BYTES);
  bytes.writeUIntBE(id, 0, ID_BYTES);
  return bytes;
}

/** InvalidArgument for an empty key or one that is not well-formed text (two such keys would become one). */
export function keyBytes(key: string): Buffer {
  if (key === '') throw invalidArgument('snapshot key must not be empty');
  if (/\p{Surrogate}/u.test(key))
    throw invalidArgument('snapshot key is not well-formed text', { object: key });
  const text = Buffer.from(key);
  if (text.length <= PLAIN_KEY_BYTES) return Buffer.concat([PLAIN, text]);
  return Buffer.concat([HASHED, createHash('sha256').update(text).digest()]);
}

const kinds: readonly SnapshotKind[] = ['view', 'active', 'committed'];

export function encodeSnapshot(s: StoredSnapshot): Buffer {
  return Buffer.from(
    JSON.stringify({
      key: s.key,
      kind: kinds.indexOf(s.kind) + 1,
      parent: s.parent,
      createdat: s.created.toString(),
      updatedat: s.updated.toString(),
      labels: s.labels === undefined ? undefined : Object.entries(s.labels),
      inodes: s.inodes,
      size: s.size,
    }),
  );
}

/** Unknown, naming the snapshot, for bytes that are not a valid record. */
export function decodeSnapshot(id: number, bytes: Buffer): StoredSnapshot {
  try {
    const value: unknown = JSON.parse(bytes.toString());
    if (typeof value !== 'object' || value === null) throw new Error('not an object');
    const fields = new Map(Object.entries(value));
    return {
      id,
      key: text(fields, 'key'),
      kind: kinds[number(fields, 'kind') - 1] ?? fail('kind'),
      parent: number(fields, 'parent'),
      created: BigInt(text(fields, 'createdat')),
      updated: BigInt(text(fields, 'updatedat')),
      labels: labels(fields.get('labels')),
      inodes: number(fields, 'inodes'),
      size: number(fields, 'size'),
    };
  } catch (error) {
    throw unknownError(`the metadata of snapshot number ${id} is damaged`, {
      object: String(id),
      remedy: 'restore the metadata file from a backup',
      cause: error,
    });
  }
}

function fail(field: string): never {
  throw new Error(`field ${field} is missing or malformed`);
}

function text(fields: ReadonlyMap<string, unknown>, field: string): string {
  const value = fields.get(field);
  return typeof value === 'string' ? value : fail(field);
}

function number(fields: ReadonlyMap<string, unknown>, field: string): number {
  const value = fields.get(field);
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : fail(field);
}

/** Stored as a list of pairs, so that a label may have any key. */
function labels(value: unknown): StringMap | undefined {
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) return fail('labels');
  return Object.fromEntries(
    value.map((pair: unknown): [string, string] => {
      if (!Array.isArray(pair)) return fail('labels');
      const [key, label]: unknown[] = pair;
      return typeof key === 'string' && typeof label === 'string' ? [key, label] : fail('labels');
    }),
  );
}
