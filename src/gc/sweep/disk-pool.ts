/**
 * DiskJobs on worker threads: deleting trees never occupies the main thread. Used by content and snapshotter
 * backends; one pool per DB.
 *
 * Threads start with the first job, at most two, and end a while after the last; an idle pool keeps no process
 * alive. Jobs of one stream run in order; streams do not wait for one another. `close` waits for what was
 * handed in: a thread is never ended in the middle of a job.
 */
import { fileURLToPath } from 'node:url';
import type { Piscina } from 'piscina';
import type { DiskJobs, RemovalReport } from '../../backends/contract.js';
import { addReport, emptyReport } from '../../backends/remove-tree.js';
import { failedPrecondition, unavailable } from '../../errors.js';

/** Trees per task, so that a long job shares its thread with other streams. */
const TREES_PER_TASK = 128;
/** Milliseconds a thread waits for work before it ends. */
const IDLE_TIMEOUT_MS = 60_000;

/** Worker threads for the disk work of backends. */
export interface DiskPool extends DiskJobs {
  /** Waits for every job handed in, then ends the threads. Again: no error. */
  close(): Promise<void>;
}

/** How many threads there are. */
export interface DiskPoolOptions {
  /** Most threads; default 2. */
  threads?: number;
}

interface Threads {
  pool: Piscina<string[], RemovalReport>;
  /** Rejects when a thread could not start: what waits for one would wait for good, and the pool starts no other. */
  failed: Promise<never>;
}

const REMEDY =
  'raise the limits of open files (ulimit -n), threads or memory; the next collection tries again';

/** Loads the library too: a start need not wait for what is needed when something is removed. */
async function startPool(threads: number): Promise<Threads> {
  const { Piscina } = await import('piscina');
  const pool = new Piscina<string[], RemovalReport>({
    filename: fileURLToPath(new URL('./disk-worker.js', import.meta.url)),
    minThreads: 0,
    maxThreads: threads,
    idleTimeout: IDLE_TIMEOUT_MS,
    execArgv: [],
  });
  const failed = new Promise<never>((_, reject) => {
    pool.on('error', (error: Error) => {
      reject(
        unavailable(`no thread for removals could start: ${error.message}`, {
          object: 'disk',
          remedy: REMEDY,
        }),
      );
    });
  });
  failed.catch(() => undefined);
  return { pool, failed };
}

class PiscinaPool implements DiskPool {
  readonly #threads: number;
  readonly #tails = new Map<string, Promise<unknown>>();
  #pool: Promise<Threads> | undefined;
  #closing: Promise<void> | undefined;

  constructor(threads: number) {
    this.#threads = threads;
  }

  removeTrees(stream: string, paths: string[]): Promise<RemovalReport> {
    if (this.#closing !== undefined) {
      return Promise.reject(failedPrecondition('the disk pool is closed', { object: stream }));
    }
    const before = this.#tails.get(stream) ?? Promise.resolve();
    const job = before.then(() => this.#run(paths));
    const tail = job
      .catch(() => undefined)
      .then(() => {
        if (this.#tails.get(stream) === tail) this.#tails.delete(stream);
      });
    this.#tails.set(stream, tail);
    return job;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.all(this.#tails.values());
    await (await this.#pool?.catch(() => undefined))?.pool.close();
  }

  async #run(paths: string[]): Promise<RemovalReport> {
    const total = emptyReport();
    for (let at = 0; at < paths.length; at += TREES_PER_TASK) {
      const { pool, failed } = await this.#started();
      const job = pool.run(paths.slice(at, at + TREES_PER_TASK));
      // It rejects too when its pool is dropped.
      job.catch(() => undefined);
      addReport(total, await Promise.race([job, failed]));
    }
    return total;
  }

  #started(): Promise<Threads> {
    if (this.#pool === undefined) {
      const starting = startPool(this.#threads);
      this.#pool = starting;
      const drop = (): void => {
        if (this.#pool === starting) this.#pool = undefined;
      };
      starting.then(
        ({ pool, failed }) =>
          failed.catch(() => {
            drop();
            // What runs there ends by itself; what waits has been rejected.
            pool.close().catch(() => undefined);
          }),
        drop,
      );
    }
    return this.#pool;
  }
}

/** Makes the pool; its threads start with the first work. */
export function createDiskPool(options: DiskPoolOptions = {}): DiskPool {
  return new PiscinaPool(Math.max(1, options.threads ?? 2));
}
