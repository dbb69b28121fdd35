/**
 * Keeps a long loop from holding the thread: by time, because the first rounds of a loop, before it is compiled, take ten
 * times as long as later ones. Used by the backend sweeps.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import type { Engine } from '../../engine/contract.js';

/** Several sweeps share the event loop, and a caller that waits for the disk needs two or three rounds of it. */
const RUN_MS = 0.5;

export class LoopPacer {
  readonly #engine: Engine;
  #start = performance.now();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Whether the loop has to `pause()` now. */
  get isDue(): boolean {
    return performance.now() - this.#start > RUN_MS;
  }

  async pause(): Promise<void> {
    await yieldToEventLoop();
    await this.#engine.foregroundDone();
    this.#start = performance.now();
  }
}
