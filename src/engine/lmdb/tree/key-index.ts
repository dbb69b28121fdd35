/**
 * From keys to what is stored under them: two tables that are one in order. Called by the storage for reading and by
 * flush.ts for writing; not shared between threads.
 *
 *   keys      encoded key → node id (4 bytes, big-endian), or a head and the value of a record that has no node
 *   digests   the beginning of an encoded key that ends in a digest (`digestCut`) → the ids of the nodes with that
 *             beginning; the node has the whole key, so most of a digest need not be stored twice. At most SHARING_MAX of
 *             them, since clients choose digests; further ones are in `keys`. The id INLINE_ID says that `keys` may have
 *             something with that beginning, so that a look-up there is never in vain.
 */
import type { Database } from '../../../system/lmdb/lmdb.js';
import type { Key } from '../../contract.js';
import { asBuffer, copyOf } from '../../core/bytes.js';
import {
  cutBound,
  DIGEST_CUT_BYTES,
  decodeKey,
  encodedBeginning,
  encodedCut,
  encodeKey,
} from '../codec/key-codec.js';
import { nodeParts } from '../codec/node-codec.js';
import { lastSizeOf, type Table } from './table.js';

/** First byte of what `keys` holds: the top of a node id (ids are below 2^30), or the head of a value. */
export const INLINE = 0x40;
/** Whether a row of `keys` has the value itself. */
export const isInline = (row: Uint8Array): boolean => (row[0] ?? 0) >= INLINE;

/** No node has it. */
export const INLINE_ID = 2 ** 30 - 1;
/** Nodes that are found by the same beginning of their keys. */
export const SHARING_MAX = 16;
/** Stands in results where there is no node, nor anything else. */
export const NO_NODE = 0xffffffff;
const ID_BYTES = 4;

export interface KeyTables {
  readonly keys: Table;
  readonly digests: Table;
  readonly nodes: Database<Uint8Array, number>;
}

/** What stands under a key: a node, or (id undefined) a value. The bytes are valid until the next read. */
export interface Found {
  readonly id: number | undefined;
  readonly bytes: Buffer;
  /** Where the value or node begins and ends in `bytes`. */
  readonly start: number;
  readonly end: number;
}

/** `isSuperseded` nodes are known not to stand for the key any more; they are not read. */
export function find(
  { keys, digests, nodes }: KeyTables,
  key: Key,
  isSuperseded?: (id: number, key: Key) => boolean,
): Found | undefined {
  const encoded = encodeKey(key);
  const cut = encodedCut();
  if (cut > 0) {
    const row = digests.get(encodedBeginning());
    if (row === undefined) return undefined;
    let mayBeWhole = false;
    for (const id of digests.lastSize === ID_BYTES ? [idAt(row, 0)] : idsIn(row, digests.lastSize)) {
      if (id === INLINE_ID) mayBeWhole = true;
      if (isSuperseded?.(id, key)) continue;
      const node = nodes.getBinaryFast(id);
      const end = lastSizeOf(nodes);
      if (node !== undefined && hasKey(id, asBuffer(node), end, encoded)) {
        return { id, bytes: asBuffer(node), start: 0, end };
      }
    }
    if (!mayBeWhole) return undefined;
  }
  const row = keys.get(encoded);
  if (row === undefined) return undefined;
  if (isInline(row)) return { id: undefined, bytes: row, start: 1, end: keys.lastSize };
  const id = row.readUInt32BE(0);
  if (isSuperseded?.(id, key)) return undefined;
  const node = nodes.getBinaryFast(id);
  // The storage reports the damage.
  if (node === undefined) return { id, bytes: row, start: 0, end: 0 };
  return { id, bytes: asBuffer(node), start: 0, end: lastSizeOf(nodes) };
}

/**
 * Ids of the nodes that the keys `prefix + leaf` may have, prefix by prefix: NO_NODE where there is nothing, INLINE_ID
 * where only `find` knows. Nodes are not read: one may have another key whose digest begins alike.
 */
export function possibleIds(
  tables: KeyTables,
  prefixes: readonly string[],
  leaves: readonly string[],
): Uint32Array {
  const ids = new Uint32Array(prefixes.length * leaves.length);
  const heads = prefixes.map(headOf);
  const isDigestBelow = heads.every((head) => head !== undefined);
  for (const [l, leaf] of leaves.entries()) {
    const cut = isDigestBelow ? cutOf((prefixes[0] ?? '') + leaf) : undefined;
    for (const [p, head] of heads.entries()) {
      if (cut === undefined || head === undefined) {
        const found = find(tables, prefixes[p] + leaf);
        ids[p * leaves.length + l] = found === undefined ? NO_NODE : (found.id ?? INLINE_ID);
        continue;
      }
      head.set(cut, head.length - cut.length);
      const row = tables.digests.get(head);
      const only = row !== undefined && tables.digests.lastSize === ID_BYTES;
      ids[p * leaves.length + l] = row === undefined ? NO_NODE : only ? row.readUInt32BE(0) : INLINE_ID;
    }
  }
  return ids;
}

/** A cut key below a prefix, with room for the beginning of a digest; undefined where such keys are not cut. */
function headOf(prefix: string): Buffer | undefined {
  const encoded = encodeKey(`${prefix}sha256:${'0'.repeat(64)}`);
  const cut = encodedCut();
  return cut === 0 ? undefined : Buffer.from(encoded.subarray(0, cut));
}

/** What the index has of the digest that a key ends in. */
function cutOf(key: Key): Buffer | undefined {
  const encoded = encodeKey(key);
  const cut = encodedCut();
  return cut === 0 ? undefined : encoded.subarray(cut - DIGEST_CUT_BYTES, cut);
}

export function idsIn(row: Buffer, size: number): number[] {
  const ids: number[] = [];
  for (let at = 0; at + ID_BYTES <= size; at += ID_BYTES) ids.push(idAt(row, at));
  return ids;
}

const idAt = (row: Buffer, at: number): number => row.readUInt32BE(at);

export function idBytes(ids: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(ids.length * ID_BYTES);
  for (const [i, id] of ids.entries()) bytes.writeUInt32BE(id, i * ID_BYTES);
  return bytes;
}

function hasKey(id: number, node: Buffer, size: number, encoded: Buffer): boolean {
  const { keyStart, keyEnd } = nodeParts(id, node, size);
  return (
    keyEnd - keyStart === encoded.length && node.compare(encoded, 0, encoded.length, keyStart, keyEnd) === 0
  );
}

// ------------------------------------------------------------------------------------------------------- in order

export interface KeyRow extends Found {
  readonly key: Key;
}

interface NodeRow extends KeyRow {
  readonly keyStart: number;
  readonly keyEnd: number;
}

export interface Bounds {
  readonly lower: Buffer;
  readonly exclusive: boolean;
  readonly upper: Buffer | undefined;
}

/** Whether a node of the tree is known to be gone. */
type IsGone = (id: number) => boolean;
const goneNever: IsGone = () => false;

/**
 * All keys within bounds, in order; each row is good until the next one is asked for. `chunk`: rows read ahead at first; a caller that passes
 * over many gets more. Nodes that are gone are left out, and not read.
 */
export function* rowsWithin(
  tables: KeyTables,
  bounds: Bounds,
  chunk: number,
  isGone: IsGone = goneNever,
): Generator<KeyRow> {
  const whole = new Cursor(tables.keys, bounds, chunk);
  const lower = Buffer.from(cutBound(bounds.lower));
  const cut = new Cursor(tables.digests, { ...bounds, lower, exclusive: false }, chunk);
  for (;;) {
    const a = whole.peek();
    const b = cut.peek();
    if (a !== undefined && (b === undefined || Buffer.compare(a[0], b[0]) < 0)) {
      whole.skip();
      const row = rowOf(tables, a, isGone);
      if (row !== undefined) yield row;
      continue;
    }
    if (b === undefined) return;
    cut.skip();
    if (a?.[0].subarray(0, b[0].length).equals(b[0])) yield* mixed(tables, whole, b, bounds, isGone);
    else yield* nodesOf(tables, b, bounds, isGone);
  }
}

/** What a row of `keys` stands for. */
function rowOf(
  { nodes }: KeyTables,
  [encoded, value]: readonly [Buffer, Buffer],
  isGone: IsGone,
): KeyRow | undefined {
  const id = isInline(value) ? undefined : value.readUInt32BE(0);
  if (id !== undefined && isGone(id)) return undefined;
  const key = decodeKey(encoded);
  if (id === undefined) return { key, id, bytes: value, start: 1, end: value.length };
  const node = nodes.getBinaryFast(id);
  if (node === undefined) return { key, id, bytes: value, start: 0, end: 0 };
  return { key, id, bytes: asBuffer(node), start: 0, end: lastSizeOf(nodes) };
}

/** The nodes that share a cut key. */
function* nodesOf(
  { nodes }: KeyTables,
  [, value]: readonly [Buffer, Buffer],
  bounds: Bounds,
  isGone: IsGone,
): Generator<NodeRow> {
  const ids = idsIn(value, value.length).filter((id) => !isGone(id));
  const rows: NodeRow[] = [];
  for (const id of ids) {
    // Several must not share the buffer of the fast read.
    const node = ids.length === 1 ? nodes.getBinaryFast(id) : nodes.getBinary(id);
    if (node === undefined) continue;
    const bytes = asBuffer(node);
    const end = ids.length === 1 ? lastSizeOf(nodes) : bytes.length;
    const { keyStart, keyEnd } = nodeParts(id, bytes, end);
    if (!isWithin(bytes.subarray(keyStart, keyEnd), bounds)) continue;
    rows.push({ key: decodeKey(bytes, keyStart, keyEnd), id, bytes, start: 0, end, keyStart, keyEnd });
  }
  if (rows.length > 1) {
    rows.sort((a, b) => a.bytes.compare(b.bytes, b.keyStart, b.keyEnd, a.keyStart, a.keyEnd));
  }
  yield* rows;
}

/** Whole keys that begin with a cut one stand among its nodes. */
function* mixed(
  tables: KeyTables,
  whole: Cursor,
  row: readonly [Buffer, Buffer],
  bounds: Bounds,
  isGone: IsGone,
): Generator<KeyRow> {
  const next = (): readonly [Buffer, Buffer] | undefined => {
    const found = whole.peek();
    return found?.[0].subarray(0, row[0].length).equals(row[0]) ? found : undefined;
  };
  for (const node of nodesOf(tables, row, bounds, isGone)) {
    // The bytes of a fast read are good until the next one.
    const bytes = copyOf(node.bytes, 0, node.end);
    const encoded = bytes.subarray(node.keyStart, node.keyEnd);
    for (let a = next(); a !== undefined && Buffer.compare(a[0], encoded) < 0; a = next()) {
      whole.skip();
      const other = rowOf(tables, a, isGone);
      if (other !== undefined) yield other;
    }
    yield { ...node, bytes };
  }
  for (let a = next(); a !== undefined; a = next()) {
    whole.skip();
    const other = rowOf(tables, a, isGone);
    if (other !== undefined) yield other;
  }
}

function isWithin(encoded: Buffer, { lower, exclusive, upper }: Bounds): boolean {
  const order = Buffer.compare(encoded, lower);
  if (order < 0 || (exclusive && order === 0)) return false;
  return upper === undefined || Buffer.compare(encoded, upper) < 0;
}

/** Rows read ahead at a time when a caller wants more and more of them. */
const CHUNK_MAX = 512;
const CHUNK_FACTOR = 4;

/** Reads a table ahead in chunks. */
class Cursor {
  readonly #table: Table;
  readonly #upper: Buffer | undefined;
  #chunk: number;
  #lower: Buffer;
  #exclusive: boolean;
  #rows: (readonly [Buffer, Buffer])[] = [];
  #at = 0;
  #isDone = false;

  constructor(table: Table, { lower, exclusive, upper }: Bounds, chunk: number) {
    this.#table = table;
    this.#lower = lower;
    this.#exclusive = exclusive;
    this.#upper = upper;
    this.#chunk = chunk;
  }

  peek(): readonly [Buffer, Buffer] | undefined {
    if (this.#at === this.#rows.length && !this.#isDone) {
      this.#rows = this.#table.range(this.#lower, this.#exclusive, this.#upper, this.#chunk);
      this.#at = 0;
      this.#isDone = this.#rows.length < this.#chunk;
      const last = this.#rows[this.#rows.length - 1];
      if (last !== undefined) {
        this.#lower = last[0];
        this.#exclusive = true;
        this.#chunk = Math.max(this.#chunk, Math.min(CHUNK_MAX, CHUNK_FACTOR * this.#chunk));
      }
    }
    return this.#rows[this.#at];
  }

  skip(): void {
    this.#at++;
  }
}
