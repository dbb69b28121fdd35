/**
 * A map whose keys can be walked in UTF-8 order. Used for buffered writes, undo images and the memory engine.
 * In memory only; not to be changed while a walk over it is suspended.
 *
 * The order is built at the first walk and kept from then on, in blocks, so that maps which are only asked for
 * single keys (most transactions) never pay for it.
 */
import { present } from '../../errors.js';
import { compareUtf8, sortUtf8 } from '../../model/utf8.js';
import { partitionPoint } from './partition-point.js';

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
    for (let block = blocks[b]; block !== undefined; block = blocks[++b], i = 0) {
      for (let key = block[i]; key !== undefined; key = block[++i]) {
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
    const end = blocks.at(-1);
    const last = end?.at(-1);
    if (end !== undefined && last !== undefined && compareUtf8(last, key) < 0) {
      // Keys that come in their order, as what is dropped of a long list does, are not looked up, and fill their blocks.
      if (end.length < BLOCK_MAX) end.push(key);
      else blocks.push([key]);
      return;
    }
    const b = blockFor(blocks, key);
    const block = blocks[b];
    if (block === undefined) {
      blocks.push([key]);
      return;
    }
    block.splice(lowerBound(block, key), 0, key);
    if (block.length > BLOCK_MAX) blocks.splice(b + 1, 0, block.splice(BLOCK_MAX / 2));
  }

  #remove(blocks: string[][], key: string): void {
    const b = blockFor(blocks, key);
    const block = present(blocks[b], 'the block of a key');
    block.splice(lowerBound(block, key), 1);
    if (block.length === 0) blocks.splice(b, 1);
  }
}

/** Index of the last block that begins at or before `key`, 0 when there is none. */
const blockFor = (blocks: readonly string[][], key: string): number =>
  Math.max(0, partitionPoint(blocks, ([first = '']) => compareUtf8(first, key) <= 0) - 1);

/** Index of the first key at or after `key`. */
const lowerBound = (block: readonly string[], key: string): number =>
  partitionPoint(block, (one) => compareUtf8(one, key) < 0);
