/**
 * Admits the calls of one connection. A call that its client has cancelled, or that was ended for a mistake
 * or a deadline, counts until its service has finished with it, so opening and dropping calls does not get a
 * client more than its share of work. Calls without room wait here, and cost nothing when they are cancelled
 * before they begin.
 *
 * Room is a number of calls, and the memory that they are expected to take (call-cost.ts). Called by
 * exchange.ts; connection.ts resumes it.
 */
import type { Account } from '../connections/ledger.js';
import { CALL_BYTES, type CallCost } from './call-cost.js';

export interface GatedCall {
  /** Its deadline has passed. */
  expire(): void;
  readonly cost: CallCost;
  /** Begins the call, for which `bytes` were taken. The caller calls `leave` once. */
  begin(bytes: number): void;
  /** Resumes the call after a yield. */
  goOn(): void;
}

/** Large calls leave the rest of the connection's share to small ones. */
const LARGE_PART = 3 / 4;
const LARGE_BYTES = 4 * CALL_BYTES;
/**
 * Upper bound on the estimate, however large responses have been, so that a call fits when little else is
 * open.
 */
const RESERVED_PART = 1 / 8;

export class CallGate {
  readonly memory: Account;
  readonly #max: number;
  readonly #wake: () => void;
  readonly #small = new Set<GatedCall>();
  readonly #large = new Set<GatedCall>();
  readonly #expired = new Set<GatedCall>();
  /** Calls that have yielded and have more to do. */
  readonly #yielded = new Set<GatedCall>();
  #running = 0;
  #asked = false;
  /**
   * How often a service was given something to do; it does it once the current event-loop turn has finished
   * its other work.
   */
  steps = 0;

  /**
   * @param max calls at once
   * @param wake called when waiting calls may begin, by `resume`
   */
  constructor(max: number, memory: Account, wake: () => void) {
    this.#max = max;
    this.memory = memory;
    this.#wake = wake;
  }

  get running(): number {
    return this.#running;
  }

  /** Begins the call, now or when there is room. */
  enter(call: GatedCall): void {
    const bytes = this.#bytesOf(call);
    const waiting = this.#setOf(bytes);
    if (waiting.size === 0 && this.#has(bytes)) {
      this.#begin(call, bytes);
      return;
    }
    waiting.add(call);
    this.#wake();
  }

  /** Expires the call in the connection's own slices, because many deadlines may pass together. */
  expires(call: GatedCall): void {
    this.#expired.add(call);
    this.#wake();
  }

  /** Resumes the call after those that have yielded before it. */
  resumeLater(call: GatedCall): void {
    this.#yielded.add(call);
    this.#wake();
  }

  /** Resumes the next call that has yielded; returns false if there is none. */
  goOn(): boolean {
    const [call] = this.#yielded;
    if (call === undefined) return false;
    this.#yielded.delete(call);
    call.goOn();
    return true;
  }

  /** The call no longer waits. */
  forget(call: GatedCall): void {
    this.#expired.delete(call);
    if (!this.#small.delete(call)) this.#large.delete(call);
  }

  /** A call has ended and its service has finished with it. */
  leave(): void {
    this.#running--;
    if (this.#small.size > 0 || this.#large.size > 0) this.#wake();
  }

  /**
   * Ends a call whose deadline has passed, or begins the next waiting one if there is room; returns false if
   * there was neither.
   */
  resume(): boolean {
    const [late] = this.#expired;
    if (late !== undefined) {
      this.#expired.delete(late);
      late.expire();
      return true;
    }
    if (this.#small.size === 0 && this.#large.size === 0) return false;
    for (const waiting of [this.#small, this.#large]) {
      const [call] = waiting;
      if (call === undefined) continue;
      const bytes = this.#bytesOf(call);
      if (!this.#has(bytes)) continue;
      waiting.delete(call);
      this.#begin(call, bytes);
      return true;
    }
    this.#askForRoom();
    return false;
  }

  close(): void {
    this.memory.ledger.forget(this.#onRoom);
  }

  #begin(call: GatedCall, bytes: number): void {
    this.memory.force(bytes);
    this.#running++;
    this.steps++;
    call.begin(bytes);
  }

  #has(bytes: number): boolean {
    return this.#running < this.#max && this.memory.fits(bytes, bytes > LARGE_BYTES ? LARGE_PART : 1);
  }

  #askForRoom(): void {
    if (this.#asked) return;
    this.#asked = true;
    this.memory.ledger.whenRoom(this.#onRoom);
  }

  readonly #onRoom = (): void => {
    this.#asked = false;
    this.#wake();
  };

  #bytesOf(call: GatedCall): number {
    return Math.min(call.cost.bytes, Math.floor(this.memory.ledger.bytesMax * RESERVED_PART));
  }

  #setOf(bytes: number): Set<GatedCall> {
    return bytes > LARGE_BYTES ? this.#large : this.#small;
  }
}
