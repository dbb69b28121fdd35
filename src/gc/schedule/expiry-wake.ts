/**
 * Wakes the scheduler when the next lease, image or ingest expires: nothing else would happen on an idle host. Used by
 * scheduler.ts. Looks for the next expiry after each collection, and after mutations at most once a second. One timer.
 */
import type { Engine } from '../../engine/contract.js';
import { NodeFlag } from '../../engine/contract.js';
import type { Instant } from '../../model/time.js';
import type { ExpiryTime } from './expiry-clock.js';

/**
 * The earliest expiry later than `after` among what is a root until then; undefined when there is none. Looks at every
 * node that expires.
 */
export function nextExpiry({ graph }: Engine, after: Instant): Instant | undefined {
  let next: Instant | undefined;
  for (const id of graph.withFlags(NodeFlag.present | NodeFlag.root | NodeFlag.expires)) {
    const expiry = graph.expiryOf(id);
    if (expiry !== undefined && expiry > after && (next === undefined || expiry < next)) next = expiry;
  }
  return next;
}

export interface WakeParts {
  nextExpiry(after: Instant): Instant | undefined;
  /** Called when something has expired. */
  wake(): void;
  /** What expiries are compared with. */
  readonly time: ExpiryTime;
  setTimeout(fn: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
}

const CHANGES_MS = 1000;
/** Longest that a change of the wall clock goes unnoticed: timers know nothing of it. */
const LOOK_MS = 60_000;

export class ExpiryWake {
  readonly #parts: WakeParts;
  #timer: unknown;
  /** A search is planned because of a mutation; it must not be put off by later ones. */
  #searchesSoon = false;
  /** Expiries up to then were seen by a collection. */
  #seen: Instant = 0n;
  /** The next expiry, as far as known. */
  #next: Instant | undefined;
  #closed = false;

  constructor(parts: WakeParts) {
    this.#parts = parts;
    this.#plan(0, () => this.#search());
  }

  /** Something changed: an expiry may have come or moved. */
  changed(): void {
    if (this.#searchesSoon || this.#closed) return;
    this.#searchesSoon = true;
    this.#plan(CHANGES_MS, () => this.#search());
  }

  /** A collection that began at `at` has succeeded. */
  collected(at: Instant): void {
    this.#seen = at;
    this.#search();
  }

  close(): void {
    this.#closed = true;
    this.#parts.clearTimeout(this.#timer);
  }

  /** Looks at all expiries. */
  #search(): void {
    if (this.#closed) return;
    this.#searchesSoon = false;
    const now = this.#parts.time.now();
    // The clock was set back: what is made from now on may expire before what was seen.
    if (now < this.#seen) this.#seen = now;
    try {
      this.#next = this.#parts.nextExpiry(this.#seen);
    } catch {
      return; // The store was closed; its scheduler is next.
    }
    this.#check();
  }

  /** Compares the next expiry with the time. */
  #check(): void {
    const { time, wake } = this.#parts;
    if (time.now() < this.#seen) {
      this.#search();
      return;
    }
    const left = this.#next === undefined ? LOOK_MS : time.msUntil(this.#next);
    if (left > 0) {
      this.#plan(Math.min(left, LOOK_MS), () => this.#check());
      return;
    }
    // Seen once: what a collection cannot take, since something keeps it, must not wake again and again.
    this.#seen = time.now();
    this.#next = undefined;
    wake();
    this.#plan(LOOK_MS, () => this.#search());
  }

  #plan(ms: number, then: () => void): void {
    this.#parts.clearTimeout(this.#timer);
    this.#timer = this.#parts.setTimeout(then, ms);
  }
}
