/**
 * An estimate of the memory that a call of a method takes, learned from finished calls; before the first has
 * finished it is taken to be large. Shared by all connections. Called by call-gate.ts and call.ts.
 */

/** A call with its objects, whatever it does. */
export const CALL_BYTES = 16 * 1024;
/** How fast the estimate falls towards smaller sizes. */
const FALL = 7 / 8;

export class CallCost {
  #responseBytes: number;
  readonly #learns: boolean;
  readonly #leastBytes: number;
  #known = false;

  /**
   * @param keepsBytes what a call keeps at a time, if known; otherwise it is learned from responses, and the
   * first is expected to have `responseBytesMax`
   * @param leastBytes what a call keeps while it works, however small its response is
   */
  constructor(responseBytesMax: number, keepsBytes: number | undefined, leastBytes = 0) {
    this.#responseBytes = keepsBytes ?? responseBytesMax;
    this.#learns = keepsBytes === undefined;
    this.#leastBytes = leastBytes;
  }

  /** Bytes that a call is expected to take: its objects, and its response until the client reads it. */
  get bytes(): number {
    return CALL_BYTES + Math.max(this.#leastBytes, this.#responseBytes);
  }

  /** @param bytes of the finished call's response */
  ended(bytes: number): void {
    if (!this.#learns) return;
    this.#responseBytes = this.#known ? Math.max(bytes, Math.floor(this.#responseBytes * FALL)) : bytes;
    this.#known = true;
  }
}
