/**
 * Encodes a message that consists of one long list chunk by chunk: in protobuf the concatenation of the
 * chunks is the message. So nothing waits for a long list, and no buffer has to hold it. Created by schema.ts
 * and image-list.ts, used by call.ts.
 */
import type { Writer } from './encoder.js';
import { mark, written } from './wire-writer.js';

/** A chunk ends once it is this long, or took a slice's time. */
const CHUNK_BYTES = 128 * 1024;
const CHUNK_MS = 1;
/** Items between two reads of the clock. */
const ITEMS = 16;

/** A message that is being encoded. */
export interface Chunks {
  /**
   * The next chunk, after `freeBytes` free bytes. MessageTooLarge: it would take more than `bytesMax` bytes.
   */
  next(freeBytes: number, bytesMax: number): Chunk;
}
export interface Chunk {
  readonly bytes: Buffer;
  readonly last: boolean;
}

/** Encodes by `step`, which returns whether there is more, until a chunk is long enough. */
export const chunksBy = (step: () => boolean): Chunks => ({
  next(freeBytes, bytesMax) {
    let last = false;
    const write = (): void => {
      const end = performance.now() + CHUNK_MS;
      while (!last && mark() < CHUNK_BYTES) {
        last = !step();
        if (performance.now() >= end) break;
      }
    };
    return { bytes: written(freeBytes, write, 0, bytesMax), last };
  },
});

/** A list of items, which are created while it is encoded. */
export function chunksOf(write: Writer, items: Iterable<unknown>): Chunks {
  const iterator = items[Symbol.iterator]();
  return chunksBy(() => {
    for (let n = 0; n < ITEMS; n++) {
      const { done, value } = iterator.next();
      if (done) return false;
      write(value);
      if (mark() >= CHUNK_BYTES) break;
    }
    return true;
  });
}
