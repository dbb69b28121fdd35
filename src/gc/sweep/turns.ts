/**
 * Keeps a long loop from holding the thread: by time, because the first rounds of a loop, before it is compiled, take ten
 * times as long as later ones. Used by the backend sweeps.
 */
import { breathe } from '../../backends/files.js';
import type { Engine } from '../../engine/contract.js';

/** Several sweeps share a turn of the event loop, and who waits for the disk needs two or three turns. */
const TURN_MS = 0.5;

export class Turns {
  readonly #engine: Engine;
  #start = performance.now();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Whether others should have their turn now: await `pass()`. */
  get isOver(): boolean {
    return performance.now() - this.#start > TURN_MS;
  }

  async pass(): Promise<void> {
    await breathe();
    await this.#engine.quiet();
    this.#start = performance.now();
  }
}
