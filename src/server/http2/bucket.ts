/** A right to do something so often at once, and so often a second from then on. */
export class Bucket {
  readonly #burst: number;
  readonly #perMs: number;
  #left: number;
  #filledAt = performance.now();

  constructor(burst: number, perSecond: number) {
    this.#burst = burst;
    this.#perMs = perSecond / 1000;
    this.#left = burst;
  }

  /** Whether it may be done once more. */
  take(): boolean {
    // The clock is asked only when it matters.
    if (this.#left < 1) {
      const now = performance.now();
      this.#left = Math.min(this.#burst, this.#left + (now - this.#filledAt) * this.#perMs);
      this.#filledAt = now;
    }
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }
}
