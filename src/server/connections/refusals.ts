/**
 * Logs refused connections: the first at once, later ones summed up, so that a client that floods the socket
 * does not flood the log. Called by daemon.ts.
 */
const SUM_MS = 10_000;

export class Refusals {
  readonly #report: (counts: Readonly<Record<string, number>>) => void;
  #counts: Record<string, number> = {};
  #timer: NodeJS.Timeout | undefined;

  constructor(report: (counts: Readonly<Record<string, number>>) => void) {
    this.#report = report;
  }

  count(reason: string): void {
    this.#counts[reason] = (this.#counts[reason] ?? 0) + 1;
    if (this.#timer !== undefined) return;
    this.#flush();
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#flush();
    }, SUM_MS);
    this.#timer.unref();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#flush();
  }

  #flush(): void {
    if (Object.keys(this.#counts).length === 0) return;
    this.#report(this.#counts);
    this.#counts = {};
  }
}
