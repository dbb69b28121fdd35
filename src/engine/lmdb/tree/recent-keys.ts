/**
 * Keys of nodes that were read from the tree by their ids since the last commit: a collection that removes a snapshot asks for
 * its parent's, too, and mostly removes that next. Used by the storage, which says when they may have changed.
 */
import type { Key } from '../../contract.js';

/** A power of two. Neighbours in ids do not share a place. */
const PLACES = 2048;

export class RecentKeys {
  readonly #ids = new Int32Array(PLACES).fill(-1);
  readonly #keys = new Array<Key>(PLACES).fill('');
  #isEmpty = true;

  get(id: number): Key | undefined {
    const place = id & (PLACES - 1);
    return this.#ids[place] === id ? this.#keys[place] : undefined;
  }

  set(id: number, key: Key): void {
    const place = id & (PLACES - 1);
    this.#ids[place] = id;
    this.#keys[place] = key;
    this.#isEmpty = false;
  }

  clear(): void {
    if (this.#isEmpty) return;
    this.#ids.fill(-1);
    this.#isEmpty = true;
  }
}
