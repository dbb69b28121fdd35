/**
 * The metadata of a snapshotter with very many snapshots, read by a thread of its own, while others read containerd's records. Called by
 * open.ts; the thread is snapshots-thread.ts.
 */
import { stat } from 'node:fs/promises';
import type { Worker } from 'node:worker_threads';
import { startThread } from '../../system/threads.js';
import type { Complain } from '../fields.js';
import type { SnapshotColumns } from './snapshot-table.js';

/** Of some 200,000 snapshots: for less, to start a thread takes longer than what it saves. */
const FILE_BYTES_MIN = 1024 * 1024 * 1024;

/** What the thread answers. */
export interface Answer {
  readonly columns: SnapshotColumns;
  readonly complaints: readonly string[];
}

export interface BesideOptions {
  readonly signal?: AbortSignal | undefined;
  readonly bytesMin?: number;
}

export class SnapshotsBeside implements AsyncDisposable {
  readonly #path: string;
  readonly #worker: Worker;
  readonly #answer: Promise<Answer | undefined>;

  private constructor(path: string, signal: AbortSignal | undefined) {
    this.#path = path;
    const worker = startThread(new URL('./snapshots-thread.js', import.meta.url), { workerData: path });
    this.#worker = worker;
    this.#answer = new Promise((resolve) => {
      worker.once('message', resolve);
      // What went wrong is said when it is read again.
      for (const end of ['error', 'exit']) worker.once(end, () => resolve(undefined));
    });
    signal?.addEventListener('abort', () => void worker.terminate(), { once: true });
  }

  /** For the largest of these files; undefined if that is not large, or no thread can start. */
  static async start(
    paths: readonly string[],
    { signal, bytesMin = FILE_BYTES_MIN }: BesideOptions = {},
  ): Promise<SnapshotsBeside | undefined> {
    const sizes = await Promise.all(
      paths.map((path) =>
        stat(path).then(
          ({ size }) => size,
          () => 0,
        ),
      ),
    );
    const largest = sizes.reduce((most, size) => Math.max(most, size), 0);
    if (largest < bytesMin || signal?.aborted === true) return undefined;
    try {
      return new SnapshotsBeside(paths[sizes.indexOf(largest)] ?? '', signal);
    } catch {
      return undefined;
    }
  }

  /** Undefined if it is not this file, or could not be read. */
  async columns(path: string, complain: Complain): Promise<SnapshotColumns | undefined> {
    if (path !== this.#path) return undefined;
    const answer = await this.#answer;
    answer?.complaints.forEach(complain);
    return answer?.columns;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}
