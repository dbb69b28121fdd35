/**
 * Which transaction runs alone. Normally none does; one that kept losing conflicts may: until it ends, the commits of
 * others wait in the order they came. Called by update-loop.ts.
 *
 * A transaction that runs alone for longer than `limitMs` loses the privilege (it may be waiting for something that
 * a waiting commit holds); it then validates like any other and may ask again.
 */
import { abortError } from '../../errors.js';

/** Ends an exclusive run; again: nothing. */
export type EndRun = () => void;

interface Waiter {
  alone: boolean;
  resume: (end: EndRun) => void;
}

const nothing: EndRun = () => {};

export class ExclusiveRuns {
  readonly #limitMs: number;
  readonly #waiters: Waiter[] = [];
  #running: EndRun | undefined;

  constructor(limitMs = 1000) {
    this.#limitMs = limitMs;
  }

  /** Whether another transaction than `own` runs alone. */
  isBlocked(own: EndRun | undefined): boolean {
    return this.#running !== undefined && this.#running !== own;
  }

  /** Waits until none runs alone; when this resolves another one may have begun. */
  async pass(signal?: AbortSignal): Promise<void> {
    await this.#wait(false, signal);
  }

  /** Waits for the right to run alone. */
  begin(signal?: AbortSignal): Promise<EndRun> {
    return this.#wait(true, signal);
  }

  #wait(alone: boolean, signal: AbortSignal | undefined): Promise<EndRun> {
    if (this.#running === undefined) return Promise.resolve(alone ? this.#begin() : nothing);
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        alone,
        resume: (end) => {
          signal?.removeEventListener('abort', abort);
          resolve(end);
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

  #begin(): EndRun {
    const end: EndRun = () => {
      clearTimeout(timer);
      if (this.#running !== end) return;
      this.#running = undefined;
      this.#next();
    };
    const timer = setTimeout(end, this.#limitMs);
    this.#running = end;
    return end;
  }

  #next(): void {
    while (this.#running === undefined) {
      const waiter = this.#waiters.shift();
      if (waiter === undefined) return;
      waiter.resume(waiter.alone ? this.#begin() : nothing);
    }
  }
}
