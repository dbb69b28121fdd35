/**
 * The graph journal: one entry per group of commits with the graph ops it made. Written with the records in one LMDB
 * transaction; read at opening, behind the checkpoint. Also where the newest revision and the number of records are.
 *
 *   previous revision on disk (f64), change in the number of records (i32), op words (u32 each); little-endian
 */
import type { Database } from 'lmdb';
import type { Batch } from './log-format.js';

const HEAD_BYTES = 12;

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

export function encodeJournal(previous: number, commits: readonly Pick<Batch, 'ops' | 'recordDelta'>[]): Buffer {
  const words = commits.reduce((sum, commit) => sum + commit.ops.length, 0);
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + words * 4);
  bytes.writeDoubleLE(previous, 0);
  bytes.writeInt32LE(
    commits.reduce((sum, commit) => sum + commit.recordDelta, 0),
    8,
  );
  let at = HEAD_BYTES;
  for (const { ops } of commits) {
    // Both sides are little-endian on every platform this runs on.
    bytes.set(Buffer.from(ops.buffer, ops.byteOffset, ops.byteLength), at);
    at += ops.byteLength;
  }
  return bytes;
}

/** Entries behind a revision, oldest first; undefined stands for a damaged one. */
export function* readJournal(
  db: Database<Uint8Array, Uint8Array>,
  after: number,
): Generator<JournalEntry | undefined> {
  for (const { key, value } of db.getRange({ start: journalKey(after + 1) })) {
    yield decodeJournal(Buffer.from(key), value);
  }
}

function decodeJournal(key: Buffer, value: Uint8Array): JournalEntry | undefined {
  if (key.length !== 8 || value.length < HEAD_BYTES || value.length % 4 !== 0) return undefined;
  // A copy of its own is aligned, as words must be.
  const copy = Uint8Array.from(value);
  const view = new DataView(copy.buffer);
  return {
    revision: Number(key.readBigUInt64BE(0)),
    previous: view.getFloat64(0, true),
    recordDelta: view.getInt32(8, true),
    ops: new Uint32Array(copy.buffer, HEAD_BYTES),
  };
}
