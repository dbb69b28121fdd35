/**
 * Reading in layers: the storage's newest state, over it what newer commits replaced (so that a transaction keeps
 * seeing its revision), over that the transaction's own writes. Called by transaction.ts and engine.ts.
 *
 * Ranges are read in chunks, each in one synchronous step, so that a suspended scan pins nothing.
 */

import { present } from '../../errors.js';
import { compareUtf8 } from '../../model/utf8.js';
import type { Key } from '../contract.js';
import { SEPARATOR } from '../schema/keys.js';
import type { SortedMap } from './sorted-map.js';

/** Changes over a range: a value, or undefined for "absent here". */
export type Layer<V> = SortedMap<V | undefined>;

/** What is read of a layer: entries from `start` on, at least those that begin with `within`. */
export interface ReadLayer<V> {
  readonly size: number;
  from(start: string, exclusive: boolean, within: string): Iterable<[string, V | undefined]>;
}

/** Entries read at a time: few at first, for callers that want few. */
export const FIRST_CHUNK = 16;
export const CHUNK_MAX = 512;
/** Records may be large: about so many bytes of them at a time. */
export const CHUNK_BYTES = 256 * 1024;

/** The text every key strictly below `prefix` begins with. */
export const below = (prefix: Key): string => (prefix === '' ? '' : prefix + SEPARATOR);

/**
 * Walks what begins with `start`, after `after`. `read` returns the next entries of the storage; each layer, the
 * upper one last, replaces or hides them. `first`: about how many are put together first.
 */
export function* layered<V>(
  start: string,
  after: string | undefined,
  read: (after: string | undefined, limit: number) => [string, V][],
  layers: () => ReadLayer<V>[],
  first = FIRST_CHUNK,
): Generator<[string, V]> {
  let size = Math.min(first, CHUNK_MAX);
  for (let position = after; ; size = Math.min(size * 4, CHUNK_MAX)) {
    const chunk = read(position, size);
    const part: Part<V> = {
      entries: chunk,
      last: chunk.length < size ? undefined : chunk[chunk.length - 1]?.[0],
    };
    for (const layer of layers()) if (layer.size > 0) overlay(part, layer, start, position, size);
    yield* part.entries;
    if (part.last === undefined) return;
    position = part.last;
  }
}

/** What is there up to `last` (inclusive; undefined: to the end). */
interface Part<V> {
  entries: [string, V][];
  last: string | undefined;
}

/**
 * Puts the layer's changes after `after` (exclusive) into the part. A layer may have more of them than a caller wants at a
 * time: with `size` entries, or a few more, the part ends.
 */
function overlay<V>(
  part: Part<V>,
  layer: ReadLayer<V>,
  start: string,
  after: string | undefined,
  size: number,
): void {
  const { entries, last } = part;
  const merged: [string, V][] = [];
  const exclusive = after !== undefined && compareUtf8(after, start) >= 0;
  let i = 0;
  for (const [key, value] of layer.from(exclusive ? after : start, exclusive, start)) {
    if (!key.startsWith(start) || (last !== undefined && compareUtf8(key, last) > 0)) break;
    for (let entry = entries[i]; entry !== undefined && compareUtf8(entry[0], key) < 0; entry = entries[++i])
      merged.push(entry);
    if (merged.length >= size) {
      // Everything before this key is in.
      part.entries = merged;
      part.last = present(merged.at(-1), 'an entry')[0];
      return;
    }
    if (entries[i]?.[0] === key) i++;
    if (value !== undefined) merged.push([key, value]);
  }
  if (merged.length === 0 && i === 0) return;
  part.entries = merged.concat(entries.slice(i));
}
