/**
 * Memory that clients make the daemon keep: requests under way, answers that are not read, events that are not fetched,
 * calls that are open. One ledger for a daemon, an account for each connection; accounts of one user share.
 *
 * Nobody has a fixed part. A connection may have half of what is free then, and always a little; so one alone gets a
 * third of all, and however many want all they can get, something is left for the next (dynamic thresholds, as switches
 * share their buffers). Users share in the same way among themselves, and root leaves less for others than they for it.
 */

/** Without asking how much is left. */
export const GUARANTEED_BYTES = 64 * 1024;
/** Bytes that an account may have for each that is free. */
const CONNECTION_PART = 1 / 2;
const USER_PART = 2;
const ROOT_PART = 4;
const ROOT = 0;

interface User {
  bytes: number;
  accounts: number;
}

export class Ledger {
  readonly bytesMax: number;
  readonly #users = new Map<number, User>();
  readonly #waiting = new Set<() => void>();
  #bytes = 0;
  #scheduled = false;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  /** Bytes that are kept for all clients. */
  get bytes(): number {
    return this.#bytes;
  }

  open(uid: number): Account {
    let user = this.#users.get(uid);
    if (user === undefined) {
      user = { bytes: 0, accounts: 0 };
      this.#users.set(uid, user);
    }
    user.accounts++;
    return new Account(this, uid, user);
  }

  /** Has `fn` called once when there is more room than now. */
  whenRoom(fn: () => void): void {
    this.#waiting.add(fn);
  }
  forget(fn: () => void): void {
    this.#waiting.delete(fn);
  }

  /** For accounts only. */
  add(user: User, bytes: number): void {
    user.bytes += bytes;
    this.#bytes += bytes;
    if (bytes < 0 && this.#waiting.size > 0) this.#wake();
  }

  /** For accounts only: the most that one account, and its user's together, may have after so many bytes more. */
  mayHave(uid: number, bytes: number): { account: number; user: number } {
    const free = this.bytesMax - this.#bytes - bytes;
    return { account: free * CONNECTION_PART, user: free * (uid === ROOT ? ROOT_PART : USER_PART) };
  }

  close(uid: number, user: User): void {
    if (--user.accounts === 0 && user.bytes === 0) this.#users.delete(uid);
  }

  #wake(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      const waiting = [...this.#waiting];
      this.#waiting.clear();
      for (const fn of waiting) fn();
    });
  }
}

/** What is kept for one connection. Every byte that is taken or forced is to be given back. */
export class Account {
  readonly ledger: Ledger;
  readonly #uid: number;
  readonly #user: User;
  #bytes = 0;

  constructor(ledger: Ledger, uid: number, user: User) {
    this.ledger = ledger;
    this.#uid = uid;
    this.#user = user;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether so many bytes more are within the account's share, or within a part of it. */
  fits(bytes: number, part = 1): boolean {
    const own = this.#bytes + bytes;
    if (own <= GUARANTEED_BYTES) return true;
    const most = this.ledger.mayHave(this.#uid, bytes);
    return own <= most.account * part && this.#user.bytes + bytes <= most.user;
  }

  /** All or nothing; false: nothing. */
  take(bytes: number): boolean {
    if (!this.fits(bytes)) return false;
    this.force(bytes);
    return true;
  }

  /** For what is there already. */
  force(bytes: number): void {
    this.#bytes += bytes;
    this.ledger.add(this.#user, bytes);
  }

  give(bytes: number): void {
    if (bytes > 0) this.force(-bytes);
  }

  /** No more will be taken; what is still there is given back by its owners. */
  close(): void {
    this.ledger.close(this.#uid, this.#user);
  }
}
