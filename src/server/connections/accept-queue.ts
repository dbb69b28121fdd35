/**
 * Connections that were accepted and wait to be served, one every few milliseconds: those of a process that connects again
 * and again, and those for which only a connection of their own process could make room. While they wait nothing is read
 * of them, so that whoever connects anew whenever it is dropped costs little, and others, who do not wait here, do not
 * stand behind it in the kernel's queue. Called by listener.ts.
 */

/** Connections of one process that are served at once, in a second. */
const AT_ONCE_MAX = 128;
const WINDOW_MS = 1000;
const SERVED_EVERY_MS = 1000 / AT_ONCE_MAX;

export class AcceptQueue {
  readonly #max: number;
  readonly #waiting: (() => void)[] = [];
  /** How many each process has made in this window; as many entries as connections were accepted in it, at most. */
  readonly #made = new Map<number, number>();
  #windowAt = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(max: number) {
    this.#max = max;
  }

  /** Counts a connection of a process, and tells whether it may be served at once. */
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

  /** Calls `serve` when its turn comes. False: too many wait already. */
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

  /** Forgets all that wait. */
  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#waiting.length = 0;
  }
}
