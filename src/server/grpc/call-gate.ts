/**
 * Calls of one connection that services work on. A call that its client has given up, or that was ended for a mistake or
 * a deadline, counts until its service is done with it: opening and dropping calls gives nobody more work than its share.
 * Calls beyond wait here, and cost nothing when they are given up before they begin. Called by exchange.ts.
 */

export class CallGate {
  readonly #max: number;
  readonly #waiting = new Map<object, () => void>();
  #running = 0;
  #admitting = false;

  constructor(max: number) {
    this.#max = max;
  }

  get running(): number {
    return this.#running;
  }

  /** Has `start` called when there is room, in order; `leave` is to be called once for each start. */
  enter(call: object, start: () => void): void {
    this.#waiting.set(call, start);
    this.#admit();
  }

  /** The call waits no more. */
  forget(call: object): void {
    this.#waiting.delete(call);
  }

  leave(): void {
    this.#running--;
    this.#admit();
  }

  #admit(): void {
    // Starting a call may end it at once.
    if (this.#admitting) return;
    this.#admitting = true;
    for (const [call, start] of this.#waiting) {
      if (this.#running >= this.#max) break;
      this.#waiting.delete(call);
      this.#running++;
      start();
    }
    this.#admitting = false;
  }
}
