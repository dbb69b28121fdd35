/**
 * Accepted connections that wait to be served, one every few milliseconds: those of a process that keeps
 * reconnecting, and those for which only a connection of their own process could make room. Nothing is read
 * from them while they wait. So a client that reconnects whenever it is dropped costs little, and others,
 * which do not wait here, do not queue after it in the kernel. Called by listener.ts.
 */

/** Connections of one process that are served without waiting, in each second. */
const AT_ONCE_MAX = 128;
const WINDOW_MS = 1000;
const SERVED_EVERY_MS = 1000 / AT_ONCE_MAX;

export class AcceptQueue {
  readonly #max: number;
  readonly #waiting: (() => void)[] = [];
  /** Connections of each process in this window; at most one entry for each connection accepted in it. */
  readonly #made = new Map<number, number>();
  #windowAt = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(max: number) {
    this.#max = max;
  }

  /** Counts a connection of a process, and returns whether it may be served without waiting. */
  mayServe(pid: number): boolean {
    const now = performance.now();
    if (now - this.#windowAt >= WINDOW_MS) {
      this.#windowAt = now;
      this.#made.clear();
    }
    const made = (this.#made.get(pid) ?? 0) + 1;
    this.#made.set(pid, made);
    return made <= AT_ONCE_MAX;
  }

  /** Calls `serve` later, in order. Returns false if too many wait already. */
  add(serve: () => void): boolean {
    if (this.#waiting.length >= this.#max) return false;
    this.#waiting.push(serve);
    this.#timer ??= setInterval(() => this.#next(), SERVED_EVERY_MS);
    return true;
  }

  #next(): void {
    const serve = this.#waiting.shift();
    if (serve !== undefined) serve();
    else this.close();
  }

  /** Drops all that wait. */
  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#waiting.length = 0;
  }
}
