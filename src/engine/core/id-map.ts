/**
 * A map by node ids that never stops the thread to grow: JavaScript's own takes tens of milliseconds to make room for
 * half a million entries, so ids that are neighbours are kept in small maps. Used by memtables and by collections.
 */

/** So many ids share a map: less than a millisecond's worth of growing. */
const ID_BITS = 13;

export class IdMap<V> {
  readonly #parts = new Map<number, Map<number, V>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): V | undefined {
    return this.#parts.get(id >>> ID_BITS)?.get(id);
  }

  has(id: number): boolean {
    return this.#parts.get(id >>> ID_BITS)?.has(id) === true;
  }

  set(id: number, value: V): void {
    const name = id >>> ID_BITS;
    let part = this.#parts.get(name);
    if (part === undefined) {
      part = new Map();
      this.#parts.set(name, part);
    }
    const before = part.size;
    part.set(id, value);
    this.#size += part.size - before;
  }

  *entries(): Generator<[number, V]> {
    for (const part of this.#parts.values()) yield* part;
  }

  /** False when there was none. */
  delete(id: number): boolean {
    const name = id >>> ID_BITS;
    const part = this.#parts.get(name);
    if (part?.delete(id) !== true) return false;
    this.#size--;
    if (part.size === 0) this.#parts.delete(name);
    return true;
  }
}
