/**
 * Locks on single objects by name, shared or exclusive, first come, first served: callers wait only for an
 * object that they use themselves, so a slow copy for one snapshot delays no other. In memory, per instance;
 * not re-entrant. Called by the content directory (digests) and the snapshotters (keys).
 */
import { present } from '../errors.js';

export type LockMode = 'shared' | 'exclusive';

interface Waiter {
  mode: LockMode;
  enter: () => void;
}
interface Lock {
  holders: number;
  exclusive: boolean;
  queue: Waiter[];
}

export class ObjectLocks {
  readonly #locks = new Map<string, Lock>();

  /** Holds the lock while `fn` runs. */
  async with<T>(name: string, mode: LockMode, fn: () => Promise<T>): Promise<T> {
    await this.#enter(name, mode);
    try {
      return await fn();
    } finally {
      this.#leave(name);
    }
  }

  /**
   * Holds several locks while `fn` runs. They are acquired in one global order, so that two callers never
   * wait for each other; a name that is given twice is locked once, exclusively if either asks for it. Empty
   * names are skipped.
   */
  async withAll<T>(
    wanted: Readonly<{ exclusive: readonly string[]; shared?: readonly string[] }>,
    fn: () => Promise<T>,
  ): Promise<T> {
    const modes = new Map<string, LockMode>();
    for (const name of wanted.shared ?? []) modes.set(name, 'shared');
    for (const name of wanted.exclusive) modes.set(name, 'exclusive');
    modes.delete('');
    const acquired: string[] = [];
    try {
      for (const [name, mode] of [...modes].sort(([a], [b]) => (a < b ? -1 : 1))) {
        await this.#enter(name, mode);
        acquired.push(name);
      }
      return await fn();
    } finally {
      for (const name of acquired) this.#leave(name);
    }
  }

  #enter(name: string, mode: LockMode): Promise<void> | undefined {
    let lock = this.#locks.get(name);
    if (lock === undefined) {
      lock = { holders: 0, exclusive: false, queue: [] };
      this.#locks.set(name, lock);
    }
    const free = lock.holders === 0 || (mode === 'shared' && !lock.exclusive);
    if (free && lock.queue.length === 0) {
      lock.holders++;
      lock.exclusive = mode === 'exclusive';
      return undefined;
    }
    const { queue } = lock;
    return new Promise((enter) => {
      queue.push({ mode, enter });
    });
  }

  #leave(name: string): void {
    const lock = present(this.#locks.get(name), `the lock of ${name}`);
    if (--lock.holders > 0) return;
    const { queue } = lock;
    const next = queue.shift();
    if (next === undefined) {
      this.#locks.delete(name);
      return;
    }
    lock.exclusive = next.mode === 'exclusive';
    const admitted = [next];
    if (!lock.exclusive) {
      const stop = queue.findIndex(({ mode }) => mode === 'exclusive');
      admitted.push(...queue.splice(0, stop < 0 ? queue.length : stop));
    }
    lock.holders = admitted.length;
    for (const waiter of admitted) waiter.enter();
  }
}
