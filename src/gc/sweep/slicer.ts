/**
 * How much a slice may do: keeps each slice near its time budget, and keeps the account of how long the main
 * thread was held. Used by collect.ts.
 */

const SMALLEST = 8;
const LARGEST = 4096;

/** Milliseconds of a slice while others commit: each of their commits waits for two or three slices. */
const SHARED_BUDGET_MS = 0.7;
/** Slices for which a commit of others counts. */
const SHARED_SLICES = 64;

export class Slicer {
  readonly #ownBudgetMs: number;
  #sharedSlices = 0;
  #size = 64;
  pauseMax = 0;
  pauseTotal = 0;
  slices = 0;

  constructor(budgetMs: number) {
    this.#ownBudgetMs = budgetMs;
  }

  get #budgetMs(): number {
    return this.#sharedSlices > 0 ? Math.min(this.#ownBudgetMs, SHARED_BUDGET_MS) : this.#ownBudgetMs;
  }

  /** Others have committed since the last slice. */
  shared(): void {
    if (this.#sharedSlices === 0) this.#size = Math.max(SMALLEST, Math.floor(this.#size / 3));
    this.#sharedSlices = SHARED_SLICES;
  }

  /** Candidates the next slice should take. */
  get size(): number {
    return this.#size;
  }

  /** Whether a slice that began at `start` (performance.now) should end; leaves half the budget to its commit. */
  isSpent(start: number): boolean {
    return performance.now() - start > this.#budgetMs / 2;
  }

  /** A slice that looked at `done` candidates held the thread for so long; the next one takes more or fewer. */
  ended(done: number, pauseMs: number): void {
    this.slices++;
    if (this.#sharedSlices > 0) this.#sharedSlices--;
    this.paused(pauseMs);
    const perCandidate = pauseMs / Math.max(1, done);
    const fitting = this.#budgetMs / Math.max(perCandidate, 1e-6);
    // Half way to what would have fitted: one slow commit must not halve the speed for long.
    const next = Math.round((this.#size + Math.min(fitting, this.#size * 4)) / 2);
    this.#size = Math.min(LARGEST, Math.max(SMALLEST, next));
  }

  paused(pauseMs: number): void {
    this.pauseTotal += pauseMs;
    if (pauseMs > this.pauseMax) this.pauseMax = pauseMs;
  }

  /** Runs `fn` on the main thread and counts it as a pause. */
  timed<T>(fn: () => T): T {
    const start = performance.now();
    try {
      return fn();
    } finally {
      this.paused(performance.now() - start);
    }
  }
}
