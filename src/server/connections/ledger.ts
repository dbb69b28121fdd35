/**
 * Memory that clients make the daemon keep: requests under way, answers that are not read, events that are not fetched,
 * calls that are open. One ledger for a daemon, an account for each connection; accounts of one user share.
 *
 * Nobody has a fixed part. A connection may have half of what is free then, and always a little; so one alone gets a
 * third of all, and however many want all they can get, something is left for the next (dynamic thresholds, as switches
 * share their buffers). Users share in the same way among themselves, and root leaves less for others than they for it.
 */

/** How the owner of an account shows that it gets on, and is ended when it does not and others wait for its memory. */
export interface AccountOwner {
  /** Whether contents went in or out since this was asked last. */
  moved(): boolean;
  end(): void;
}

/** While somebody waits for room, those who have much are looked at so often, and are ended when they stand still so often. */
const LOOK_MS = 1000;
const STILL_MAX = 5;
/** Parts of all: what must be in use for that, and what an account must have. */
const SCARCE_PART = 1 / 2;
const MUCH_PART = 1 / 64;

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
  readonly #owners = new Map<Account, { owner: AccountOwner; still: number }>();
  #look: NodeJS.Timeout | undefined;
  #bytes = 0;
  #scheduled = false;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  /** Bytes that are kept for all clients. */
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

  /** Has `fn` called once when there is more room than now. */
  whenRoom(fn: () => void): void {
    this.#waiting.add(fn);
    this.#look ??= setInterval(() => this.#lookAround(), LOOK_MS).unref();
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

  close(account: Account, uid: number, user: User): void {
    this.#owners.delete(account);
    if (--user.accounts === 0 && user.bytes === 0) this.#users.delete(uid);
  }

  /** Of those that keep much and stand still, ends the one that keeps most. */
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
    this.ledger.close(this, this.#uid, this.#user);
  }
}
