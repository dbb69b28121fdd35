/**
 * Reads exact amounts from a stream of chunks, and copies only what straddles chunks. Used by the tar reader
 * and the zstd framing; keeps at most one chunk beyond what was asked for.
 */

const EMPTY = Buffer.alloc(0);

export class ChunkReader {
  readonly #source: AsyncIterator<Uint8Array>;
  #rest: Buffer = EMPTY;
  #ended = false;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /**
   * Between 1 and `max` bytes as they arrive; undefined at the end. The buffer is a view that is valid until
   * the next call.
   */
  async some(max: number): Promise<Buffer | undefined> {
    if (this.#rest.length === 0 && !(await this.#fill())) return undefined;
    const part = this.#rest.subarray(0, max);
    this.#rest = this.#rest.subarray(part.length);
    return part;
  }

  /** Exactly `size` bytes; fewer only when the stream ends before. */
  async exactly(size: number): Promise<Buffer> {
    if (this.#rest.length >= size) {
      const part = this.#rest.subarray(0, size);
      this.#rest = this.#rest.subarray(size);
      return part;
    }
    // Copied, not collected: a source may reuse its chunk once the next one is requested.
    const whole = Buffer.allocUnsafe(size);
    let have = 0;
    while (have < size) {
      const part = await this.some(size - have);
      if (part === undefined) break;
      have += part.copy(whole, have);
    }
    return whole.subarray(0, have);
  }

  /** Drops `size` bytes; returns how many there were. */
  async skip(size: number): Promise<number> {
    let done = 0;
    while (done < size) {
      const part = await this.some(size - done);
      if (part === undefined) break;
      done += part.length;
    }
    return done;
  }

  /** Reads to the end and drops it, so that what counts or hashes upstream sees every byte. */
  async drain(): Promise<void> {
    while ((await this.some(2 ** 20)) !== undefined);
  }

  /** Ends the source early. */
  async close(): Promise<void> {
    this.#ended = true;
    this.#rest = EMPTY;
    await this.#source.return?.();
  }

  async #fill(): Promise<boolean> {
    while (!this.#ended) {
      const { done, value } = await this.#source.next();
      if (done) this.#ended = true;
      else if (value.length > 0) {
        this.#rest = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
        return true;
      }
    }
    return false;
  }
}

/** The same chunks, each shown to `see` first. */
export async function* tap(
  chunks: AsyncIterable<Uint8Array>,
  see: (chunk: Uint8Array) => void,
): AsyncGenerator<Uint8Array, void, void> {
  for await (const chunk of chunks) {
    see(chunk);
    yield chunk;
  }
}
