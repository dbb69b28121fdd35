/**
 * Counters over etcd: numbers that no two hosts are ever given. A host reserves a run of numbers in one etcd
 * transaction and hands them out synchronously; what is left is given back at close if no host reserved more since.
 * Called by transaction.ts and engine.ts.
 *
 * A counter that was forgotten (its namespace went) begins at 1 again as a new key: runs of the old one are recognised
 * by the key's creation revision, and commits that used their numbers are refused.
 */
import type { Key } from '../../contract.js';
import { below } from '../../core/reads.js';
import type { Compare, EtcdClient } from '../client/client.js';
import type { Layout } from '../format/layout.js';

const FIRST_RUN = 16;
const RUN_MAX = 256;

export interface HandedOut {
  readonly number: number;
  /** Creation revision of the counter's key. */
  readonly created: number;
}

interface Run {
  next: number;
  last: number;
  created: number;
  size: number;
}

export class Counters {
  readonly #client: EtcdClient;
  readonly #layout: Layout;
  readonly #runs = new Map<Key, Run>();
  readonly #reserving = new Map<Key, Promise<void>>();

  constructor(client: EtcdClient, layout: Layout) {
    this.#client = client;
    this.#layout = layout;
  }

  /** The next number; undefined: `reserve` first. */
  next(counter: Key): HandedOut | undefined {
    const run = this.#runs.get(counter);
    if (run === undefined || run.next > run.last) return undefined;
    return { number: run.next++, created: run.created };
  }

  reserve(counter: Key): Promise<void> {
    let reserving = this.#reserving.get(counter);
    if (reserving === undefined) {
      reserving = this.#reserve(counter).finally(() => this.#reserving.delete(counter));
      this.#reserving.set(counter, reserving);
    }
    return reserving;
  }

  async #reserve(counter: Key): Promise<void> {
    const key = this.#layout.counter(counter);
    const size = Math.min((this.#runs.get(counter)?.size ?? FIRST_RUN / 2) * 2, RUN_MAX);
    for (;;) {
      const { kvs } = await this.#client.range(key);
      const stored = kvs[0];
      const highest = stored === undefined ? 0 : Number(stored.value.toString('utf8'));
      const same: Compare =
        stored === undefined ? { key, is: 'absent' } : { key, is: 'unchanged since', revision: stored.mod };
      const present: Compare[] = stored === undefined ? [] : [{ key, is: 'present' }];
      // A lost response costs a run of numbers, no more.
      const { succeeded, revision } = await this.#client.txn(
        [same, ...present],
        [{ put: key, value: String(highest + size) }],
      );
      if (!succeeded) continue;
      const created = stored?.create ?? revision;
      this.#runs.set(counter, { next: highest + 1, last: highest + size, created, size });
      return;
    }
  }

  /** Numbers of these counters are not handed out any more: they were forgotten, here or elsewhere. */
  forget(prefix: Key): void {
    for (const counter of [...this.#runs.keys()]) {
      if (counter === prefix || counter.startsWith(below(prefix))) this.#runs.delete(counter);
    }
  }

  forgetOne(counter: Key): void {
    this.#runs.delete(counter);
  }

  /** What a commit compares for a number it used. */
  compare(counter: Key, { created }: HandedOut): Compare {
    return { key: this.#layout.counter(counter), is: 'created at', revision: created };
  }

  /** Gives back what was not handed out, where no host reserved more since. */
  async close(): Promise<void> {
    for (const [counter, run] of this.#runs) {
      if (run.next > run.last) continue;
      const key = this.#layout.counter(counter);
      const { kvs } = await this.#client.range(key);
      const stored = kvs[0];
      if (stored?.create !== run.created || stored.value.toString('utf8') !== String(run.last)) continue;
      await this.#client.txn(
        [
          { key, is: 'unchanged since', revision: stored.mod },
          { key, is: 'created at', revision: run.created },
        ],
        [{ put: key, value: String(run.next - 1) }],
      );
    }
    this.#runs.clear();
  }
}
