/**
 * Dense node ids: hands them out and takes them back. An id is handed out again only after the commit that freed it.
 * Called by nodes.ts; in memory only, rebuilt from the graph at opening.
 */
import type { GraphCore } from '../graph.js';

/** Most ids the graph can address. */
const IDS_MAX = 2 ** 30 - 2;
const REFILL = 1024;

export class Ids {
  readonly #graph: GraphCore;
  #free: number[] = [];
  /** Holes of the graph as it was loaded, from here to #loaded, are still to be used. */
  #cursor = 0;
  readonly #loaded: number;
  #limit: number;

  constructor(graph: GraphCore) {
    this.#graph = graph;
    this.#loaded = graph.stats().limit;
    this.#limit = this.#loaded;
  }

  take(): number {
    if (this.#free.length === 0) this.#refill();
    const id = this.#free.pop();
    if (id !== undefined) return id;
    if (this.#limit >= IDS_MAX) throw new RangeError('the store has run out of node ids');
    return this.#limit++;
  }

  /** To be called when the freeing commit is done. */
  giveBack(id: number): void {
    // An id the refill has yet to pass over will be found by it.
    if (id >= this.#cursor && id < this.#loaded) return;
    this.#free.push(id);
  }

  /** These are in use again: what freed them was undone. */
  forget(ids: { has(id: number): boolean; readonly size: number }): void {
    if (ids.size > 0) this.#free = this.#free.filter((id) => !ids.has(id));
  }

  #refill(): void {
    while (this.#free.length === 0 && this.#cursor < this.#loaded) {
      const holes = this.#graph.unusedIds(this.#cursor, REFILL);
      const last = (holes.length < REFILL ? undefined : holes.at(-1)) ?? this.#loaded - 1;
      this.#cursor = Math.min(last + 1, this.#loaded);
      for (const hole of holes.toReversed()) if (hole < this.#loaded) this.#free.push(hole);
    }
  }
}
