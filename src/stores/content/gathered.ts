/** Small chunks of a source as larger ones: each write of an ingest is a hop to another thread and back. Called by the copy helper. */
import { SpareBuffers } from '../../system/spare-buffers.js';

const spare = new SpareBuffers(256 * 1024, 8);
/** From here on a chunk is not copied. */
const LARGE_BYTES = 128 * 1024;
const NOTHING = new Uint8Array();

export class Gathered {
  #buffer: Buffer | undefined;
  #length = 0;
  /** Offset in the source that it reaches. */
  #end = 0;

  /** Adds a copy of a chunk, which ends at an offset; false: there is no room for it, or it is large enough alone. */
  add(chunk: Uint8Array, end: number): boolean {
    if (this.#length + chunk.length > spare.bytes) return false;
    if (this.#length === 0 && chunk.length >= LARGE_BYTES) return false;
    this.#buffer ??= spare.take();
    this.#buffer.set(chunk, this.#length);
    this.#length += chunk.length;
    this.#end = end;
    return true;
  }

  /** Valid until something is added. */
  get bytes(): Uint8Array {
    return this.#buffer?.subarray(0, this.#length) ?? NOTHING;
  }

  /** Keeps what follows an offset, if it has all of that up to its end. */
  dropBefore(offset: number): void {
    const start = this.#end - this.#length;
    const has = offset >= start && offset <= this.#end;
    if (has) this.#buffer?.copyWithin(0, offset - start, this.#length);
    this.#length = has ? this.#end - offset : 0;
  }

  clear(): void {
    this.#length = 0;
  }

  /** REQUIRES: nobody has `bytes` any more. */
  end(): void {
    if (this.#buffer !== undefined) spare.giveBack(this.#buffer);
    this.#buffer = undefined;
    this.#length = 0;
  }
}
