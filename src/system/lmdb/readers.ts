/**
 * Readers beside the owner of an LMDB file that write nothing. LMDB's own reader table is a file that each
 * reader writes to, which is impossible on a read-only mount or as another user. Here a reader locks a range
 * of the store's lock file instead, which only needs read access, and the kernel releases the lock with the
 * process:
 *
 *   [0, LEAVE)            the owner, exclusive
 *   [LEAVE]               an owner that waits for readers to leave
 *   [READERS + t, end)    a reader whose state is that of transaction t, or a later one; shared
 *
 * Before each of its transactions the owner checks whether there are readers. While there are, it pins the
 * current state for them by a read transaction of its own, which LMDB respects.
 *
 * Why that is enough: transaction w reuses pages that were freed up to transaction w - 2, which belong to
 * states up to w - 3. A reader that arrives after the owner's check before w finds w - 1 or w. The check
 * before w + 1 sees it and pins w: from then on only pages are reused that were freed up to w - 1, which
 * belong to states up to w - 2. When no reader needs the oldest pinned state any more, it is unpinned, even
 * while readers keep coming and going.
 *
 * A pin ends with its owner. Before it writes, the next owner asks readers of states before the one it finds
 * to leave, and waits for them (`awaitOlderReaders`); their reads fail with Unavailable from then on. Owners
 * of earlier versions lock the whole file, so that readers are refused beside them, and they beside readers.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { tryLock, unlock } from 'fs-native-extensions';
import type { RootDatabase } from 'lmdb';
import { EbbtideError, unavailable } from '../../errors.js';
import { loadAddon } from '../addon.js';
import { lockHolder, lockReader } from '../lock-holder.js';
import { fsError, isAbsent } from '../system-errors.js';
import { retain, type Snapshot } from './lmdb.js';

const LEAVE = 2 ** 39;
const READERS = 2 ** 40;
/** More transactions than any file will ever have. */
const ALL = 2 ** 48;
const TO_END = 0;
/**
 * How long an owner waits for readers of states that cannot be pinned any more; they poll the request to leave.
 */
const PATIENCE_MS = 10_000;
const LOOK_AGAIN_MS = 50;
const LEAVE_LOOK_MS = 500;
const ATTEMPTS_MAX = 40;
/** Offsets in a meta page. */
const Meta = { pageSize: 48, transaction: 152, end: 160 } as const;

const addon = loadAddon('ebbtide_sys') as
  | { isLocked?(fd: number, from: number, to: number): boolean | number }
  | undefined;

/** An open lock file. */
export interface LockFile {
  readonly fd: number;
  readonly path: string;
}

/**
 * Locks the file for the owner by this descriptor; false if there is an owner, or a reader of an earlier
 * version.
 */
export const tryOwn = (fd: number): boolean => tryLock(fd, 0, LEAVE);

/**
 * A reader's lock. While it is held, the owner pins the state that the file had when it was taken, and later
 * ones.
 */
export class ReaderSeat {
  readonly #path: string;
  /** Descriptor of the lock file; undefined if there is none, as in a copy, so that no process owns the file. */
  #lock: number | undefined;
  readonly #from: number;
  #timer: NodeJS.Timeout | undefined;

  private constructor(path: string, lock: number | undefined, from: number) {
    this.#path = path;
    this.#lock = lock;
    this.#from = from;
  }

  /**
   * @param path of the data file
   * @throws Unavailable beside an owner of an earlier version
   */
  static take(lockPath: string, path: string): ReaderSeat {
    const from = newestTransaction(path);
    const lock = openLock(lockPath);
    if (lock === undefined) return new ReaderSeat(path, lock, from);
    try {
      if (tryLock(lock, READERS + from, TO_END, { shared: true })) return new ReaderSeat(path, lock, from);
      throw unavailable(
        `${path} is in use by ${lockHolder(lockPath)}, of a version that does not allow readers beside it`,
        {
          object: path,
          remedy: 'close it there and try again',
        },
      );
    } catch (error) {
      closeSync(lock);
      throw error instanceof EbbtideError ? error : fsError('lock', lockPath, error);
    }
  }

  /** Whether the file has an owner. */
  get isOwned(): boolean {
    return this.#lock !== undefined && isLocked(this.#lock, 0, LEAVE);
  }

  get #isOlder(): boolean {
    try {
      return newestTransaction(this.#path) > this.#from;
    } catch {
      // The file is gone.
      return true;
    }
  }

  /** Releases the lock when a new owner asks for it, after `leave` has ended all reads. */
  leaveOnRequest(leave: (why: EbbtideError) => void): void {
    if (this.#lock === undefined) return;
    this.#timer = setInterval(() => {
      if (this.#lock === undefined || !isLocked(this.#lock, LEAVE, LEAVE + 1)) return;
      if (!this.#isOlder) return;
      leave(
        unavailable(`${this.#path} has been opened for writing by another process since it was read`, {
          object: this.#path,
          remedy: 'open it again',
        }),
      );
      this.leave();
    }, LEAVE_LOOK_MS).unref();
  }

  /** Idempotent. */
  leave(): void {
    clearInterval(this.#timer);
    if (this.#lock !== undefined) closeSync(this.#lock);
    this.#lock = undefined;
  }
}

function openLock(path: string): number | undefined {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw fsError('open', path, error);
  }
}

/**
 * Moves to the newest state of the file. Without LMDB's locks the meta page can be overwritten while it is
 * read: then it is read again.
 */
export function takeNewest(snapshot: Snapshot, path: string): void {
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    const before = newestTransaction(path);
    snapshot.take();
    if (newestTransaction(path) === before) return;
  }
  throw unavailable(`${path} changes too fast to be read`, { object: path, remedy: 'try again' });
}

/** Whether there are readers of states before this transaction. */
const hasReaders = (fd: number, before: number): boolean =>
  before > 0 && isLocked(fd, READERS, READERS + before);

/** Whether others lock a part of the file. */
function isLocked(fd: number, from: number, to: number): boolean {
  if (addon?.isLocked !== undefined) return addon.isLocked(fd, from, to) === true;
  if (!tryLock(fd, from, to - from)) return true;
  unlock(fd, from, to - from);
  return false;
}

/** The last committed transaction of a file. REQUIRES: it is an LMDB file. */
export function newestTransaction(path: string): number {
  try {
    const fd = openSync(path, 'r');
    try {
      return newestIn(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw fsError('read', path, error);
  }
}

/** The same of an open file. */
export function newestIn(fd: number): number {
  const first = metaPage(fd, 0);
  const second = metaPage(fd, first.readUInt32LE(Meta.pageSize));
  const transactions = [first, second].map((page) => Number(page.readBigUInt64LE(Meta.transaction)));
  return Math.max(...transactions);
}

function metaPage(fd: number, at: number): Buffer {
  const page = Buffer.alloc(Meta.end);
  readSync(fd, page, 0, Meta.end, at);
  return page;
}

/**
 * Called before the owner of a file writes to it for the first time. Waits for readers of states before the
 * current one, which an earlier owner pinned. Unavailable when they do not leave in time.
 */
export async function awaitOlderReaders(path: string, lock: LockFile): Promise<void> {
  const isOlderRead = (): boolean => hasReaders(lock.fd, newestTransaction(path));
  if (!isOlderRead()) return;
  tryLock(lock.fd, LEAVE, 1);
  try {
    for (const until = performance.now() + PATIENCE_MS; isOlderRead(); await sleep(LOOK_AGAIN_MS)) {
      if (performance.now() > until) throw readersStay(lock.path);
    }
  } finally {
    unlock(lock.fd, LEAVE, 1);
  }
}

const readersStay = (path: string): EbbtideError =>
  unavailable(
    `${lockReader(path)} still reads a state of the store at ${path} that an earlier owner kept for it`,
    {
      object: path,
      remedy: 'end that process and try again',
    },
  );

interface Retained {
  readonly transaction: number;
  release(): void;
}

/** The owner's side: pins states for the readers of its file. */
export class Readers {
  readonly #lock: number;
  readonly #file: number;
  readonly #env: RootDatabase;
  /** The oldest state that may be needed, and the one that replaces it. */
  #retained: Retained[] = [];

  /**
   * @param lock descriptor of the lock file
   * @param file descriptor of the data file, whatever its name leads to by now
   */
  constructor(lock: number, file: number, env: RootDatabase) {
    this.#lock = lock;
    this.#file = file;
    this.#env = env;
  }

  /** REQUIRES: called before each write transaction, from any thread, while none is under way. */
  look(): void {
    if (!hasReaders(this.#lock, ALL)) {
      this.release();
      return;
    }
    const [, younger] = this.#retained;
    if (younger !== undefined && !hasReaders(this.#lock, younger.transaction))
      this.#retained.shift()?.release();
    const last = this.#retained.at(-1);
    const newest = newestIn(this.#file);
    if (this.#retained.length > 1 || last?.transaction === newest) return;
    const state = retain(this.#env);
    this.#retained.push({ transaction: newest, release: () => state.done() });
  }

  /** REQUIRES: called before the file is closed. */
  release(): void {
    for (const state of this.#retained.splice(0)) state.release();
  }
}
