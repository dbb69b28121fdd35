/**
 * Messages that are one long list, written piece by piece: in protobuf the pieces, one after the other, are the message.
 * So nobody waits for a long list, and no buffer has to grow to hold it. Made by schema.ts and image-list.ts, written
 * by call.ts.
 */
import type { Writer } from './encoder.js';
import { mark, written } from './wire-writer.js';

/** A piece ends with what makes it so long, or take so long. */
const PIECE_BYTES = 128 * 1024;
const PIECE_MS = 1;
/** Items between two looks at the clock. */
const ITEMS = 16;

/** A message that is being written. */
export interface Pieces {
  /** The next piece, after `freeBytes` bytes that are left free. MessageTooLarge: it would take more than `bytesMax` bytes. */
  next(freeBytes: number, bytesMax: number): Piece;
}
export interface Piece {
  readonly bytes: Buffer;
  readonly last: boolean;
}

/** Writes by `step`, which returns whether there is more, until a piece is long enough. */
export const piecesBy = (step: () => boolean): Pieces => ({
  next(freeBytes, bytesMax) {
    let last = false;
    const write = (): void => {
      const end = performance.now() + PIECE_MS;
      while (!last && mark() < PIECE_BYTES) {
        last = !step();
        if (performance.now() >= end) break;
      }
    };
    return { bytes: written(freeBytes, write, 0, bytesMax), last };
  },
});

/** A list of items, which are made as they are written. */
export function piecesOf(write: Writer, items: Iterable<unknown>): Pieces {
  const iterator = items[Symbol.iterator]();
  return piecesBy(() => {
    for (let n = 0; n < ITEMS; n++) {
      const { done, value } = iterator.next();
      if (done) return false;
      write(value);
      if (mark() >= PIECE_BYTES) break;
    }
    return true;
  });
}
