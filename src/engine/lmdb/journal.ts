/**
 * The graph journal: one entry for each transaction of the tree with the graph ops of its commits. Written with the
 * records in one LMDB transaction; read at opening, after the checkpoint. Also where the newest revision and the number
 * of records are.
 *
 *   previous revision in the tree (f64), change in the number of records (i32), number of op words (u32);
 *   little-endian; then the words as varints, most of which take one byte or three: coded here, since `ByteReader`, whose
 *   varints go up to 2^53, takes twice the time
 */
import type { Database } from '../../system/lmdb.js';
import type { Batch } from './wal-format.js';

const HEAD_BYTES = 16;
const VARINT_BYTES_MAX = 5;

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

export function encodeJournal(
  previous: number,
  commits: readonly Pick<Batch, 'ops' | 'recordDelta'>[],
): Buffer {
  const words = commits.reduce((sum, commit) => sum + commit.ops.length, 0);
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + words * VARINT_BYTES_MAX);
  bytes.writeDoubleLE(previous, 0);
  bytes.writeInt32LE(
    commits.reduce((sum, commit) => sum + commit.recordDelta, 0),
    8,
  );
  bytes.writeUInt32LE(words, 12);
  let at = HEAD_BYTES;
  for (const { ops } of commits) {
    for (let rest of ops) {
      for (; rest > 0x7f; rest >>>= 7) bytes[at++] = (rest & 0x7f) | 0x80;
      bytes[at++] = rest;
    }
  }
  return bytes.subarray(0, at);
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

function decodeJournal(key: Buffer, value: Uint8Array): JournalEntry | undefined {
  if (key.length !== 8 || value.length < HEAD_BYTES) return undefined;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const words = view.getUint32(12, true);
  if (words > value.length - HEAD_BYTES) return undefined;
  const ops = new Uint32Array(words);
  let at = HEAD_BYTES;
  for (let i = 0; i < words; i++) {
    let word = 0;
    let shift = 0;
    for (; shift < 35; shift += 7) {
      const byte = value[at++];
      if (byte === undefined) return undefined;
      word |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    if (shift === 35) return undefined;
    ops[i] = word;
  }
  if (at !== value.length) return undefined;
  return {
    revision: Number(key.readBigUInt64BE(0)),
    previous: view.getFloat64(0, true),
    recordDelta: view.getInt32(8, true),
    ops,
  };
}
