/**
 * Ranges of texts (keys, links) over encoded rows: the bounds of one, and what the tree has of it under what
 * memtables have. Called by the storage and its links.
 */
import { compareUtf8 } from '../../../model/utf8.js';
import { successor } from '../../core/bytes.js';
import { layered, type ReadLayer } from '../../core/reads.js';

/** Encoded bounds of what begins with `start`, after `after`. */
export function boundsOf(
  lower: Buffer,
  after: string | undefined,
  start: string,
  encode: (text: string) => Buffer,
): { lower: Buffer; exclusive: boolean; upper: Buffer | undefined } {
  const upper = successor(lower);
  if (after === undefined || compareUtf8(after, start) <= 0) return { lower, exclusive: false, upper };
  return { lower: Buffer.from(encode(after)), exclusive: true, upper };
}

/** Stored entries under those of memtables, `first` of them at first. */
export const merged = <V>(
  start: string,
  after: string | undefined,
  first: number,
  read: (after: string | undefined, limit: number) => [string, V][],
  layers: ReadLayer<V>[],
): Generator<[string, V]> => layered<V>(start, after, read, () => layers, first);
