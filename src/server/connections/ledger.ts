/**
 * Memory that clients make the daemon keep: pending requests, unread responses, unfetched events, open calls.
 * One ledger for a daemon, one account for each connection; the accounts of one user share.
 *
 * There is no fixed quota. A connection may have half of what is free at the time, and always a small
 * minimum; so a single one gets a third of the total, and however many take all they can get, something is
 * left for the next (dynamic thresholds, as in switches with shared buffers). Users share in the same way,
 * and root leaves less for others than they leave for it.
 */

/**
 * How the owner of an account shows progress, and how it is ended if it makes none while others wait for
 * memory.
 */
export interface AccountOwner {
  /** Whether content went in or out since the last call. */
  moved(): boolean;
  end(): void;
}

/**
 * While an account waits for room, the large ones are checked at this interval, and ended if they make no
 * progress for one interval.
 */
const LOOK_MS = 1000;
const STILL_MAX = 5;
/**
 * Fractions of the total: what must be in use before accounts are checked, and the size of an account that is
 * checked.
 */
const SCARCE_PART = 1 / 2;
const MUCH_PART = 1 / 64;

/** Granted regardless of what is free. */
export const GUARANTEED_BYTES = 64 * 1024;
/** Bytes that an account may have for each byte that is free. */
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
  readonly #owners = new Map<Account, { owner: AccountOwner; still: number }>();
  #look: NodeJS.Timeout | undefined;
  #bytes = 0;
  #scheduled = false;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  /** Bytes kept for all clients. */
  get bytes(): number {
    return this.#bytes;
  }

  open(uid: number, owner: AccountOwner): Account {
    let user = this.#users.get(uid);
    if (user === undefined) {
      user = { bytes: 0, accounts: 0 };
      this.#users.set(uid, user);
    }
    user.accounts++;
    const account = new Account(this, uid, user);
    this.#owners.set(account, { owner, still: 0 });
    return account;
  }

  /** Calls `fn` once when there is more room than now. */
  whenRoom(fn: () => void): void {
    this.#waiting.add(fn);
    this.#look ??= setInterval(() => this.#lookAround(), LOOK_MS).unref();
  }
  forget(fn: () => void): void {
    this.#waiting.delete(fn);
  }

  /** Used by Account only. */
  add(user: User, bytes: number): void {
    user.bytes += bytes;
    this.#bytes += bytes;
    if (bytes < 0 && this.#waiting.size > 0) this.#wake();
  }

  /**
   * Used by Account only: the most that one account, and its user's accounts together, may have after this
   * many more bytes.
   */
  mayHave(uid: number, bytes: number): { account: number; user: number } {
    const free = this.bytesMax - this.#bytes - bytes;
    return { account: free * CONNECTION_PART, user: free * (uid === ROOT ? ROOT_PART : USER_PART) };
  }

  close(account: Account, uid: number, user: User): void {
    this.#owners.delete(account);
    if (--user.accounts === 0 && user.bytes === 0) this.#users.delete(uid);
  }

  /** Ends the largest of the large accounts that make no progress. */
  #lookAround(): void {
    if (this.#waiting.size === 0) {
      clearInterval(this.#look);
      this.#look = undefined;
      for (const entry of this.#owners.values()) entry.still = 0;
      return;
    }
    let found: [Account, AccountOwner] | undefined;
    for (const [account, entry] of this.#owners) {
      entry.still = entry.owner.moved() ? 0 : entry.still + 1;
      if (entry.still < STILL_MAX || account.bytes < this.bytesMax * MUCH_PART) continue;
      if (found === undefined || account.bytes > found[0].bytes) found = [account, entry.owner];
    }
    if (this.#bytes >= this.bytesMax * SCARCE_PART) found?.[1].end();
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

/** The memory kept for one connection. Every byte taken or forced has to be given back. */
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

  /** Whether this many more bytes fit into the account's share, or into a fraction of it. */
  fits(bytes: number, part = 1): boolean {
    const own = this.#bytes + bytes;
    if (own <= GUARANTEED_BYTES) return true;
    const most = this.ledger.mayHave(this.#uid, bytes);
    return own <= most.account * part && this.#user.bytes + bytes <= most.user;
  }

  /** Takes all or nothing; returns false for nothing. */
  take(bytes: number): boolean {
    if (!this.fits(bytes)) return false;
    this.force(bytes);
    return true;
  }

  /** Takes unconditionally, for data that is already there. */
  force(bytes: number): void {
    this.#bytes += bytes;
    this.ledger.add(this.#user, bytes);
  }

  give(bytes: number): void {
    if (bytes > 0) this.force(-bytes);
  }

  /** Takes nothing more; what is still kept is given back by its users. */
  close(): void {
    this.ledger.close(this, this.#uid, this.#user);
  }
}
