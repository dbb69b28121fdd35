/**
 * What the file keeps under a node's id: its key, its part of the graph, its value. Called by the storage; part of
 * the file format. All bytes are bounds-checked; damage is an error of kind Unknown that names the node.
 *
 *   head (bit 0: has a value, bit 1: has adjacency), key length, key, [adjacency length, adjacency], value
 *   adjacency: flags, edge count, edges, [expiry: 8 bytes, or 9+ for one outside 64 bits]
 */
import { unknownError } from '../../../errors.js';
import { type Key, NodeFlag, type StoredNode } from '../../contract.js';
import { asBuffer, copyOf } from '../../core/bytes.js';
import type { Entry, StoredAdjacency } from '../../core/storage.js';
import { ByteReader, ByteWriter, DamagedBytes } from '../../schema/bytes.js';
import { DIGEST_BYTES, decodedParent, decodeLeaf, digestStart, parentOfDigest } from './key-codec.js';

const Head = { value: 1, adjacency: 2 } as const;
const I64_MIN = -(2n ** 63n);
const I64_MAX = 2n ** 63n - 1n;

const adjacencyWriter = new ByteWriter();
const writer = new ByteWriter();
const reader = new ByteReader();

export function encodeNode(key: Uint8Array, entry: Entry): Uint8Array {
  writer.clear();
  const { adjacency, bytes } = entry;
  writer.byte((bytes === undefined ? 0 : Head.value) | (adjacency === undefined ? 0 : Head.adjacency));
  writer.varint(key.length);
  writer.bytes(key);
  if (adjacency !== undefined) {
    const encoded = encodeAdjacency(adjacency);
    writer.varint(encoded.length);
    writer.bytes(encoded);
  }
  if (bytes !== undefined) writer.bytes(bytes);
  return writer.take();
}

function encodeAdjacency(adjacency: StoredAdjacency): Uint8Array {
  const { flags, edges, expireAt } = adjacency;
  adjacencyWriter.clear();
  adjacencyWriter.varint(flags);
  adjacencyWriter.varint(edges.length);
  for (const edge of edges) adjacencyWriter.varint(edge);
  if (expireAt !== undefined) {
    // The graph saturates an expiry in the same way.
    adjacencyWriter.i64(expireAt < I64_MIN ? I64_MIN : expireAt > I64_MAX ? I64_MAX : expireAt);
  }
  return adjacencyWriter.take();
}

/** Whether the node stands for a record that the graph knows. */
export const hasAdjacency = (node: Uint8Array): boolean => ((node[0] ?? 0) & Head.adjacency) !== 0;

/** Where the parts of a node are in its bytes. */
export interface NodeParts {
  keyStart: number;
  keyEnd: number;
  /** Both equal when there is no adjacency. */
  adjacencyStart: number;
  adjacencyEnd: number;
  /** -1 when there is no value; it ends where the bytes end. */
  valueStart: number;
}

/** Returns one object, which the next call uses again. */
export function nodeParts(id: number, bytes: Uint8Array, end: number): NodeParts {
  const head = bytes[0] ?? 0;
  at = 1;
  const keyLength = varint(bytes, end);
  parts.keyStart = at;
  parts.keyEnd = at + keyLength;
  at = parts.keyEnd;
  const adjacencyLength = (head & Head.adjacency) === 0 ? 0 : varint(bytes, end);
  parts.adjacencyStart = at;
  parts.adjacencyEnd = at + adjacencyLength;
  parts.valueStart = (head & Head.value) === 0 ? -1 : parts.adjacencyEnd;
  if (end === 0 || head > 3 || parts.adjacencyEnd > end) throw damaged(id, 'it ends early');
  return parts;
}

const parts: NodeParts = { keyStart: 0, keyEnd: 0, adjacencyStart: 0, adjacencyEnd: 0, valueStart: -1 };
let at = 0;

function varint(bytes: Uint8Array, end: number): number {
  let value = 0;
  for (let scale = 1; at < end && scale < 2 ** 35; scale *= 128) {
    const byte = bytes[at++];
    if (byte === undefined) break;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return value;
  }
  return Number.POSITIVE_INFINITY;
}

export function decodeAdjacency(id: number, bytes: Buffer, start: number, end: number): StoredAdjacency {
  reader.over(bytes, start, end);
  try {
    const flags = reader.varint();
    const count = reader.varint();
    const edges: number[] = [];
    for (let i = 0; i < count; i++) edges.push(reader.varint());
    const expireAt = (flags & NodeFlag.expires) === 0 ? undefined : reader.i64();
    return { flags, expireAt, edges };
  } catch (error) {
    if (error instanceof DamagedBytes) throw damaged(id, error.message);
    throw error;
  }
}

/** The parts of a node's bytes, which end at `end`; no part of the result shares them. */
export function readEntry(id: number, node: Buffer, end: number): Entry {
  const { adjacencyStart, adjacencyEnd, valueStart } = nodeParts(id, node, end);
  return {
    id,
    adjacency:
      adjacencyEnd === adjacencyStart ? undefined : decodeAdjacency(id, node, adjacencyStart, adjacencyEnd),
    bytes: valueStart < 0 ? undefined : copyOf(node, valueStart, end),
  };
}

/** A node's record where the tree has it. One object for all: it shows the node that was read last. */
export class NodeOfTree implements StoredNode {
  bytes: Buffer = NO_BYTES;
  start = 0;
  end = 0;
  #keyStart = 0;
  #keyEnd = 0;
  #leaf: string | undefined;
  #parent = '';

  /** Shows this one; false when it has no record. */
  show(id: number, bytes: Uint8Array, end: number): boolean {
    const { keyStart, keyEnd, valueStart } = nodeParts(id, bytes, end);
    this.bytes = asBuffer(bytes);
    this.start = valueStart;
    this.end = end;
    this.#keyStart = keyStart;
    this.#keyEnd = keyEnd;
    this.#leaf = undefined;
    return valueStart >= 0;
  }

  get key(): Key {
    const { leaf } = this;
    return this.#parent + leaf;
  }

  get leaf(): string {
    return this.#leaf ?? this.#decode();
  }

  get parent(): string {
    if (this.#leaf === undefined) {
      const parent = parentOfDigest(this.bytes, this.#keyStart, this.#keyEnd);
      if (parent !== undefined) return parent;
      this.#decode();
    }
    return this.#parent;
  }

  #decode(): string {
    const leaf = decodeLeaf(this.bytes, this.#keyStart, this.#keyEnd);
    this.#leaf = leaf;
    this.#parent = decodedParent();
    return leaf;
  }

  copyDigest(target: Uint8Array, at: number): boolean {
    const start = digestStart(this.bytes, this.#keyStart, this.#keyEnd);
    // Byte by byte: a view would cost more.
    for (let i = 0; start >= 0 && i < DIGEST_BYTES; i++) target[at + i] = this.bytes[start + i] ?? 0;
    return start >= 0;
  }
}

const NO_BYTES = Buffer.alloc(0);

const damaged = (id: number, why: string) =>
  unknownError(`node ${id} is damaged: ${why}`, {
    object: `node ${id}`,
    remedy: 'run a check and restore the store from a copy',
  });
