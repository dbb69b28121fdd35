/**
 * Flushes batches of the log to the tree: many become one LMDB transaction, whose rows are sorted, so that neighbours share
 * the pages they touch. Called by the flush worker, and by the thread that owns the store when that does not run.
 * REQUIRES: nothing else writes to the file.
 *
 * Durability: a transaction is on disk when the call returns. Records, links and the graph journal of a commit are in
 * one transaction, so they never come apart.
 */
import { asBuffer } from '../../core/bytes.js';
import type { DataFile } from '../disk/files.js';
import type { Databases } from '../tree/databases.js';
import { encodeJournal, journalKey } from '../tree/journal.js';
import { openBatch, visitRows } from '../wal/format.js';
import { Rows } from './rows.js';

/** Room for pages that a row may add to the file. */
const ROW_CUSHION_BYTES = 8 * 1024;

/** A write of another kind: parts of a checkpoint, the state of the store, journal entries that are covered. */
export type Job =
  | { into: 'checkpoints' | 'journal'; key: Uint8Array; value: Uint8Array | undefined }
  | { into: 'meta'; key: string; value: Uint8Array };

export interface Flushed {
  revision: number;
  journalBytes: number;
}

/** One transaction with all of the batches, which follow one another. */
export function flushBatches(dbs: Databases, file: DataFile, buffers: readonly Buffer[]): Flushed {
  const batches = buffers.map(openBatch);
  const last = batches[batches.length - 1];
  if (last === undefined) return { revision: 0, journalBytes: 0 };
  // What is read must be what the last transaction left.
  dbs.env.resetReadTxn();
  const rows = new Rows(dbs);
  for (const batch of batches) visitRows(batch, rows);
  const recordDelta = batches.reduce((sum, batch) => sum + batch.recordDelta, 0);
  const entry = encodeJournal(batches[0]?.previous ?? 0, recordDelta, rows.ops);
  dbs.readers?.look();
  file.write(rows.size * ROW_CUSHION_BYTES, () =>
    dbs.env.transactionSync(() => {
      rows.put();
      void dbs.journal.put(journalKey(last.revision), entry);
    }),
  );
  return { revision: last.revision, journalBytes: entry.length };
}

export function runJobs(dbs: Databases, file: DataFile, jobs: readonly Job[]): void {
  const bytes = jobs.reduce((sum, { value }) => sum + (value?.length ?? 0), 0);
  dbs.readers?.look();
  file.write(bytes + jobs.length * ROW_CUSHION_BYTES, () =>
    dbs.env.transactionSync(() => {
      for (const job of jobs) {
        if (job.into === 'meta') void dbs.meta.put(job.key, asBuffer(job.value));
        else if (job.value === undefined) void dbs[job.into].remove(asBuffer(job.key));
        else void dbs[job.into].put(asBuffer(job.key), asBuffer(job.value));
      }
    }),
  );
}
