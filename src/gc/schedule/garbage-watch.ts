/**
 * Knows when something becomes garbage, and since when the oldest of it is: a moment after each change it has the graph core
 * take up in the live marks what the change did, and asks what is new. For schedulers that collect at once, and for metrics;
 * one for each DB, since what is new is reported once.
 *
 * Nothing is stored. Without changes there is no timer. What is new costs what the change did; the next run has less to do.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import type { GraphCore } from '../../engine/graph.js';

/** How long changes are collected before they are looked at. */
const LOOK_MS = 200;
/** Objects whose time is kept, and places of the list of garbage looked through for the oldest: beyond that its age is a bound. */
const OBJECTS_MAX = 16_384;
const PLACES_MAX = 65_536;

export interface WatchParts {
  readonly graph: GraphCore;
  /** Whether something was deleted since the last run: all that is known while no marks live. */
  hasDeletions(): boolean;
  now?(): number;
}

export class GarbageWatch {
  readonly #parts: WatchParts;
  readonly #listeners = new Set<() => void>();
  /** When an object became garbage, by its id; the oldest first. */
  readonly #since = new Map<number, number>();
  /** The first change that was not looked at. */
  #changedAt: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #isClosed = false;

  constructor(parts: WatchParts) {
    this.#parts = parts;
  }

  /** Calls `fn` when something has become garbage, or may have, until the returned function is called. */
  listen(fn: () => void): () => void {
    this.#listeners.add(fn);
    return () => this.#listeners.delete(fn);
  }

  /** The store has changed. Never blocks. */
  changed(): void {
    if (this.#changedAt !== undefined || this.#isClosed) return;
    this.#changedAt = this.#now();
    // Without memory for it the next change is the next look.
    this.#timer = setTimeout(() => void this.#lookAnew().catch(() => undefined), LOOK_MS);
    // A process that has nothing else to do may end.
    this.#timer.unref();
  }

  /** Takes up what has changed. ResourceExhausted: no memory for it. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  /** One that is under way when a change is due began before the change. */
  async #lookAnew(): Promise<void> {
    await this.#looking?.catch(() => undefined);
    await this.look();
  }

  /** Milliseconds for which the oldest has been garbage; 0 when there is none. */
  async age(): Promise<number> {
    await this.look();
    const { graph } = this.#parts;
    const count = graph.garbageByType().reduce((sum, n) => sum + n, 0);
    if (count === 0) this.#since.clear();
    else {
      const garbage = new Set(graph.garbage(0, PLACES_MAX));
      for (const id of this.#since.keys())
        if (garbage.size === count && !garbage.has(id)) this.#since.delete(id);
    }
    const [oldest] = this.#since.values();
    return oldest === undefined ? 0 : Math.max(0, this.#now() - oldest);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#listeners.clear();
  }

  async #look(): Promise<void> {
    const { graph } = this.#parts;
    clearTimeout(this.#timer);
    const at = this.#changedAt ?? this.#now();
    this.#changedAt = undefined;
    while (!this.#isClosed && !graph.bringUpToDate()) await yieldToEventLoop();
    if (this.#isClosed) return;
    const fresh = graph.freshGarbage();
    for (const id of fresh) {
      this.#since.delete(id);
      if (this.#since.size < OBJECTS_MAX) this.#since.set(id, at);
    }
    if (fresh.length > 0 || (!graph.stats().hasLiveMarks && this.#parts.hasDeletions()))
      for (const fn of this.#listeners) fn();
  }

  #now(): number {
    return this.#parts.now?.() ?? performance.now();
  }
}
