/**
 * DiskJobs on worker threads: deleting trees never occupies the main thread. Used by content and snapshotter
 * backends; one pool per DB.
 *
 * Threads start with the first job that is worth one, at most two, and end a while after the last; an idle pool keeps no process
 * alive. Jobs of one stream run in order, on one thread, which streams share when there are more of them. `close` waits for what was
 * handed in: a thread is never ended in the middle of a job.
 */
import { fileURLToPath } from 'node:url';
import type { Piscina } from 'piscina';
import type { DiskJobs, RemovalReport } from '../../backends/contract.js';
import { addReport, emptyReport, removeLittle } from '../../backends/remove-tree.js';
import { failedPrecondition } from '../../errors.js';
import { isNoThread, noThread } from '../../system/threads.js';

/** Trees per task, so that a long job shares its thread with other streams. */
const TREES_PER_TASK = 128;
/** Milliseconds a thread waits for work before it ends. */
const IDLE_TIMEOUT_MS = 60_000;
/** To start a thread takes far longer, of a processor too. */
const INLINE_MS = 4;

/** Worker threads for the disk work of backends. */
export interface DiskPool extends DiskJobs {
  /** Waits for every job handed in, then ends the threads. Again: no error. */
  close(): Promise<void>;
}

/** How many threads there are. */
export interface DiskPoolOptions {
  /** Most threads; default 2. */
  threads?: number;
  /**
   * Milliseconds for which the calling thread removes what is handed in (some dozen files at most, no large one) before a
   * thread is started for it; default 4.
   */
  inlineMs?: number;
}

interface Lane {
  pool: Piscina<string[], RemovalReport>;
  /** Rejects when its thread could not start: what waits for it would wait for good, and the pool starts no other. */
  failed: Promise<never>;
  fail(error: unknown): void;
}

/** Loads the library too: a start need not wait for what is needed when something is removed. */
async function startLane(): Promise<Lane> {
  const { Piscina } = await import('piscina');
  const pool = new Piscina<string[], RemovalReport>({
    filename: fileURLToPath(new URL('./disk-worker.js', import.meta.url)),
    minThreads: 0,
    // A pool that may have more starts the others in callbacks of its own, where a failure is nobody's.
    maxThreads: 1,
    idleTimeout: IDLE_TIMEOUT_MS,
    execArgv: [],
  });
  let fail!: Lane['fail'];
  const failed = new Promise<never>((_, reject) => {
    fail = (error) => reject(noThread(error));
  });
  failed.catch(() => undefined);
  pool.on('error', fail);
  return { pool, failed, fail };
}

async function runOn({ pool, failed, fail }: Lane, paths: string[]): Promise<RemovalReport> {
  try {
    const job = pool.run(paths);
    // It rejects too when its pool is dropped.
    job.catch(() => undefined);
    return await Promise.race([job, failed]);
  } catch (error) {
    if (!isNoThread(error)) throw error;
    fail(error);
    return failed;
  }
}

class PiscinaPool implements DiskPool {
  /** A thread each, as far as it was needed. */
  readonly #lanes: (Promise<Lane> | undefined)[];
  readonly #laneOf = new Map<string, number>();
  readonly #tails = new Map<string, Promise<unknown>>();
  readonly #inlineMs: number;
  #closing: Promise<void> | undefined;

  constructor(threads: number, inlineMs: number) {
    this.#inlineMs = inlineMs;
    this.#lanes = new Array(threads).fill(undefined);
  }

  removeTrees(stream: string, paths: string[]): Promise<RemovalReport> {
    if (this.#closing !== undefined) {
      return Promise.reject(failedPrecondition('the disk pool is closed', { object: stream }));
    }
    const before = this.#tails.get(stream) ?? Promise.resolve();
    const job = before.then(() => this.#run(stream, paths));
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
    for (const lane of this.#lanes) await (await lane?.catch(() => undefined))?.pool.close();
  }

  async #run(stream: string, paths: string[]): Promise<RemovalReport> {
    const total = emptyReport();
    const left = this.#hasThread(stream) ? paths : removeLittle(paths, total, this.#inlineMs);
    for (let at = 0; at < left.length; at += TREES_PER_TASK) {
      addReport(total, await runOn(await this.#lane(stream), left.slice(at, at + TREES_PER_TASK)));
    }
    return total;
  }

  #hasThread(stream: string): boolean {
    return this.#lanes[this.#place(stream)] !== undefined;
  }

  /** Streams take the lanes in turn. */
  #place(stream: string): number {
    const at = this.#laneOf.get(stream) ?? this.#laneOf.size % this.#lanes.length;
    this.#laneOf.set(stream, at);
    return at;
  }

  #lane(stream: string): Promise<Lane> {
    const at = this.#place(stream);
    const lane = this.#lanes[at] ?? startLane();
    if (this.#lanes[at] === undefined) {
      this.#lanes[at] = lane;
      const drop = (): void => {
        // Not closed: the library has the task that found no thread, and would wait for it, or for ever.
        if (this.#lanes[at] === lane) this.#lanes[at] = undefined;
      };
      lane.then(({ failed }) => failed.catch(drop), drop);
    }
    return lane;
  }
}

/** Makes the pool; its threads start with the first work. */
export function createDiskPool(options: DiskPoolOptions = {}): DiskPool {
  return new PiscinaPool(Math.max(1, options.threads ?? 2), options.inlineMs ?? INLINE_MS);
}
