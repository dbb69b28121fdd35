/**
 * Which calls of one connection begin, and when. A call that its client has given up, or that was ended for a mistake or
 * a deadline, counts until its service is done with it: opening and dropping calls gives nobody more work than its share.
 * Calls for which there is no room wait here, and cost nothing when they are given up before they begin.
 *
 * Room is a number of calls and the memory that they are expected to take (call-cost.ts). Called by exchange.ts;
 * connection.ts asks it to go on.
 */
import type { Account } from '../connections/ledger.js';
import { CALL_BYTES, type CallCost } from './call-cost.js';

export interface GatedCall {
  /** Its deadline has come. */
  expire(): void;
  readonly cost: CallCost;
  /** Begins, with `bytes` taken for it. `leave` is to be called once. */
  begin(bytes: number): void;
  /** It is its turn again. */
  goOn(): void;
}

/** Calls that take much leave this part of the connection's share to those that take little. */
const LARGE_PART = 3 / 4;
const LARGE_BYTES = 4 * CALL_BYTES;
/** However large answers have been: a call is to fit when little else is there. */
const RESERVED_PART = 1 / 8;

export class CallGate {
  readonly memory: Account;
  readonly #max: number;
  readonly #wake: () => void;
  readonly #small = new Set<GatedCall>();
  readonly #large = new Set<GatedCall>();
  readonly #expired = new Set<GatedCall>();
  /** Calls that have begun, have done what they may in a turn and have more to do. */
  readonly #turns = new Set<GatedCall>();
  #running = 0;
  #asked = false;
  /** How often a service got something to do: it does that when nothing else is done in this turn. */
  steps = 0;

  /** `max` calls at once. `wake`: calls that wait may begin, by `resume`. */
  constructor(max: number, memory: Account, wake: () => void) {
    this.#max = max;
    this.memory = memory;
    this.#wake = wake;
  }

  get running(): number {
    return this.#running;
  }

  /** Begins the call, at once or when there is room. */
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

  /** Has the call's end taken care of in the connection's time: many deadlines may come together. */
  expires(call: GatedCall): void {
    this.#expired.add(call);
    this.#wake();
  }

  /** Has the call go on after those that wait already. */
  waitsForTurn(call: GatedCall): void {
    this.#turns.add(call);
    this.#wake();
  }

  /** Has the next call go on; false: none waits for its turn. */
  goOn(): boolean {
    const [call] = this.#turns;
    if (call === undefined) return false;
    this.#turns.delete(call);
    call.goOn();
    return true;
  }

  /** The call waits no more. */
  forget(call: GatedCall): void {
    this.#expired.delete(call);
    if (!this.#small.delete(call)) this.#large.delete(call);
  }

  /** A call has ended, and its service is done with it. */
  leave(): void {
    this.#running--;
    if (this.#small.size > 0 || this.#large.size > 0) this.#wake();
  }

  /** Ends a call whose time is over, or begins the next that waits and has room; false: there is none. */
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
