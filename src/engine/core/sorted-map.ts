/**
 * A map whose keys can be walked in UTF-8 order. Used for buffered writes, undo images and the memory engine.
 * In memory only; not to be changed while a walk over it is suspended.
 *
 * The order is built at the first walk and kept from then on, in blocks, so that maps which are only asked for
 * single keys (most transactions) never pay for it.
 */
import { compareUtf8, sortUtf8 } from '../../model/utf8.js';

const BLOCK_MAX = 512;

export class SortedMap<V> {
  readonly #values = new Map<string, V>();
  /** Ordered runs of keys, none empty; undefined until order is asked for. */
  #blocks: string[][] | undefined;

  get size(): number {
    return this.#values.size;
  }

  get(key: string): V | undefined {
    return this.#values.get(key);
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  set(key: string, value: V): void {
    if (this.#blocks !== undefined && !this.#values.has(key)) this.#insert(this.#blocks, key);
    this.#values.set(key, value);
  }

  delete(key: string): boolean {
    if (!this.#values.delete(key)) return false;
    if (this.#values.size === 0) this.#blocks = undefined;
    else if (this.#blocks !== undefined) this.#remove(this.#blocks, key);
    return true;
  }

  clear(): void {
    this.#values.clear();
    this.#blocks = undefined;
  }

  /** Entries in no particular order. */
  entries(): IterableIterator<[string, V]> {
    return this.#values.entries();
  }

  keys(): IterableIterator<string> {
    return this.#values.keys();
  }

  /** Entries from `start` on, in order; without `start` itself when `exclusive`. */
  *from(start: string, exclusive = false): Generator<[string, V]> {
    this.#blocks ??= this.#order();
    const blocks = this.#blocks;
    let b = blockFor(blocks, start);
    let i = lowerBound(blocks[b] ?? [], start);
    if (exclusive && blocks[b]?.[i] === start) i++;
    for (; b < blocks.length; b++, i = 0) {
      const block = blocks[b]!;
      for (; i < block.length; i++) {
        const key = block[i]!;
        yield [key, this.#values.get(key) as V];
      }
    }
  }

  #order(): string[][] {
    const keys = sortUtf8([...this.#values.keys()]);
    const blocks: string[][] = [];
    for (let i = 0; i < keys.length; i += BLOCK_MAX / 2) blocks.push(keys.slice(i, i + BLOCK_MAX / 2));
    return blocks;
  }

  #insert(blocks: string[][], key: string): void {
    if (blocks.length === 0) {
      blocks.push([key]);
      return;
    }
    const b = blockFor(blocks, key);
    const block = blocks[b]!;
    block.splice(lowerBound(block, key), 0, key);
    if (block.length > BLOCK_MAX) blocks.splice(b + 1, 0, block.splice(BLOCK_MAX / 2));
  }

  #remove(blocks: string[][], key: string): void {
    const b = blockFor(blocks, key);
    const block = blocks[b]!;
    block.splice(lowerBound(block, key), 1);
    if (block.length === 0) blocks.splice(b, 1);
  }
}

/** Index of the last block that begins at or before `key`, 0 when there is none. */
function blockFor(blocks: string[][], key: string): number {
  let low = 0;
  let high = blocks.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareUtf8(blocks[middle]![0]!, key) <= 0) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? 0 : low - 1;
}

/** Index of the first key at or after `key`. */
function lowerBound(block: readonly string[], key: string): number {
  let low = 0;
  let high = block.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareUtf8(block[middle]!, key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
