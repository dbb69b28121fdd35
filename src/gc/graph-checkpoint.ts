/**
 * The packed, checksummed image of a graph, in TypeScript. Used by graph-ts.ts. native/checkpoint.cc reads and
 * writes the same bytes (the layout is drawn in native/checkpoint.h), so either core opens the other's checkpoint.
 *
 * Threading: one step on the JavaScript thread. Decoding trusts nothing: every count, id and length is checked.
 */
import { NodeFlag } from '../engine/contract.js';
import { crc32c } from './crc32c.js';
import { MAX_EDGES, MAX_NODES, type NodeTable } from './graph-ts-nodes.js';

const MAGIC = 0x47424245; // "EBBG"
const VERSION = 1;
const HEADER_BYTES = 44;
const FRAME_BYTES = 12;
const PART_BYTES = 24;
/** Ids in a frame. */
const FRAME_IDS = 65_536;
/** Size of the flags dictionary that says "no dictionary". */
const WIDE = 0xffff;
const ID_MASK = 2 ** 30 - 1;
const MAX_FLAGS = 0x1fff;

export function encodeGraph(nodes: NodeTable): Buffer {
  const frames: Buffer[] = [];
  let bytes = HEADER_BYTES;
  let ids: number[] = [];
  const close = (): void => {
    if (ids.length === 0) return;
    const frame = encodeFrame(nodes, ids);
    frames.push(frame);
    bytes += frame.length;
    ids = [];
  };
  for (const id of nodes.ids()) {
    if (ids.length > 0 && frameOf(ids[0]!) !== frameOf(id)) close();
    ids.push(id);
  }
  close();

  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(MAGIC, 0);
  header.writeUInt32LE(VERSION, 4);
  header.writeUInt32LE(nodes.limit, 8);
  header.writeUInt32LE(frames.length, 12);
  header.writeUInt32LE(nodes.nodes, 16);
  header.writeBigUInt64LE(BigInt(nodes.edges), 24);
  header.writeBigUInt64LE(BigInt(bytes), 32);
  header.writeUInt32LE(crc32c(header.subarray(0, 40)), 40);
  return Buffer.concat([header, ...frames]);
}

/** Fills an empty table; false, with the table in any state, when the bytes are not a whole checkpoint. */
export function decodeGraph(bytes: Uint8Array, nodes: NodeTable): boolean {
  try {
    decode(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), nodes);
    return true;
  } catch (error) {
    if (error instanceof Damaged || error instanceof RangeError) return false;
    throw error;
  }
}

class Damaged extends Error {}

function must(condition: boolean): asserts condition {
  if (!condition) throw new Damaged('damaged checkpoint');
}

const frameOf = (id: number): number => Math.floor(id / FRAME_IDS);

// --------------------------------------------------------------------------------------------------- encoding

function encodeFrame(nodes: NodeTable, ids: readonly number[]): Buffer {
  const index = frameOf(ids[0]!);
  const first = index * FRAME_IDS;
  const count = ids[ids.length - 1]! - first + 1;
  const dictionary = [...new Set(ids.map((id) => nodes.flags(id)))].sort((a, b) => a - b);
  const wide = dictionary.length > 255;
  const codeOf = new Map(dictionary.map((flags, i) => [flags, i + 1]));

  const codes = Buffer.alloc(wide ? count * 3 : count);
  const degrees = Buffer.alloc(count);
  const inDegrees = Buffer.alloc(count);
  const wideDegrees: number[] = [];
  const wideInDegrees: number[] = [];
  const expiries: bigint[] = [];
  const edges = new EdgePacker();
  for (const id of ids) {
    const i = id - first;
    const flags = nodes.flags(id);
    if (wide) codes.writeUIntLE(1 + flags * 256, i * 3, 3);
    else codes[i] = codeOf.get(flags)!;
    degrees[i] = narrow(nodes.degree(id), wideDegrees);
    inDegrees[i] = narrow(nodes.inDegree(id), wideInDegrees);
    if (flags & NodeFlag.expires) expiries.push(nodes.expiry(id) ?? 0n);
    for (const word of nodes.sortedEdges(id)) edges.push(id, word);
  }

  const part = Buffer.alloc(PART_BYTES);
  part.writeUInt16LE(wide ? WIDE : dictionary.length, 0);
  part.writeUInt32LE(count, 4);
  part.writeUInt32LE(edges.count, 8);
  part.writeUInt32LE(wideDegrees.length, 12);
  part.writeUInt32LE(wideInDegrees.length, 16);
  part.writeUInt32LE(expiries.length, 20);
  const payload = Buffer.concat([
    part,
    asBytes(Uint16Array.from(wide ? [] : dictionary)),
    codes,
    degrees,
    inDegrees,
    asBytes(Uint32Array.from(wideDegrees)),
    asBytes(Uint32Array.from(wideInDegrees)),
    asBytes(BigInt64Array.from(expiries)),
    ...edges.finish(),
  ]);
  const head = Buffer.alloc(FRAME_BYTES);
  head.writeUInt32LE(index, 0);
  head.writeUInt32LE(payload.length, 4);
  head.writeUInt32LE(crc32c(payload, crc32c(head.subarray(0, 8))), 8);
  return Buffer.concat([head, payload]);
}

function narrow(n: number, wide: number[]): number {
  if (n < 255) return n;
  wide.push(n);
  return 255;
}

/** Typed arrays of this package are little-endian on every platform Node runs this addon on. */
const asBytes = (words: ArrayBufferView): Buffer =>
  Buffer.from(words.buffer, words.byteOffset, words.byteLength);

/** Edges as 1 to 4 bytes each, their lengths in two bits each of a control stream. */
class EdgePacker {
  count = 0;
  #controls: Buffer = Buffer.alloc(256);
  #data: Buffer = Buffer.alloc(1024);
  #used = 0;

  push(from: number, word: number): void {
    const packed = packEdge(from, word);
    const length = packed < 0x100 ? 1 : packed < 0x10000 ? 2 : packed < 0x1000000 ? 3 : 4;
    if (this.#used + 4 > this.#data.length) this.#data = grown(this.#data);
    if (this.count >>> 2 >= this.#controls.length) this.#controls = grown(this.#controls);
    this.#data.writeUIntLE(packed, this.#used, length);
    this.#used += length;
    this.#controls[this.count >>> 2]! |= (length - 1) << (2 * (this.count & 3));
    this.count++;
  }

  finish(): Buffer[] {
    return [this.#controls.subarray(0, (this.count + 3) >>> 2), this.#data.subarray(0, this.#used)];
  }
}

const grown = (buffer: Buffer): Buffer => Buffer.concat([buffer, Buffer.alloc(buffer.length)]);

/** The distance from `from`, wrapped to 30 bits and zigzagged, over the kind: small for neighbours. */
function packEdge(from: number, word: number): number {
  const distance = ((((word >>> 2) - from) & ID_MASK) << 2) >> 2;
  const zigzag = ((distance << 1) ^ (distance >> 29)) & ID_MASK;
  return ((zigzag << 2) | (word & 3)) >>> 0;
}

function unpackTarget(from: number, packed: number): number {
  const zigzag = packed >>> 2;
  const distance = (zigzag >>> 1) ^ -(zigzag & 1);
  return (from + distance) & ID_MASK;
}

// --------------------------------------------------------------------------------------------------- decoding

interface Header {
  limit: number;
  frames: number;
  nodes: number;
  edges: number;
}

function decode(bytes: Buffer, nodes: NodeTable): void {
  const header = readHeader(bytes);
  let at = HEADER_BYTES;
  let last = -1;
  const payloads: { first: number; payload: Buffer }[] = [];
  for (let n = 0; n < header.frames; n++) {
    const head = bytes.subarray(at, at + FRAME_BYTES);
    must(head.length === FRAME_BYTES);
    const index = head.readUInt32LE(0);
    const length = head.readUInt32LE(4);
    const payload = bytes.subarray(at + FRAME_BYTES, at + FRAME_BYTES + length);
    must(payload.length === length && index > last && index < MAX_NODES / FRAME_IDS);
    must(crc32c(payload, crc32c(head.subarray(0, 8))) === head.readUInt32LE(8));
    payloads.push({ first: index * FRAME_IDS, payload });
    last = index;
    at += FRAME_BYTES + length;
  }
  must(at === bytes.length);
  // An edge may lead to any frame, so all nodes come before the first edge.
  const edges = payloads.map(({ first, payload }) => decodeNodes(payload, first, nodes));
  for (const decodeEdges of edges) decodeEdges();
  for (const { first, payload } of payloads) checkInDegrees(payload, first, nodes);
  must(nodes.limit === header.limit && nodes.nodes === header.nodes && nodes.edges === header.edges);
}

function readHeader(bytes: Buffer): Header {
  must(bytes.length >= HEADER_BYTES);
  must(bytes.readUInt32LE(0) === MAGIC && bytes.readUInt32LE(4) === VERSION && bytes.readUInt32LE(20) === 0);
  must(bytes.readUInt32LE(40) === crc32c(bytes.subarray(0, 40)));
  must(bytes.readBigUInt64LE(32) === BigInt(bytes.length));
  const edges = Number(bytes.readBigUInt64LE(24));
  must(edges <= MAX_EDGES);
  return {
    limit: bytes.readUInt32LE(8),
    frames: bytes.readUInt32LE(12),
    nodes: bytes.readUInt32LE(16),
    edges,
  };
}

interface Parts {
  count: number;
  edgeCount: number;
  dictionary: number[] | undefined;
  codes: Buffer;
  degrees: Buffer;
  inDegrees: Buffer;
  wideDegrees: Buffer;
  wideInDegrees: Buffer;
  expiries: Buffer;
  controls: Buffer;
  data: Buffer;
}

function split(payload: Buffer): Parts {
  must(payload.length >= PART_BYTES);
  const size = payload.readUInt16LE(0);
  const count = payload.readUInt32LE(4);
  const edgeCount = payload.readUInt32LE(8);
  const wide = size === WIDE;
  must(payload.readUInt16LE(2) === 0 && (wide || (size >= 1 && size <= 255)));
  must(count >= 1 && count <= FRAME_IDS);
  let at = PART_BYTES;
  const take = (length: number): Buffer => {
    must(at + length <= payload.length);
    at += length;
    return payload.subarray(at - length, at);
  };
  const dictionary = take(wide ? 0 : size * 2);
  return {
    count,
    edgeCount,
    dictionary: wide ? undefined : Array.from({ length: size }, (_, i) => dictionary.readUInt16LE(i * 2)),
    codes: take(wide ? count * 3 : count),
    degrees: take(count),
    inDegrees: take(count),
    wideDegrees: take(payload.readUInt32LE(12) * 4),
    wideInDegrees: take(payload.readUInt32LE(16) * 4),
    expiries: take(payload.readUInt32LE(20) * 8),
    controls: take(Math.ceil(edgeCount / 4)),
    data: payload.subarray(at),
  };
}

/** Flags of the node at place `i` of a frame; undefined when there is none. */
function flagsAt(parts: Parts, i: number): number | undefined {
  if (parts.dictionary === undefined) {
    const exists = parts.codes[i * 3]!;
    must(exists <= 1);
    return exists === 1 ? parts.codes.readUInt16LE(i * 3 + 1) : undefined;
  }
  const code = parts.codes[i]!;
  must(code <= parts.dictionary.length);
  return code === 0 ? undefined : parts.dictionary[code - 1];
}

/** Sets the frame's nodes; answers the step that adds their edges. */
function decodeNodes(payload: Buffer, first: number, nodes: NodeTable): () => void {
  const parts = split(payload);
  must(first + parts.count <= MAX_NODES);
  let expiries = 0;
  for (let i = 0; i < parts.count; i++) {
    const flags = flagsAt(parts, i);
    if (flags === undefined) continue;
    must(flags <= MAX_FLAGS);
    const expires = (flags & NodeFlag.expires) !== 0;
    must(!expires || (expiries + 1) * 8 <= parts.expiries.length);
    nodes.set(first + i, flags, expires ? parts.expiries.readBigInt64LE(expiries++ * 8) : undefined);
  }
  must(expiries * 8 === parts.expiries.length && nodes.exists(first + parts.count - 1));
  return () => addEdges(parts, first, nodes);
}

function addEdges(parts: Parts, first: number, nodes: NodeTable): void {
  const degreeOf = widened(parts.degrees, parts.wideDegrees);
  let edge = 0;
  let at = 0;
  for (let i = 0; i < parts.count; i++) {
    const degree = degreeOf(i);
    must(edge + degree <= parts.edgeCount && (degree === 0 || nodes.exists(first + i)));
    for (let n = 0; n < degree; n++, edge++) {
      const length = ((parts.controls[edge >>> 2]! >>> (2 * (edge & 3))) & 3) + 1;
      must(at + length <= parts.data.length);
      const packed = parts.data.readUIntLE(at, length);
      at += length;
      const to = unpackTarget(first + i, packed);
      must((packed & 3) < 3 && nodes.exists(to));
      nodes.addEdge(first + i, to, packed & 3);
    }
  }
  must(edge === parts.edgeCount && at === parts.data.length);
}

function checkInDegrees(payload: Buffer, first: number, nodes: NodeTable): void {
  const parts = split(payload);
  const inDegreeOf = widened(parts.inDegrees, parts.wideInDegrees);
  for (let i = 0; i < parts.count; i++) must(nodes.inDegree(first + i) === inDegreeOf(i));
}

/** Reads a byte column whose 255s stand for the next word of a second column. Ask in ascending order. */
function widened(narrowed: Buffer, wide: Buffer): (i: number) => number {
  must(narrowed.reduce((n, byte) => n + (byte === 255 ? 1 : 0), 0) * 4 === wide.length);
  let next = 0;
  return (i) => {
    const n = narrowed[i]!;
    if (n < 255) return n;
    const widest = wide.readUInt32LE(next);
    next += 4;
    must(widest >= 255);
    return widest;
  };
}
