/**
 * Who may commit now. Normally everybody; a transaction that kept losing conflicts runs alone: until it ends, the
 * commits of others wait in the order they came. Called by engine.ts.
 *
 * A transaction that runs alone for longer than `limitMs` loses the privilege (it may be waiting for something that
 * a waiting commit holds); it then validates like any other and may ask again.
 */
import { abortError } from '../../errors.js';

interface Waiter {
  alone: boolean;
  resume: (turn: Turn) => void;
}

/** Ends a turn; again: nothing. */
export type Turn = () => void;

const nothing: Turn = () => {};

export class Turns {
  readonly #limitMs: number;
  readonly #waiters: Waiter[] = [];
  #holder: object | undefined;

  constructor(limitMs = 1000) {
    this.#limitMs = limitMs;
  }

  /** Whether somebody else runs alone. */
  isBlocked(own: Turn | undefined): boolean {
    return this.#holder !== undefined && this.#holder !== own;
  }

  /** Waits until nobody runs alone. */
  pass(signal?: AbortSignal): Promise<Turn> {
    return this.#wait(false, signal);
  }

  /** Waits for the right to run alone. */
  alone(signal?: AbortSignal): Promise<Turn> {
    return this.#wait(true, signal);
  }

  #wait(alone: boolean, signal: AbortSignal | undefined): Promise<Turn> {
    if (this.#holder === undefined) return Promise.resolve(alone ? this.#hold() : nothing);
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        alone,
        resume: (turn) => {
          signal?.removeEventListener('abort', abort);
          resolve(turn);
        },
      };
      const abort = () => {
        const index = this.#waiters.indexOf(waiter);
        if (index >= 0) this.#waiters.splice(index, 1);
        if (signal !== undefined) reject(abortError(signal));
      };
      if (signal?.aborted) {
        reject(abortError(signal));
        return;
      }
      this.#waiters.push(waiter);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  #hold(): Turn {
    const turn: Turn = () => {
      clearTimeout(timer);
      if (this.#holder !== turn) return;
      this.#holder = undefined;
      this.#next();
    };
    const timer = setTimeout(turn, this.#limitMs);
    this.#holder = turn;
    return turn;
  }

  #next(): void {
    while (this.#holder === undefined) {
      const waiter = this.#waiters.shift();
      if (waiter === undefined) return;
      waiter.resume(waiter.alone ? this.#hold() : nothing);
    }
  }
}
