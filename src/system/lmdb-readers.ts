/**
 * Readers beside the owner of an LMDB file, who write nothing. LMDB's own table of readers is a file that each of them
 * writes to, which a read-only mount, or another user, cannot. Here a reader locks a range of the lock file of the store instead,
 * for which it need only read that file, and the kernel ends the lock with the process:
 *
 *   [0, LEAVE)            the owner, alone
 *   [LEAVE]               an owner that waits for readers to leave
 *   [READERS + t, end)    a reader whose state is that of transaction t, or a later one; shared
 *
 * Before each of its transactions the owner looks whether there are readers. While there are, it retains the state of that
 * moment for them by a read transaction of its own, which LMDB respects.
 *
 * Why that is enough: transaction w uses pages again that were freed up to transaction w - 2, which states up to w - 3 had.
 * A reader that comes after the owner's look before w finds w - 1 or w. It is seen by the look before w + 1, which retains w:
 * from then on pages are used that were freed up to w - 1, which states up to w - 2 had. When the oldest retained state is
 * needed by nobody any more, it goes, also while readers come and go all the time.
 *
 * What an owner retained ends with it. The next one, before it writes, asks readers of states before the one it finds to leave,
 * and waits for them (`awaitOlderReaders`); their reads are Unavailable from then on. Owners of earlier versions lock the
 * whole file, so that readers are refused beside them, and they beside readers.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { tryLock, unlock } from 'fs-native-extensions';
import type { RootDatabase } from 'lmdb';
import { EbbtideError, unavailable } from '../errors.js';
import { loadAddon } from './addon.js';
import { retain, type Snapshot } from './lmdb.js';
import { lockHolder, lockReader } from './lock-holder.js';
import { fsError, isAbsent } from './system-errors.js';

const LEAVE = 2 ** 39;
const READERS = 2 ** 40;
/** More transactions than any file will see. */
const ALL = 2 ** 48;
const TO_END = 0;
/** For readers of states that nobody can retain any more, who look so often whether they are to leave. */
const PATIENCE_MS = 10_000;
const LOOK_AGAIN_MS = 50;
const LEAVE_LOOK_MS = 500;
const ATTEMPTS_MAX = 40;
/** Offsets in a meta page. */
const Meta = { pageSize: 48, transaction: 152, end: 160 } as const;

const addon = loadAddon('ebbtide_sys') as
  | { isLocked?(fd: number, from: number, to: number): boolean | number }
  | undefined;

/** As it is open. */
export interface LockFile {
  readonly fd: number;
  readonly path: string;
}

/** Makes this descriptor of the lock file the owner's; false: it has one, or a reader of an earlier version. */
export const tryOwn = (fd: number): boolean => tryLock(fd, 0, LEAVE);

/** The place of a reader at a file: while it has it, the owner retains the state that the file had then, and later ones. */
export class ReaderSeat {
  readonly #path: string;
  /** Descriptor of the lock file; undefined: there is none, as in a copy, so that nobody owns the file. */
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
   * Unavailable beside an owner of an earlier version.
   */
  static take(lockPath: string, path: string): ReaderSeat {
    const from = newestTransaction(path);
    const lock = openLock(lockPath);
    if (lock === undefined) return new ReaderSeat(path, lock, from);
    try {
      if (tryLock(lock, READERS + from, TO_END, { shared: true })) return new ReaderSeat(path, lock, from);
      throw unavailable(
        `${path} is in use by ${lockHolder(lockPath)}, of a version that lets nobody read beside it`,
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

  /** Whether anybody owns the file. */
  get isOwned(): boolean {
    return this.#lock !== undefined && isLocked(this.#lock, 0, LEAVE);
  }

  get #isOlder(): boolean {
    try {
      return newestTransaction(this.#path) > this.#from;
    } catch {
      // The file has gone.
      return true;
    }
  }

  /** Gives the place up when a new owner waits for it, after `leave` has ended all reading. */
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

  /** Again: nothing. */
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
 * Takes the newest state of the file. Without LMDB's locks the page that tells of it can be written while it is read: then
 * again.
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

/** Whether others have a lock on a part of the file. */
function isLocked(fd: number, from: number, to: number): boolean {
  if (addon?.isLocked !== undefined) return addon.isLocked(fd, from, to) === true;
  if (!tryLock(fd, from, to - from)) return true;
  unlock(fd, from, to - from);
  return false;
}

/** The last transaction that was committed to a file, which must be an LMDB file. */
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

function newestIn(fd: number): number {
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
 * Before the owner of a file writes to it for the first time: waits for readers of states before the present one, which
 * an earlier owner retained. Unavailable when they do not end soon.
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

/** What the owner of a file does for its readers. */
export class Readers {
  readonly #lock: number;
  readonly #file: number;
  readonly #env: RootDatabase;
  /** The oldest that may be needed, and one that takes its place. */
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

  /** To be called before each transaction that writes, by any thread, while none is under way. */
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

  /** Before the file is closed. */
  release(): void {
    for (const state of this.#retained.splice(0)) state.release();
  }
}
