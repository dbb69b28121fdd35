/** A token bucket: a burst, and a rate per second. */
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

  /** Takes a token; returns false if there is none. */
  take(): boolean {
    // Reads the clock only when it matters.
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
