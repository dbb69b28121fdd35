/**
 * Counters: numbers that are never handed out twice while a store is open, whatever becomes of the transaction that
 * asked. A commit stores the highest number it was given; after a crash the stored value can lag only after numbers
 * whose transaction never committed. Called by transaction.ts and engine.ts.
 */
import type { Key } from '../contract.js';
import { below } from './reads.js';
import type { Storage } from './storage.js';

export class Counters {
  readonly #storage: Storage;
  /** Highest number handed out; stored ones are loaded when first asked for. */
  readonly #highest = new Map<Key, number>();

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  next(name: Key): number {
    const number = (this.#highest.get(name) ?? this.#storage.counter(name)) + 1;
    this.#highest.set(name, number);
    return number;
  }

  /** What a commit has to store. `active` are the numbers that transactions still running were given. */
  changes(
    dropped: Iterable<Key>,
    numbers: ReadonlyMap<Key, number>,
    active: Iterable<ReadonlyMap<Key, number>>,
  ): Map<Key, number | undefined> {
    const changes = new Map<Key, number | undefined>();
    for (const prefix of dropped) {
      const names = new Set(this.#storage.countersUnder(prefix));
      for (const name of this.#highest.keys()) {
        if (name === prefix || name.startsWith(below(prefix))) names.add(name);
      }
      for (const name of names) {
        changes.set(name, undefined);
        this.#highest.set(name, highestOf(name, active));
      }
    }
    for (const [name, number] of numbers) {
      changes.set(name, Math.max(number, changes.has(name) ? 0 : this.#storage.counter(name)));
      // A dropped counter may still be in use by the transaction that dropped it.
      if ((this.#highest.get(name) ?? 0) < number) this.#highest.set(name, number);
    }
    return changes;
  }
}

function highestOf(name: Key, active: Iterable<ReadonlyMap<Key, number>>): number {
  let highest = 0;
  for (const numbers of active) highest = Math.max(highest, numbers.get(name) ?? 0);
  return highest;
}
