/**
 * Memory that calls of a method take, learned from those that have ended; nothing is known of the first one, which is
 * taken for a large one. Shared by all connections. Called by call-gate.ts and call.ts.
 */

/** A call with its objects, whatever it does. */
export const CALL_BYTES = 16 * 1024;
/** What is expected falls to the size of what comes little by little. */
const FALL = 7 / 8;

export class CallCost {
  #answerBytes: number;
  readonly #learns: boolean;
  #known = false;

  /**
   * `keepsBytes`: what a call keeps at a time, where that is known; otherwise it is learned from answers, of which the
   * first may have `answerBytesMax`.
   */
  constructor(answerBytesMax: number, keepsBytes: number | undefined) {
    this.#answerBytes = keepsBytes ?? answerBytesMax;
    this.#learns = keepsBytes === undefined;
  }

  /** Bytes that a call is expected to take: its objects, and the answer for as long as nobody reads it. */
  get bytes(): number {
    return CALL_BYTES + this.#answerBytes;
  }

  /** A call has ended: bytes of its answer. */
  ended(bytes: number): void {
    if (!this.#learns) return;
    this.#answerBytes = this.#known ? Math.max(bytes, Math.floor(this.#answerBytes * FALL)) : bytes;
    this.#known = true;
  }
}
