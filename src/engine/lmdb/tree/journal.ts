/**
 * The graph journal: one entry for each transaction of the tree with the graph ops of its commits. Written with the
 * records in one LMDB transaction; read at opening, after the checkpoint. Also where the newest revision and the number
 * of records are.
 *
 *   previous revision in the tree (f64), change in the number of records (i32), number of op words (u32);
 *   little-endian; then the words (packed-ops.ts)
 */
import type { Database } from '../../../system/lmdb/lmdb.js';
import { asBuffer } from '../../core/bytes.js';
import { ByteReader, DamagedBytes } from '../../schema/bytes.js';
import { type PackedOps, readOps } from '../codec/packed-ops.js';

const HEAD_BYTES = 16;

export interface JournalEntry {
  revision: number;
  previous: number;
  recordDelta: number;
  ops: Uint32Array;
}

export function journalKey(revision: number): Buffer {
  const key = Buffer.allocUnsafe(8);
  key.writeBigUInt64BE(BigInt(revision));
  return key;
}

export function encodeJournal(previous: number, recordDelta: number, ops: readonly PackedOps[]): Buffer {
  const head = Buffer.allocUnsafe(HEAD_BYTES);
  head.writeDoubleLE(previous, 0);
  head.writeInt32LE(recordDelta, 8);
  head.writeUInt32LE(
    ops.reduce((sum, { words }) => sum + words, 0),
    12,
  );
  return Buffer.concat([head, ...ops.map(({ bytes }) => bytes)]);
}

/** Entries after a revision, oldest first; undefined stands for a damaged one. */
export function* readJournal(
  db: Database<Uint8Array, Uint8Array>,
  after: number,
): Generator<JournalEntry | undefined> {
  for (const { key, value } of db.getRange({ start: journalKey(after + 1) })) {
    yield decodeJournal(Buffer.from(key), value);
  }
}

const reader = new ByteReader();

function decodeJournal(key: Buffer, value: Uint8Array): JournalEntry | undefined {
  if (key.length !== 8 || value.length < HEAD_BYTES) return undefined;
  const bytes = asBuffer(value);
  reader.over(bytes, HEAD_BYTES, bytes.length);
  try {
    return {
      revision: Number(key.readBigUInt64BE(0)),
      previous: bytes.readDoubleLE(0),
      recordDelta: bytes.readInt32LE(8),
      ops: readOps(reader, bytes.readUInt32LE(12)),
    };
  } catch (error) {
    if (error instanceof DamagedBytes) return undefined;
    throw error;
  }
}
