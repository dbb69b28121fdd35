/**
 * The second of two threads that read the records of one `meta.db`: it fills batches of its leaves, which the first one takes in.
 * Called by load.ts; the thread is lane-thread.ts.
 */
import type { Worker } from 'node:worker_threads';
import type { SharedPages } from '../../bolt/pages.js';
import type { FilledPart } from '../../engine/memory/filling.js';
import { noThread, startThread } from '../../system/threads.js';

/** Leaves in turns. The first thread has less, because it has to take in the others as well. */
export const ROUND = { first: 80, round: 192 };
/** Batches that wait to be taken, at most. */
export const AHEAD = 8;

/** What the thread is given. */
export interface LaneWork {
  readonly pages: SharedPages | undefined;
  readonly root: number;
  /** Of containerd's tree. */
  readonly revision: number;
  readonly entered: Uint8Array;
  /** Batches that were taken: one number. */
  readonly taken: Int32Array<SharedArrayBuffer>;
}

/** What it answers, and undefined at the end. */
export interface Batch {
  readonly part: FilledPart;
  readonly complaints: readonly string[];
}

export class SecondLane implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #taken = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  /** In their order; an error ends them. */
  readonly #batches: (Batch | undefined)[] = [];
  #wake: () => void = () => undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(work: Omit<LaneWork, 'taken'>) {
    const workerData: LaneWork = { ...work, taken: this.#taken };
    this.#worker = startThread(new URL('./lane-thread.js', import.meta.url), { workerData });
    this.#worker.on('message', (batch: Batch | undefined) => {
      this.#batches.push(batch);
      this.#wake();
    });
    const fail = (error: unknown): void => {
      this.#failure ??= { error };
      this.#wake();
    };
    this.#worker.on('error', fail);
    this.#worker.on('exit', () => fail(noThread(new Error('it ended'))));
  }

  /** Undefined after the last one. Throws what the thread threw. */
  async next(): Promise<Batch | undefined> {
    while (this.#batches.length === 0) {
      if (this.#failure !== undefined) throw this.#failure.error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    Atomics.add(this.#taken, 0, 1);
    Atomics.notify(this.#taken, 0);
    return this.#batches.shift();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}
