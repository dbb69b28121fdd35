/**
 * What the write-ahead log holds: batches of commits as bytes, which the flusher makes rows of the tree of. Encoded by the
 * commit queue, decoded by the flusher and at opening; part of the file format. Pure but for a scratch buffer.
 *
 * A batch (little-endian):
 *
 *   magic u32, tag u32, payload length u32, CRC-32 u32 (of all that follows, seeded with the tag)
 *   previous revision f64, revision f64, change in the number of records i32, 0 u32
 *   rows; the last one has the graph ops
 *
 * A batch without commits is a mark: the first of each generation in a file, with the revision at that moment twice, and the generation
 * as its tag. 1 as its change in the number of records says that the log has gone on in the other file. In place of the 0 it has
 * a salt, and its batches have generation XOR salt as their tag: values are what clients chose, and what looks
 * like a batch among them is not one, since the salt is not known before it is used. Logs of earlier versions have salt 0.
 *
 * A row is its kind and operands: ids are varints; keys, values and nodes are a length and bytes. Rows are in the order of
 * their commits, so that a later one counts. Batches of earlier versions have words of graph ops (u32 each) after their
 * rows instead, and their number in place of the 0.
 */
import { crc32 } from 'node:zlib';
import { unknownError } from '../../../errors.js';
import type { Key } from '../../contract.js';
import { type Commit, type EntryChange, type LinkKey, NO_ID } from '../../core/storage.js';
import { ByteReader, ByteWriter, DamagedBytes } from '../../schema/bytes.js';
import type { ChildLink, WithFormerChildren } from '../codec/child-links.js';
import { encodeKey, encodeLink } from '../codec/key-codec.js';
import { encodeNode } from '../codec/node-codec.js';
import type { PackedOps } from '../codec/packed-ops.js';

const RowKind = {
  /** id, node: a node whose key keeps its id. */
  node: 1,
  /** id, node: and its key gets this id. */
  newNode: 2,
  /** id: of the node and its key. */
  nodeTombstone: 3,
  /** key, value: a record that is not a node. */
  inline: 4,
  /** key. */
  inlineTombstone: 5,
  /** link. */
  link: 6,
  linkTombstone: 7,
  /** key, f64. */
  counter: 8,
  counterTombstone: 9,
  /** id, id: of a link from a node to its child. */
  childTombstone: 10,
  /** Number of words, length, words as varints. */
  graphOps: 11,
} as const;

export const BATCH_HEAD_BYTES = 40;
export const BATCH_MAGIC = 0x3147_4c45;
/** Offset of what the checksum covers. */
const CHECKED_FROM = 16;

export interface Batch {
  readonly previous: number;
  readonly revision: number;
  readonly recordDelta: number;
  readonly rows: Buffer;
  /** Graph ops of an earlier version. */
  readonly words: Buffer;
}

export type LoggedCommit = Commit & WithFormerChildren;

// --------------------------------------------------------------------------------------------------------- writing

const SCRATCH_BYTES = 16 * 1024;
/** One large commit must not keep its memory for good. */
const SCRATCH_KEPT_BYTES = 1024 * 1024;
const NOTHING = Buffer.alloc(0);

/** What becomes one batch: commits are encoded as they come, so that nothing holds on to them. */
export class BatchBuilder {
  readonly #rows = new ByteWriter(SCRATCH_BYTES);
  readonly #ops = new ByteWriter(SCRATCH_BYTES);
  #words = 0;
  /** Commits so far, the changes of records and links in them, and what they add to the number of records. */
  commits = 0;
  changes = 0;
  recordDelta = 0;
  /** Of the newest commit. */
  revision = 0;

  add({ revision, entries, links, formerChildren, counters, ops, recordDelta }: LoggedCommit): void {
    for (const [key, entry] of entries) this.#change(key, entry);
    for (const [key, present] of links) this.#link(key, present);
    for (const link of formerChildren) this.#formerChild(link);
    for (const [name, value] of counters) this.#counter(name, value);
    this.#ops.varints(ops);
    this.#words += ops.length;
    this.commits++;
    this.changes += entries.size + links.size + formerChildren.length;
    this.recordDelta += recordDelta;
    this.revision = revision;
  }

  /**
   * The batch in a buffer of its own, whose head still lacks what `sealBatch` adds. `previous` is the revision before
   * its first commit.
   */
  finish(previous: number): Buffer {
    if (this.#words > 0) {
      this.#rows.byte(RowKind.graphOps);
      this.#rows.varint(this.#words);
      this.#rows.varint(this.#ops.length);
    }
    const opsStart = BATCH_HEAD_BYTES + this.#rows.length;
    const batch = Buffer.allocUnsafeSlow(opsStart + this.#ops.length);
    this.#rows.copyTo(batch, BATCH_HEAD_BYTES);
    this.#ops.copyTo(batch, opsStart);
    batch.writeUInt32LE(BATCH_MAGIC, 0);
    batch.writeUInt32LE(batch.length - BATCH_HEAD_BYTES, 8);
    batch.writeDoubleLE(previous, 16);
    batch.writeDoubleLE(this.revision, 24);
    batch.writeInt32LE(this.recordDelta, 32);
    batch.writeUInt32LE(0, 36);
    return batch;
  }

  /** Makes it good for another batch; false when it has grown too large to be kept. */
  clear(): boolean {
    this.#rows.clear();
    this.#ops.clear();
    this.#words = 0;
    this.commits = 0;
    this.changes = 0;
    this.recordDelta = 0;
    return this.#rows.capacity + this.#ops.capacity <= SCRATCH_KEPT_BYTES;
  }

  #change(key: Key, { before, after }: EntryChange): void {
    const rows = this.#rows;
    const beforeId = before?.id ?? NO_ID;
    const afterId = after?.id ?? NO_ID;
    if (beforeId !== NO_ID && beforeId !== afterId) {
      rows.byte(RowKind.nodeTombstone);
      rows.varint(beforeId);
    }
    if (before !== undefined && beforeId === NO_ID && (after === undefined || afterId !== NO_ID)) {
      rows.byte(RowKind.inlineTombstone);
      this.#bytes(encodeKey(key));
    }
    if (after === undefined) return;
    if (afterId === NO_ID) {
      rows.byte(RowKind.inline);
      this.#bytes(encodeKey(key));
      this.#bytes(after.bytes ?? NOTHING);
    } else {
      rows.byte(beforeId === afterId ? RowKind.node : RowKind.newNode);
      rows.varint(afterId);
      this.#bytes(encodeNode(encodeKey(key), after));
    }
  }

  #link(key: LinkKey, present: boolean): void {
    this.#rows.byte(present ? RowKind.link : RowKind.linkTombstone);
    this.#bytes(encodeLink(key));
  }

  #formerChild({ from, to }: ChildLink): void {
    this.#rows.byte(RowKind.childTombstone);
    this.#rows.varint(from);
    this.#rows.varint(to);
  }

  #counter(name: Key, value: number | undefined): void {
    this.#rows.byte(value === undefined ? RowKind.counterTombstone : RowKind.counter);
    this.#bytes(encodeKey(name));
    if (value !== undefined) this.#rows.double(value);
  }

  #bytes(value: Uint8Array): void {
    this.#rows.varint(value.length);
    this.#rows.bytes(value);
  }
}

/** Completes a batch for its place in the log. */
export function sealBatch(batch: Buffer, tag: number): void {
  batch.writeUInt32LE(tag, 4);
  batch.writeUInt32LE(checksum(batch, tag), 12);
}

/** Where a generation begins. */
export interface Mark {
  readonly generation: number;
  /** Of the newest commit in the log then. */
  readonly revision: number;
  readonly salt: number;
}

/** Of the batches of a generation. */
export const tagOf = ({ generation, salt }: Pick<Mark, 'generation' | 'salt'>): number =>
  (generation ^ salt) >>> 0;

/** `isLeft`: there is a newer generation, without which commits are missing. */
export function encodeMark({ generation, revision, salt }: Mark, isLeft: boolean): Buffer {
  const mark = Buffer.alloc(BATCH_HEAD_BYTES);
  mark.writeUInt32LE(BATCH_MAGIC, 0);
  mark.writeDoubleLE(revision, 16);
  mark.writeDoubleLE(revision, 24);
  mark.writeInt32LE(isLeft ? 1 : 0, 32);
  mark.writeUInt32LE(salt, 36);
  sealBatch(mark, generation);
  return mark;
}

const checksum = (batch: Buffer, tag: number): number => crc32(batch.subarray(CHECKED_FROM), tag);

// --------------------------------------------------------------------------------------------------------- reading

export const batchRevision = (batch: Buffer): number => batch.readDoubleLE(24);

export const isMark = (batch: Buffer): boolean =>
  batch.length === BATCH_HEAD_BYTES && batch.readDoubleLE(16) === batchRevision(batch);

export const isLeft = (mark: Buffer): boolean => isMark(mark) && mark.readInt32LE(32) === 1;

/** Whether the first bytes of a file are this mark, whatever it says of the other file. */
export const isOfMark = (head: Buffer, { generation, salt }: Mark): boolean =>
  head.readUInt32LE(0) === BATCH_MAGIC &&
  head.readUInt32LE(4) === generation &&
  head.readUInt32LE(36) === salt;

export const decodeMark = (mark: Buffer): Mark => ({
  generation: mark.readUInt32LE(4),
  revision: batchRevision(mark),
  salt: mark.readUInt32LE(36),
});

/** Checksum of a range of the log, as zlib continues `seed`. */
export type Checksum = (start: number, end: number, seed: number) => number;

/**
 * The whole batch at an offset, with its tag; undefined when there is none or it is torn. `of` spares callers that ask for many
 * offsets to read the bytes for each.
 */
export function batchAt(
  log: Buffer,
  offset: number,
  of: Checksum = (start, end, seed) => crc32(log.subarray(start, end), seed),
): { tag: number; batch: Buffer } | undefined {
  if (offset + BATCH_HEAD_BYTES > log.length || log.readUInt32LE(offset) !== BATCH_MAGIC) return undefined;
  const tag = log.readUInt32LE(offset + 4);
  const end = offset + BATCH_HEAD_BYTES + log.readUInt32LE(offset + 8);
  if (end > log.length) return undefined;
  const batch = log.subarray(offset, end);
  if (!isMark(batch) && batch.readUInt32LE(36) * 4 > batch.length - BATCH_HEAD_BYTES) return undefined;
  if (batch.readUInt32LE(12) !== of(offset + CHECKED_FROM, end, tag)) return undefined;
  return { tag, batch };
}

/** Takes a batch apart. REQUIRES: it is whole, as `batchAt` and `BatchBuilder` return it. */
export function openBatch(batch: Buffer): Batch {
  const rowsEnd = batch.length - batch.readUInt32LE(36) * 4;
  return {
    previous: batch.readDoubleLE(16),
    revision: batch.readDoubleLE(24),
    recordDelta: batch.readInt32LE(32),
    rows: batch.subarray(BATCH_HEAD_BYTES, rowsEnd),
    words: batch.subarray(rowsEnd),
  };
}

/** Called with each row; buffers are parts of the batch. */
export interface RowVisitor {
  node(id: number, node: Buffer, isNew: boolean): void;
  nodeTombstone(id: number): void;
  /** Without a value: gone. */
  inline(key: Buffer, value: Buffer | undefined): void;
  link(link: Buffer, present: boolean): void;
  counter(name: Buffer, value: number | undefined): void;
  /** A link between nodes, by their ids, is gone. */
  childTombstone(from: number, to: number): void;
  graphOps(ops: PackedOps): void;
}

/** Unknown: damaged. */
export function visitRows({ rows, words }: Batch, visitor: RowVisitor): void {
  const reader = new ByteReader();
  reader.over(rows, 0, rows.length);
  if (words.length > 0) visitor.graphOps(packedOps(words));
  try {
    while (!reader.atEnd) visitRow(reader, visitor);
  } catch (error) {
    if (!(error instanceof DamagedBytes)) throw error;
    throw unknownError(`a batch of the write-ahead log is damaged: ${error.message}`, {
      remedy: 'restore the store from a copy',
    });
  }
}

function packedOps(words: Buffer): PackedOps {
  const ops = new Uint32Array(words.length / 4);
  new Uint8Array(ops.buffer).set(words);
  const writer = new ByteWriter(words.length);
  writer.varints(ops);
  return { words: ops.length, bytes: writer.take() };
}

function visitRow(reader: ByteReader, visitor: RowVisitor): void {
  const kind = reader.byte();
  const bytes = (): Buffer => reader.slice(reader.varint());
  switch (kind) {
    case RowKind.node:
    case RowKind.newNode:
      visitor.node(reader.varint(), bytes(), kind === RowKind.newNode);
      break;
    case RowKind.nodeTombstone:
      visitor.nodeTombstone(reader.varint());
      break;
    case RowKind.inline:
      visitor.inline(bytes(), bytes());
      break;
    case RowKind.inlineTombstone:
      visitor.inline(bytes(), undefined);
      break;
    case RowKind.link:
    case RowKind.linkTombstone:
      visitor.link(bytes(), kind === RowKind.link);
      break;
    case RowKind.counter:
      visitor.counter(bytes(), reader.double());
      break;
    case RowKind.counterTombstone:
      visitor.counter(bytes(), undefined);
      break;
    case RowKind.childTombstone:
      visitor.childTombstone(reader.varint(), reader.varint());
      break;
    case RowKind.graphOps:
      visitor.graphOps({ words: reader.varint(), bytes: bytes() });
      break;
    default:
      throw new DamagedBytes(`row kind ${kind} is unknown`);
  }
}
