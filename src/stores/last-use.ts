/**
 * When images and snapshots were used last: kept in memory, and written from time to time as a label of their records, in
 * commits that nobody waits for and that flush nothing. Policies (policy/) retire what was not used for longest, and
 * conditional references (`usedat<24h`) are compared with a snapshot's label.
 *
 * A use is noted by the stores: a snapshot is used when another is prepared or viewed on it, an image when a container is
 * created from it or given it. It is no update: neither `updatedAt` nor an event follows. Memory: an entry for each object
 * that was used since the last writing, 131,072 at most; a crash forgets those. Errors of writing only delay it: what cannot be written is
 * tried again at the next time.
 */
// Not the global ones, by which tests decide what happens when.
import { clearTimeout, setTimeout } from 'node:timers';
import type { Engine, Key, Transaction } from '../engine/contract.js';
import { Label, labelOf } from '../model/labels.js';
import { formatSeconds, type Instant, NANOS_PER_SECOND, now, parseTimestamp } from '../model/time.js';

/** Between two writings. */
const WRITE_EVERY_MS = 600_000;
/** More objects are written at once. */
const NOTED_MAX = 65_536;
/** Records changed in one commit. */
const RECORDS_AT_ONCE = 32;

type Labels = Readonly<Record<string, unknown>>;

/** The times that labels supply to `usedat` conditions; values that are no timestamps are left out. */
export function usedAtTimes(labels: Labels): Instant[] {
  const times: Instant[] = [];
  for (const name in labels) {
    const value = labels[name];
    if (!name.startsWith(Label.gcCondUsedat) || typeof value !== 'string') continue;
    const time = parseTimestamp(value);
    if (time !== undefined) times.push(time);
  }
  return times;
}

export class LastUse {
  readonly #engine: Engine;
  readonly #everyMs: number;
  #noted = new Map<Key, Instant>();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #isFull = false;

  constructor(engine: Engine, everyMs = WRITE_EVERY_MS) {
    this.#engine = engine;
    this.#everyMs = everyMs;
  }

  /** The object under the key, if there is one, is used now. */
  note(k: Key): void {
    this.#noted.set(k, now());
    this.#timer ??= setTimeout(() => void this.write(), this.#everyMs).unref();
    if (this.#noted.size < NOTED_MAX) return;
    // Where nothing can be written the oldest are forgotten.
    const [oldest] = this.#noted.keys();
    if (this.#noted.size > 2 * NOTED_MAX && oldest !== undefined) this.#noted.delete(oldest);
    if (this.#isFull) return;
    this.#isFull = true;
    void this.write().then(() => {
      this.#isFull = false;
    });
  }

  /** What is noted and not written yet. */
  get noted(): ReadonlyMap<Key, Instant> {
    return this.#noted;
  }

  /** Writes what is noted. Never rejects. */
  write(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  async #write(): Promise<void> {
    const entries = [...this.#noted];
    try {
      for (let at = 0; at < entries.length; at += RECORDS_AT_ONCE) {
        const piece = entries.slice(at, at + RECORDS_AT_ONCE);
        await this.#engine.update(
          (tx) => {
            for (const [k, time] of piece) writeUse(tx, k, time);
          },
          { durability: 'visible', background: true },
        );
        for (const [k, time] of piece) if (this.#noted.get(k) === time) this.#noted.delete(k);
      }
    } catch {
      // A full disk, a lost etcd, a closed store.
      if (this.#timer === undefined) this.#timer = setTimeout(() => void this.write(), this.#everyMs).unref();
    }
  }

  /** Writes what is noted; nothing is written afterwards. */
  async close(): Promise<void> {
    await this.write();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

function writeUse(tx: Transaction, k: Key, time: Instant): void {
  const record = tx.get(k);
  if (typeof record !== 'object') return;
  const labels = (record.labels ?? {}) as Readonly<Record<string, string>>;
  const known = parseTimestamp(labelOf(labels, Label.gcCondUsedat) ?? '');
  // By the second, as it is written; another host may have written a later one.
  if (known !== undefined && time < known + NANOS_PER_SECOND) return;
  tx.put(k, { ...record, labels: { ...labels, [Label.gcCondUsedat]: formatSeconds(time) } });
}
