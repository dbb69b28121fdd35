/**
 * Long work on the main thread, whose length others choose (the size of a file, the entries of a directory), in turns: between two
 * of them timers and I/O run, so that a signal of the process is heard, and the work ends when its own signal says so.
 */
import { setImmediate as yieldToOthers } from 'node:timers/promises';
import { throwIfAborted } from '../errors.js';

const TURN_MS = 10;

/** One after each piece of work that is bounded, which may be nothing, or what is to be waited for before the next one. */
export type Steps<T = void> = Generator<Promise<unknown> | undefined, T>;

/** Returns what the steps return; they are ended when the signal is aborted, or one of the promises fails. */
export async function inTurns<T>(steps: Steps<T>, signal?: AbortSignal): Promise<T> {
  const turn = new Turn();
  try {
    for (let step = steps.next(); ; step = steps.next()) {
      if (step.done) return step.value;
      const wait = step.value ?? turn.next();
      if (wait !== undefined) await wait;
      throwIfAborted(signal);
    }
  } finally {
    steps.return(undefined as never);
  }
}

/** For a loop that awaits by itself. */
export class Turn {
  #began = performance.now();

  /** To be awaited after each piece of work. */
  next(): Promise<void> | undefined {
    return performance.now() - this.#began < TURN_MS ? undefined : this.#yield();
  }

  async #yield(): Promise<void> {
    await yieldToOthers();
    this.#began = performance.now();
  }
}
