/**
 * The thread that writes the tree while a store is in use: applies batches, runs jobs and looks keys up, one request
 * after the other, as flusher.ts sends them. No other thread writes to the file while it runs.
 *
 * Ending the process in the middle of an LMDB write transaction would hang it, so `flags` says when one is open, and no
 * new one begins once the process is on its way out.
 */
import { readlinkSync } from 'node:fs';
import { setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { lmdbSays } from '../../../system/lmdb/lmdb.js';
import { DataFile } from '../disk/files.js';
import { writeError } from '../disk/write-error.js';
import { openDatabases } from '../tree/databases.js';
import { possibleIds } from '../tree/key-index.js';
import { flushBatches, runJobs } from './flush.js';
import type { Request, Response, WorkerData } from './flusher.js';
import { Flag } from './flusher.js';

const NICE = 5;
giveWay();
const { path, shared, written } = workerData as WorkerData; // only flusher.ts starts this
const flags = new Int32Array(shared);
const dbs = await openDatabases(path, false);
const file = new DataFile(path, false, written);

/** Other threads that wait for a processor go before this one; it still gets about a quarter of a busy one. */
function giveWay(): void {
  try {
    const tid = Number(readlinkSync('/proc/thread-self').split('/')[2]);
    if (tid > 0) setPriority(tid, NICE);
  } catch {
    // Without /proc, or where it is not allowed, it is as important as the others.
  }
}

function respond(request: Request): Response {
  Atomics.store(flags, Flag.busy, 1);
  try {
    if (Atomics.load(flags, Flag.ending) === 1) return { error: 'the process is ending' };
    if (request.kind === 'jobs') {
      runJobs(dbs, file, request.jobs);
      return { revision: 0, journalBytes: 0 };
    }
    if (request.kind === 'ids') {
      dbs.env.resetReadTxn();
      return { ids: possibleIds(dbs, request.prefixes, request.leaves) };
    }
    return flushBatches(
      dbs,
      file,
      request.batches.map((batch) => Buffer.from(batch)),
    );
  } catch (error) {
    const { message, remedy } = writeError(path, error);
    return { error: message + lmdbSays(), remedy };
  } finally {
    Atomics.store(flags, Flag.busy, 0);
    Atomics.notify(flags, Flag.busy);
  }
}

parentPort?.on('message', (request: Request | { kind: 'stop' }) => {
  if (request.kind !== 'stop') {
    parentPort?.postMessage(respond(request));
    return;
  }
  parentPort?.close();
  file.release();
  void dbs.env.close();
});
