/**
 * The files of a store on disk: the owner of the directory, and whether the data file is one that may be opened. Called
 * when a store is opened, before LMDB sees the file, because LMDB would write to a foreign file and crash on a
 * truncated one. Nothing here changes the data file but `DataFile`, which belongs to an open store.
 *
 * Everything here is for the owner alone (0600, the directory 0700), whatever the umask.
 */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { EbbtideError, failedPrecondition, unknownError } from '../../../errors.js';
import { StoreInUse } from '../../../in-use.js';
import { allocate } from '../../../system/allocate.js';
import { type FileIdentity, identityOf } from '../../../system/file-identity.js';
import { HeldDirectory } from '../../../system/held-directory.js';
import { type LockFile, tryOwn } from '../../../system/lmdb/readers.js';
import { WrittenState } from '../../../system/lmdb/written-state.js';
import { lockHolder } from '../../../system/lock-holder.js';
import { makeDirectories } from '../../../system/make-directories.js';
import { openPrivate } from '../../../system/private-file.js';
import { syncDirectoryNow } from '../../../system/sync-directory.js';
import { errnoOf, fsError, isFull } from '../../../system/system-errors.js';

export const dataPath = (dir: string): string => join(dir, 'meta.mdb');
/** A data file that is being made. */
export const draftPath = (path: string): string => `${path}.new`;

/** A file system failure with its kind, path and remedy. */
export const fileError = (what: string, path: string, cause: unknown): EbbtideError =>
  cause instanceof EbbtideError ? cause : fsError(what, path, cause);

// -------------------------------------------------------------------------------------------------------- ownership

export interface Owner {
  readonly directory: HeldDirectory;
  /** The lock file, locked. */
  readonly lock: LockFile;
  /** Unavailable when the directory, or the lock in it, is not the one that was taken. */
  verify(): void;
  release(): void;
}

/** Makes the directory if need be (absolute) and takes its lock. The kernel ends the lock with the process. */
export function ownDirectory(dir: string): Owner {
  makeDirectory(dir);
  const directory = HeldDirectory.open(dir);
  try {
    directory.setMode(0o700);
    const path = join(directory.at, LOCK);
    const fd = openLock(path, constants.O_RDWR | constants.O_CREAT);
    let lock: FileIdentity;
    try {
      lock = identityOf(fd, path);
      if (!tryOwn(fd)) throw new StoreInUse(dir, lockHolder(path));
    } catch (error) {
      closeSync(fd);
      throw fileError('lock', path, error);
    }
    return {
      directory,
      lock: { fd, path },
      verify: () => {
        directory.verify();
        directory.verifyFile(LOCK, lock);
      },
      release: () => {
        closeSync(fd);
        directory.release();
      },
    };
  } catch (error) {
    directory.release();
    throw error;
  }
}

export const LOCK = 'lock';

function openLock(path: string, flags: number): number {
  try {
    return openPrivate(path, flags);
  } catch (error) {
    throw fileError('open', path, error);
  }
}

function makeDirectory(dir: string): void {
  try {
    const first = makeDirectories(dir, 0o700);
    if (first === undefined) return;
    const top = dirname(first);
    for (let at = dir; at !== top && at !== dirname(at); at = dirname(at)) syncDirectoryNow(dirname(at));
  } catch (error) {
    // A file in its place is reported by what opens the directory, as "not a directory".
    if (errnoOf(error) !== 'EEXIST') throw fileError('make the directory', dir, error);
  }
}

// -------------------------------------------------------------------------------------------------------- data file

const MAGIC = 0xbeefc0de;
/** Of the LMDB that the `lmdb` package links; others have another number. */
const LMDB_VERSION = 2;
/** Offsets in a meta page, after its header of 24 bytes. */
const Meta = { magic: 24, version: 28, pageSize: 48, lastPage: 144, transaction: 152, end: 160 } as const;

interface Header {
  pageSize: number;
  /** Bytes that the pages in use reach to. */
  usedBytes: number;
}

/** Whether there is a data file; throws when it is none that may be opened. It is only read. */
export function inspectDataFile(path: string): boolean {
  let fd: number;
  try {
    // A pipe in its place must not block.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw fileError('open', path, error);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw foreign(path, 'it is not a regular file');
    // What a crash leaves that came before the first write.
    if (stat.size === 0) return false;
    const header = readHeader(fd, path, stat.size);
    // It may grow meanwhile, before its header says so.
    const { size } = fstatSync(fd);
    if (size < header.usedBytes) {
      throw truncated(path, `it has ${size} bytes of ${header.usedBytes}`);
    }
    return true;
  } catch (error) {
    throw fileError('read', path, error);
  } finally {
    closeSync(fd);
  }
}

function readHeader(fd: number, path: string, size: number): Header {
  const page = Buffer.alloc(Meta.end);
  const first = readSync(fd, page, 0, Meta.end, 0);
  if (first < Meta.magic + 4 || page.readUInt32LE(Meta.magic) !== MAGIC) {
    throw foreign(path, 'it is not an LMDB file');
  }
  if (first < Meta.end) throw truncated(path, `it has ${size} bytes`);
  if (page.readUInt32LE(Meta.version) !== LMDB_VERSION) {
    throw foreign(path, `it is of LMDB format ${page.readUInt32LE(Meta.version)}`);
  }
  const pageSize = page.readUInt32LE(Meta.pageSize);
  if (pageSize < 256 || pageSize > 65536 || (pageSize & (pageSize - 1)) !== 0) {
    throw truncated(path, `its page size is ${pageSize}`);
  }
  const second = Buffer.alloc(Meta.end);
  const read = readSync(fd, second, 0, Meta.end, pageSize);
  if (read < Meta.end || second.readUInt32LE(Meta.magic) !== MAGIC) {
    throw truncated(path, 'its second page is missing');
  }
  const newest =
    second.readBigUInt64LE(Meta.transaction) > page.readBigUInt64LE(Meta.transaction) ? second : page;
  return { pageSize, usedBytes: (Number(newest.readBigUInt64LE(Meta.lastPage)) + 1) * pageSize };
}

export function foreign(path: string, why: string): EbbtideError {
  return failedPrecondition(`${path} is not a store of this program: ${why}`, {
    object: path,
    remedy: 'open another directory, or move the file away',
  });
}

function truncated(path: string, why: string): EbbtideError {
  return unknownError(`${path} is truncated or damaged: ${why}`, {
    object: path,
    remedy: 'restore it from a copy',
  });
}

/** Room kept after the last page, so that the file is never shorter than its header says. */
const CUSHION_BYTES = 16 * 1024 * 1024;

/**
 * Bytes after the last page that have blocks: removals write new pages before others are free, also on a full disk. A
 * transaction of the flusher changes as many at most.
 */
const RESERVE_BYTES_MIN = 2 * 1024 * 1024;
const RESERVE_BYTES_MAX = 16 * 1024 * 1024;
const reserveFor = (used: number): number =>
  Math.min(RESERVE_BYTES_MAX, Math.max(RESERVE_BYTES_MIN, Math.ceil(used / 8)));

/**
 * The data file of an open store. LMDB does not write pages that it frees in the transaction that added them, so the
 * file may end before its last page; a cushion (a hole, not disk space) keeps a healthy file from looking truncated.
 */
export class DataFile {
  readonly #fd: number;
  readonly #path: string;
  readonly #readOnly: boolean;
  #size: number;
  /** Bytes that have blocks, as far as is known. */
  #allocated = 0;
  readonly #written: WrittenState;

  /** @param written of the threads that have the file open, too */
  constructor(path: string, readOnly: boolean, written?: SharedArrayBuffer) {
    this.#path = path;
    this.#readOnly = readOnly;
    this.#fd = openSync(path, readOnly ? 'r' : 'r+');
    this.#written = new WrittenState(this.#fd, path, written);
    this.#size = fstatSync(this.#fd).size;
    this.keepCushion(0);
  }

  get fd(): number {
    return this.#fd;
  }

  /** For the threads that have the file open, too. */
  get written(): SharedArrayBuffer {
    return this.#written.shared;
  }

  /**
   * Runs a transaction that adds up to so many bytes. Unavailable when another program has written to the file. REQUIRES: no
   * other one is under way.
   */
  write(more: number, transaction: () => void): void {
    this.#written.verify();
    this.keepCushion(more);
    try {
      transaction();
    } finally {
      this.#written.note();
    }
    this.keepCushion(0);
  }

  /** Bytes of pages in use. */
  usedBytes(): number {
    return readHeader(this.#fd, this.#path, this.#size).usedBytes;
  }

  /**
   * Called before and after each transaction by its writer; `more` bytes are about to be added. REQUIRES: nothing else
   * writes to the file meanwhile, which could make it longer than it is made here.
   */
  keepCushion(more: number): void {
    if (this.#readOnly) return;
    const used = this.usedBytes() + more;
    if (used + CUSHION_BYTES / 2 <= this.#size) return;
    this.#size = Math.max(used + CUSHION_BYTES, fstatSync(this.#fd).size);
    ftruncateSync(this.#fd, this.#size);
  }

  /**
   * Sees to the reserve; false when the disk has no room for it. Cheap unless the file has grown. Any thread may call it
   * at any time: what LMDB writes is not touched.
   */
  keepReserve(): boolean {
    const used = this.usedBytes();
    const wanted = used + reserveFor(used);
    if (this.#readOnly || used + reserveFor(used) / 2 <= this.#allocated) return true;
    if (!allocate(this.#fd, this.#allocated, wanted - this.#allocated)) return false;
    this.#allocated = wanted;
    return true;
  }

  /** Lets go of the file, which others have open. */
  release(): void {
    closeSync(this.#fd);
  }

  /**
   * After LMDB has closed the file. It ends where its pages do, so that one that is cut off shows; the reserve stays after
   * the end, for the next owner may find the disk full. `isDiskFull`: on a disk where blocks that are given up may be gone.
   */
  close(isDiskFull = false): void {
    try {
      if (!this.#written.isOurs) return;
      const used = this.usedBytes();
      const reserve = this.#allocated === 0 ? 0 : reserveFor(used);
      if (!this.#readOnly) ftruncateSync(this.#fd, isDiskFull ? used + reserve : used);
      if (reserve > 0) allocate(this.#fd, used, reserve);
    } catch (error) {
      // A file system may need room to shorten a file (btrfs with a quota): it stays as long as it was.
      if (!isFull(error)) throw fileError('close', this.#path, error);
    } finally {
      closeSync(this.#fd);
    }
  }
}
