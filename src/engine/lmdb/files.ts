/**
 * The files of a store on disk: who owns the directory, and whether the data file is one that may be opened. Called
 * when a store is opened, before LMDB sees the file, because LMDB would write to a foreign file and crash on a
 * truncated one. Nothing here changes the data file but `DataFile`, which belongs to an open store.
 */
import { closeSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { tryLock } from 'fs-native-extensions';
import { EbbtideError, type ErrorKind, failedPrecondition, unavailable, unknownError } from '../../errors.js';

export const dataPath = (dir: string): string => join(dir, 'meta.mdb');
const lockPath = (dir: string): string => join(dir, 'lock');

const meanings: Readonly<Record<string, readonly [ErrorKind, string]>> = {
  EACCES: ['FailedPrecondition', 'give this user access to the path, or run as its owner'],
  EPERM: ['FailedPrecondition', 'give this user access to the path, or run as its owner'],
  EROFS: ['FailedPrecondition', 'mount the file system read-write, or open the store read-only'],
  ENOTDIR: ['FailedPrecondition', 'move the file away that stands where a directory belongs'],
  EISDIR: ['FailedPrecondition', 'move the directory away that stands where a file belongs'],
  ENOENT: ['NotFound', 'check the path'],
  ENOSPC: ['Unavailable', 'make room on the disk'],
  EDQUOT: ['Unavailable', 'make room in the quota'],
  EIO: ['Unavailable', 'check the disk: the kernel log has the details'],
};

/** A file system failure with its kind, path and remedy. */
export function fileError(what: string, path: string, cause: unknown): EbbtideError {
  if (cause instanceof EbbtideError) return cause;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const [kind, remedy] = meanings[code] ?? (['Unknown', undefined] as const);
  const text = cause instanceof Error ? cause.message : String(cause);
  return new EbbtideError(kind, `cannot ${what} ${path}: ${text}`, { object: path, remedy, cause });
}

// -------------------------------------------------------------------------------------------------------- ownership

/** Makes the directory if need be and takes its lock. The kernel ends the lock with the process. */
export function ownDirectory(dir: string, readOnly: boolean): { release: () => void } {
  const path = lockPath(dir);
  let fd: number;
  try {
    if (!readOnly) makeDirectory(dir);
    fd = openSync(path, readOnly ? 'r' : 'a+', 0o644);
  } catch (error) {
    throw fileError('open', path, error);
  }
  try {
    if (!tryLock(fd, { shared: readOnly })) {
      throw unavailable(`the store in ${dir} is in use by another process`, {
        object: dir,
        remedy: 'close the other process, or open another directory',
      });
    }
  } catch (error) {
    closeSync(fd);
    throw fileError('lock', path, error);
  }
  return { release: () => closeSync(fd) };
}

/** Puts a new file's name on disk: without it a power cut could leave the store's bytes without a name. */
export function syncDirectory(dir: string): void {
  for (const path of [dir, dirname(resolve(dir))]) {
    const fd = openSync(path, 'r');
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }
}

function makeDirectory(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o711 });
  } catch (error) {
    // A file in its place is told by what opens the lock in it, as "not a directory".
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
}

// -------------------------------------------------------------------------------------------------------- data file

const MAGIC = 0xbeefc0de;
/** Of the LMDB that the `lmdb` package links; others have another number. */
const LMDB_VERSION = 2;
/** Offsets in a meta page, behind its header of 24 bytes. */
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
    fd = openSync(path, 'r');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw fileError('open', path, error);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw foreign(path, 'it is no regular file');
    // What a crash leaves that came before the first write.
    if (stat.size === 0) return false;
    const header = readHeader(fd, path, stat.size);
    if (stat.size < header.usedBytes) {
      throw truncated(path, `it has ${stat.size} bytes of ${header.usedBytes}`);
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
    throw foreign(path, 'it is no LMDB file');
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
  return failedPrecondition(`${path} is no store of this program: ${why}`, {
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

/** Room kept behind the last page, so that the file is never shorter than its header says. */
const CUSHION_BYTES = 16 * 1024 * 1024;

/**
 * The data file of an open store. LMDB does not write pages that it frees in the transaction that added them, so the
 * file may end before its last page; a cushion (a hole, not disk space) keeps a healthy file from looking truncated.
 */
export class DataFile {
  readonly #fd: number;
  readonly #path: string;
  readonly #readOnly: boolean;
  #size: number;

  constructor(path: string, readOnly: boolean) {
    this.#path = path;
    this.#readOnly = readOnly;
    this.#fd = openSync(path, readOnly ? 'r' : 'r+');
    this.#size = fstatSync(this.#fd).size;
    this.keepCushion(0);
  }

  /** Bytes of pages in use. */
  usedBytes(): number {
    return readHeader(this.#fd, this.#path, this.#size).usedBytes;
  }

  /**
   * Called before and after each transaction by whoever writes it; `more` bytes are about to be added. Nobody else may
   * write to the file meanwhile, who could make it longer than it is made here.
   */
  keepCushion(more: number): void {
    if (this.#readOnly) return;
    const used = this.usedBytes() + more;
    if (used + CUSHION_BYTES / 2 <= this.#size) return;
    this.#size = Math.max(used + CUSHION_BYTES, fstatSync(this.#fd).size);
    ftruncateSync(this.#fd, this.#size);
  }

  /** Lets go of the file, which others have open. */
  release(): void {
    closeSync(this.#fd);
  }

  /** After LMDB has closed the file. */
  close(): void {
    if (!this.#readOnly) ftruncateSync(this.#fd, this.usedBytes());
    closeSync(this.#fd);
  }
}
