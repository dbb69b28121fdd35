/**
 * Accepted connections that wait to be served, one every few milliseconds: those of a process that keeps
 * reconnecting, and those for which only a connection of their own process could make room. Nothing is read
 * from them while they wait. So a client that reconnects whenever it is dropped costs little, and others,
 * which do not wait here, do not queue after it in the kernel. Processes take turns, and none keeps another
 * out. Called by listener.ts.
 */

/** Connections of one process that are served without waiting, in each second. */
const AT_ONCE_MAX = 128;
const WINDOW_MS = 1000;
const SERVED_EVERY_MS = 1000 / AT_ONCE_MAX;

export interface Waiting {
  /** Returns false if there is nothing to serve, because the peer has gone. */
  serve(): boolean;
  /** Too many wait. */
  refuse(): void;
  close(): void;
}

export class AcceptQueue {
  readonly #max: number;
  /** Of each process, in the order of their turns. */
  readonly #waiting = new Map<number, Waiting[]>();
  #size = 0;
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

  /**
   * Serves it later. When too many wait, one is refused: this one, or the newest of a process that has more
   * waiting.
   */
  add(pid: number, waiting: Waiting): void {
    if (this.#size >= this.#max && !this.#makeRoom(pid)) {
      waiting.refuse();
      return;
    }
    const own = this.#waiting.get(pid);
    if (own === undefined) this.#waiting.set(pid, [waiting]);
    else own.push(waiting);
    this.#size++;
    this.#timer ??= setInterval(() => this.#next(), SERVED_EVERY_MS);
  }

  /** Closes all that wait. */
  close(): void {
    this.#stop();
    for (const all of this.#waiting.values()) for (const one of all) one.close();
    this.#waiting.clear();
    this.#size = 0;
  }

  #makeRoom(pid: number): boolean {
    let most = this.#waiting.get(pid) ?? [];
    let others = false;
    for (const all of this.#waiting.values()) {
      if (all.length > most.length + (others ? 0 : 1)) [most, others] = [all, true];
    }
    if (!others) return false;
    most.pop()?.refuse();
    this.#size--;
    return true;
  }

  #next(): void {
    for (const [pid, all] of this.#waiting) {
      const one = all.shift();
      // The next turn is another process's.
      this.#waiting.delete(pid);
      if (all.length > 0) this.#waiting.set(pid, all);
      if (one === undefined) continue;
      this.#size--;
      if (one.serve()) return;
    }
    if (this.#size === 0) this.#stop();
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
