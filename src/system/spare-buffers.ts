/**
 * Buffers of one size that are used again. New ones are expensive: their memory counts for V8, which marks its whole heap after
 * every 64 MB of it, and a transfer takes as much in a second.
 */
export class SpareBuffers {
  /** Of each buffer. */
  readonly bytes: number;
  readonly #max: number;
  readonly #spare: Buffer[] = [];

  /** @param max buffers that are kept while nobody uses them */
  constructor(bytes: number, max: number) {
    this.bytes = bytes;
    this.#max = max;
  }

  take(): Buffer {
    return this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.bytes);
  }

  /** REQUIRES: nobody reads or writes it any more. */
  giveBack(buffer: Buffer): void {
    if (this.#spare.length < this.#max) this.#spare.push(buffer);
  }
}
