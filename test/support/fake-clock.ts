/** A clock whose time moves only when a test says so; timers fire in order, promises settle in between. */
import type { Clock } from '../../src/gc/schedule/scheduler.js';

interface Timer {
  readonly at: number;
  readonly fn: () => void;
}

export class FakeClock implements Clock {
  #time = 1000;
  #timers: Timer[] = [];

  now(): number {
    return this.#time;
  }

  setTimeout(fn: () => void, ms: number): unknown {
    const timer = { at: this.#time + ms, fn };
    this.#timers.push(timer);
    return timer;
  }

  clearTimeout(timer: unknown): void {
    this.#timers = this.#timers.filter((t) => t !== timer);
  }

  /** Time of the earliest timer, relative to now; undefined without one. */
  get due(): number | undefined {
    if (this.#timers.length === 0) return undefined;
    return Math.min(...this.#timers.map(({ at }) => at)) - this.#time;
  }

  /** Lets promises settle without moving time. */
  async settle(): Promise<void> {
    for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Moves on, firing what becomes due on the way. */
  async advance(ms: number): Promise<void> {
    await this.settle();
    const end = this.#time + ms;
    for (;;) {
      const next = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#time = Math.max(this.#time, next.at);
      this.clearTimeout(next);
      next.fn();
      await this.settle();
    }
    this.#time = end;
  }
}
