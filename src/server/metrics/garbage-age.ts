/**
 * How long there may have been garbage: the time since the first deletion that no finished collection covers.
 * For metrics.
 */
import type { DB } from '../../db.js';

export class GarbageAge {
  #since: number | undefined;

  constructor(db: DB) {
    db.registerMutationCallback((deleted) => {
      if (deleted) this.#since ??= performance.now();
    });
  }

  /** A collection has ended; a deletion during it shows with the next change of the store. */
  collected(): void {
    this.#since = undefined;
  }

  get ms(): number {
    return this.#since === undefined ? 0 : performance.now() - this.#since;
  }
}
