/** Sources of bytes, unified as "the chunks from this offset on". Called by the copy helper. */
import { unknownError } from '../../errors.js';

/** A stream that can seek; iterating it afterwards yields what follows. */
export interface SeekableSource extends AsyncIterable<Uint8Array> {
  /** Offset in bytes. */
  seek(offset: number): Promise<void> | void;
}

/** Random access: fills the buffer as far as there are bytes; returns 0 at the end. */
export interface RandomAccessSource {
  /** Reads from a position on; returns how many bytes, 0 at the end. */
  read(buffer: Uint8Array, position: number): Promise<number>;
}

/** Bytes, a stream of chunks (read once, front to back), a stream that can seek, or random access. */
export type Source =
  | Uint8Array
  | AsyncIterable<Uint8Array>
  | Iterable<Uint8Array>
  | SeekableSource
  | RandomAccessSource;

export interface Positioned {
  chunks(offset: number): AsyncIterable<Uint8Array>;
  /** Releases a stream that was not read to its end. */
  close?(): Promise<void>;
}

const CHUNK_BYTES = 1 << 20;

export function positioned(source: Source): Positioned {
  if (source instanceof Uint8Array) return { chunks: (offset) => slices(source, offset) };
  if ('seek' in source) return { chunks: (offset) => sought(source, offset) };
  if (isIterable(source)) return new Stream(source);
  return { chunks: (offset) => readFrom(source, offset) };
}

const isIterable = (source: object): source is AsyncIterable<Uint8Array> | Iterable<Uint8Array> =>
  Symbol.asyncIterator in source || Symbol.iterator in source;

async function* slices(bytes: Uint8Array, offset: number): AsyncGenerator<Uint8Array> {
  for (let at = offset; at < bytes.length; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES);
}

async function* sought(source: SeekableSource, offset: number): AsyncGenerator<Uint8Array> {
  await source.seek(offset);
  yield* source;
}

async function* readFrom(source: RandomAccessSource, offset: number): AsyncGenerator<Uint8Array> {
  for (let at = offset; ; ) {
    // A fresh buffer each time: the receiver may still be using the last one.
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    const count = await source.read(buffer, at);
    if (count === 0) return;
    yield buffer.subarray(0, count);
    at += count;
  }
}

/** A forward-only source: bytes before the offset are read and dropped. */
class Stream implements Positioned {
  readonly #iterator: AsyncIterator<Uint8Array> | Iterator<Uint8Array>;
  /** Offset of the next bytes: `#left` if there is any, else the iterator's next chunk. */
  #at = 0;
  #left: Uint8Array | undefined;

  constructor(source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>) {
    this.#iterator =
      Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  }

  async *chunks(offset: number): AsyncGenerator<Uint8Array> {
    if (offset < this.#at) {
      throw unknownError(`the source is at ${this.#at} and cannot go back to ${offset}`, {
        remedy: 'use a source that can seek',
      });
    }
    for (let chunk = await this.#next(); chunk !== undefined; chunk = await this.#next()) {
      const start = this.#at;
      const skip = Math.min(Math.max(offset - start, 0), chunk.length);
      this.#at = start + chunk.length;
      if (skip === chunk.length) continue;
      // A chunk that the writer did not accept (it was reset) is offered again.
      let accepted = false;
      try {
        yield chunk.subarray(skip);
        accepted = true;
      } finally {
        if (!accepted) {
          this.#at = start;
          this.#left = chunk;
        }
      }
    }
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  async #next(): Promise<Uint8Array | undefined> {
    const left = this.#left;
    if (left !== undefined) {
      this.#left = undefined;
      return left;
    }
    const result = await this.#iterator.next();
    return result.done ? undefined : result.value;
  }
}
