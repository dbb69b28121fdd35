/**
 * Worker threads of ours, and what it means that none can start: a limit on threads (`ulimit -u`, a unit's TasksMax, a container's
 * pids limit), on descriptors or memory is reached. Called by the flusher, the pool for removals, and what decodes or reports on a
 * thread.
 */
import { Worker, type WorkerOptions } from 'node:worker_threads';
import { EbbtideError, unavailable } from '../errors.js';

const REMEDY =
  'raise the limits of threads (ulimit -u, TasksMax of a unit, pids of a container), open files (ulimit -n) or memory, and try again';

/** Unavailable when it cannot start now; it may end by itself a moment later, with an `error` event. */
export function startThread(script: URL, options: Pick<WorkerOptions, 'workerData'> = {}): Worker {
  try {
    // Not the flags of the process: what says how its main script is to be read would end the thread.
    return new Worker(script, { ...options, execArgv: [] });
  } catch (error) {
    throw noThread(error);
  }
}

/** What to say of a thread that did not start, or ended with this error before its work was done. */
export function noThread(cause: unknown): EbbtideError {
  if (cause instanceof EbbtideError) return cause;
  const text = cause instanceof Error ? cause.message : String(cause);
  return unavailable(`no thread can start: ${text}`, { object: 'thread', remedy: REMEDY, cause });
}

/** The pool's or the system's word that a thread was not even made. */
export const isNoThread = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'ERR_WORKER_INIT_FAILED';
