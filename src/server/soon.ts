/** Something to be done a moment after it was asked for, once for all who ask meanwhile. Called by daemon.ts. */
export class Soon {
  readonly #run: () => Promise<unknown>;
  readonly #delayMs: number;
  #timer: NodeJS.Timeout | undefined;

  /** Failures are the run's own to report. */
  constructor(run: () => Promise<unknown>, delayMs: number) {
    this.#run = run;
    this.#delayMs = delayMs;
  }

  ask(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#run().catch(() => undefined);
    }, this.#delayMs);
    this.#timer.unref();
  }
}
