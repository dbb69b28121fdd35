/**
 * Readers beside the owner of an LMDB file, who write nothing. LMDB's own table of readers is a file that each of them
 * writes to, which a read-only mount, or another user, cannot. Here a reader locks a range of the lock file of the store instead,
 * for which it need only read that file, and the kernel ends the lock with the process:
 *
 *   [0, READERS)               the owner, alone
 *   [READERS + t, end)         a reader whose state is that of transaction t, or a later one; shared
 *
 * Before each of its transactions the owner looks whether there are readers. While there are, it retains the state of that
 * moment for them by a read transaction of its own, which LMDB respects.
 *
 * Why that is enough: transaction w uses pages again that were freed up to transaction w - 2, which states up to w - 3 had.
 * A reader that comes after the owner's look before w finds w - 1 or w. It is seen by the look before w + 1, which retains w:
 * from then on pages are used that were freed up to w - 1, which states up to w - 2 had. When the oldest retained state is
 * needed by nobody any more, it goes, also while readers come and go all the time.
 *
 * What an owner retained ends with it. The next one waits for readers of states before the one it finds (`awaitOlderReaders`).
 * Owners of earlier versions lock the whole file, so that readers are refused beside them, and they beside readers.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { tryLock, unlock } from 'fs-native-extensions';
import type { RootDatabase } from 'lmdb';
import { unavailable } from '../errors.js';
import { loadAddon } from './addon.js';
import { retain, type Snapshot } from './lmdb.js';
import { lockHolder, lockReader } from './lock-holder.js';
import { fsError, isAbsent } from './system-errors.js';

const READERS = 2 ** 40;
/** More transactions than any file will see. */
const ALL = 2 ** 48;
const TO_END = 0;
/** For readers of states that nobody can retain any more. */
const PATIENCE_MS = 5000;
const LOOK_AGAIN_MS = 50;
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
export const tryOwn = (fd: number): boolean => tryLock(fd, 0, READERS);

/** Whether anybody owns the file. */
export const isOwned = (fd: number): boolean => addon?.isLocked?.(fd, 0, READERS) === true;

/**
 * From now on the owner retains the newest state of the file at `path`, and those that come, for as long as the descriptor
 * is open that this returns: of the lock file. Undefined: there is none, as in a copy, so that nobody owns the file.
 * Unavailable beside an owner of an earlier version.
 */
export function enterAsReader(lockPath: string, path: string): number | undefined {
  let fd: number;
  try {
    fd = openSync(lockPath, 'r');
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw fsError('open', lockPath, error);
  }
  try {
    if (tryLock(fd, READERS + newestTransaction(path), TO_END, { shared: true })) return fd;
  } catch (error) {
    closeSync(fd);
    throw fsError('lock', lockPath, error);
  }
  const holder = lockHolder(lockPath);
  closeSync(fd);
  throw unavailable(`${path} is in use by ${holder}, of a version that lets nobody read beside it`, {
    object: path,
    remedy: 'close it there and try again',
  });
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

/** Of states before this transaction. */
function hasReaders(fd: number, before: number): boolean {
  if (before === 0) return false;
  if (addon?.isLocked !== undefined) return addon.isLocked(fd, READERS, READERS + before) === true;
  if (!tryLock(fd, READERS, before)) return true;
  unlock(fd, READERS, before);
  return false;
}

/** The last transaction that was committed to a file, which must be an LMDB file. */
export function newestTransaction(path: string): number {
  const fd = openSync(path, 'r');
  try {
    const first = metaPage(fd, 0);
    const second = metaPage(fd, first.readUInt32LE(Meta.pageSize));
    const transactions = [first, second].map((page) => Number(page.readBigUInt64LE(Meta.transaction)));
    return Math.max(...transactions);
  } finally {
    closeSync(fd);
  }
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
  const until = performance.now() + PATIENCE_MS;
  while (hasReaders(lock.fd, newestTransaction(path))) {
    if (performance.now() > until) {
      throw unavailable(
        `${lockReader(lock.path)} still reads a state of ${lock.path} that an earlier owner kept for it`,
        {
          object: lock.path,
          remedy: 'end that process, or wait until it has ended, and try again',
        },
      );
    }
    await sleep(LOOK_AGAIN_MS);
  }
}

interface Retained {
  readonly transaction: number;
  release(): void;
}

/** What the owner of a file does for its readers. */
export class Readers {
  readonly #lock: number;
  readonly #path: string;
  readonly #env: RootDatabase;
  /** The oldest that may be needed, and one that takes its place. */
  #retained: Retained[] = [];

  /**
   * @param lock descriptor of the lock file
   * @param path of the data file
   */
  constructor(lock: number, path: string, env: RootDatabase) {
    this.#lock = lock;
    this.#path = path;
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
    const newest = newestTransaction(this.#path);
    if (this.#retained.length > 1 || last?.transaction === newest) return;
    const state = retain(this.#env);
    this.#retained.push({ transaction: newest, release: () => state.done() });
  }

  /** Before the file is closed. */
  release(): void {
    for (const state of this.#retained.splice(0)) state.release();
  }
}
