/**
 * Zstandard blocks decoded in JavaScript (fzstd), where libzstd is not available. On a thread of its own for
 * each stream: fzstd does not bound the work of a block, so a hostile one costs a thread and ends in an
 * error. Frame checksums are not compared: the reader of a layer compares the digest of the output.
 */
import type { Worker } from 'node:worker_threads';
import { startThread } from '../../../system/threads.js';
import { type BlockDecoder, type Blocks, damaged } from './zstd-blocks.js';
import type { DecodedBlocks } from './zstd-worker.js';

interface Waiting {
  resolve: (data: Uint8Array) => void;
  reject: (error: unknown) => void;
}

/** Started with the first block. */
export class FallbackDecoder implements BlockDecoder {
  readonly #timeoutMs: number;
  readonly #waiting: Waiting[] = [];
  #worker: Worker | undefined;
  #watchdog: NodeJS.Timeout | undefined;

  /** @param timeoutMs limit for one call; valid blocks take milliseconds */
  constructor(timeoutMs = 30_000) {
    this.#timeoutMs = timeoutMs;
  }

  decode(blocks: Blocks): Promise<Uint8Array> {
    this.#worker ??= this.#start();
    const worker = this.#worker;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#watchdog ??= this.#watch();
      worker.postMessage(blocks);
    });
  }

  async close(): Promise<void> {
    this.#failAll(damaged('reading it was aborted'));
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = startThread(new URL('./zstd-worker.js', import.meta.url));
    worker.on('message', (result: DecodedBlocks) => this.#finished(result));
    worker.on('error', (error) => this.#failAll(error));
    worker.on('exit', () => this.#failAll(new Error('the zstd thread ended')));
    return worker;
  }

  #finished(result: DecodedBlocks): void {
    clearTimeout(this.#watchdog);
    const waiting = this.#waiting.shift();
    this.#watchdog = this.#waiting.length > 0 ? this.#watch() : undefined;
    if ('data' in result) waiting?.resolve(result.data);
    else waiting?.reject(damaged(result.error));
  }

  #watch(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#failAll(damaged(`a block took longer than ${this.#timeoutMs} ms to decompress`));
      void this.#worker?.terminate();
    }, this.#timeoutMs);
  }

  #failAll(error: unknown): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = undefined;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}
