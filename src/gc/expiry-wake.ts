/**
 * Wakes the scheduler when the next lease, image or ingest expires: nothing else would happen on an idle host. Used by
 * scheduler.ts. Looks for the next expiry after each collection, and after mutations at most once a second. One timer.
 */
import type { Engine } from '../engine/contract.js';
import { NodeFlag } from '../engine/contract.js';
import type { Instant } from '../model/time.js';

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
  /** The wall clock that expiries are compared with. */
  time(): Instant;
  setTimeout(fn: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
}

const CHANGES_MS = 1000;
/** Longest a timer is set for: wall clocks are set, and timers have 31 bits. */
const LONGEST_MS = 3_600_000;
const NANOS_PER_MILLI = 1_000_000n;

export class ExpiryWake {
  readonly #parts: WakeParts;
  #timer: unknown;
  /** A look is planned because of a mutation; it must not be put off by later ones. */
  #looksSoon = false;
  /** Expiries up to then were seen by a collection. */
  #seen: Instant = 0n;
  #closed = false;

  constructor(parts: WakeParts) {
    this.#parts = parts;
    this.#plan(0);
  }

  /** Something changed: an expiry may have come or moved. */
  changed(): void {
    if (this.#looksSoon || this.#closed) return;
    this.#looksSoon = true;
    this.#plan(CHANGES_MS);
  }

  /** A collection that began at `at` has succeeded. */
  collected(at: Instant): void {
    this.#seen = at;
    this.#look();
  }

  close(): void {
    this.#closed = true;
    this.#parts.clearTimeout(this.#timer);
  }

  #look(): void {
    if (this.#closed) return;
    this.#looksSoon = false;
    let next: Instant | undefined;
    try {
      next = this.#parts.nextExpiry(this.#seen);
    } catch {
      return; // The store was closed; its scheduler is next.
    }
    if (next === undefined) {
      this.#parts.clearTimeout(this.#timer);
      return;
    }
    // Expired means strictly later.
    const left = Number((next - this.#parts.time()) / NANOS_PER_MILLI) + 1;
    if (left > 0) {
      this.#plan(Math.min(left, LONGEST_MS));
      return;
    }
    // Seen once: what a collection cannot take, since something keeps it, must not wake again and again.
    this.#seen = this.#parts.time();
    this.#parts.wake();
    this.#plan(LONGEST_MS);
  }

  #plan(ms: number): void {
    this.#parts.clearTimeout(this.#timer);
    this.#timer = this.#parts.setTimeout(() => this.#look(), ms);
  }
}
