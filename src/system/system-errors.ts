/**
 * What the system's errors mean to a caller: the kind, and the remedy. One table for everything that touches
 * a disk; called by the engine, the backends, images, cli and server.
 */
import { existsSync } from 'node:fs';
import { EbbtideError, type ErrorKind, kindOf } from '../errors.js';
import { DESCRIPTORS, shown } from '../held-paths.js';
import { errnoName, isUnnamed, withNames } from './errno-names.js';

interface Meaning {
  kind: ErrorKind;
  remedy?: string;
}

/** For the user of a command, and for the operator of a daemon or a program. */
export const OPEN_AGAIN =
  'open the store again: run the command again, or restart the daemon or the program that has it';
const DAMAGED = 'check the file system (fsck): the kernel log has the details';
export const WRITTEN_INTO = `a restore does that: stop what has it open, restore it again, then ${OPEN_AGAIN}`;
const FULL = 'free disk space (`ebbtide gc` works on a full disk too) and try again';

const meanings: Readonly<Record<string, Meaning>> = {
  ENOENT: { kind: 'NotFound' },
  EEXIST: { kind: 'AlreadyExists' },
  EACCES: { kind: 'FailedPrecondition', remedy: 'give this user access to the path, or run as its owner' },
  EPERM: {
    kind: 'FailedPrecondition',
    remedy:
      'run as root, or with the capability the operation needs; root, too, may not change what is immutable (lsattr)',
  },
  EROFS: { kind: 'FailedPrecondition', remedy: 'mount the file system read-write' },
  ENOTDIR: { kind: 'FailedPrecondition', remedy: 'move the file away: a directory belongs there' },
  EISDIR: { kind: 'FailedPrecondition', remedy: 'move the directory away: a file belongs there' },
  ENOTEMPTY: { kind: 'FailedPrecondition', remedy: 'empty the directory, or name another one' },
  ENAMETOOLONG: { kind: 'FailedPrecondition', remedy: 'use a shorter path' },
  ELOOP: { kind: 'FailedPrecondition', remedy: 'name a path without a cycle of links' },
  EXDEV: {
    kind: 'FailedPrecondition',
    remedy:
      'keep the directory on one file system, with nothing mounted inside; in a container, on a volume, not in its image',
  },
  EFBIG: {
    kind: 'FailedPrecondition',
    remedy: 'raise the limit of file sizes (ulimit -f), or use another file system',
  },
  ENOSPC: { kind: 'Unavailable', remedy: FULL },
  EDQUOT: { kind: 'Unavailable', remedy: "raise the user's disk quota or free space, and try again" },
  EMFILE: { kind: 'Unavailable', remedy: 'raise the limit of open files (ulimit -n)' },
  ENFILE: { kind: 'Unavailable', remedy: 'raise the limit of open files of the system' },
  ENOMEM: { kind: 'Unavailable', remedy: 'free memory and try again' },
  EBUSY: { kind: 'Unavailable', remedy: 'unmount what uses the path and try again' },
  EAGAIN: {
    kind: 'Unavailable',
    remedy: 'try again, or raise the limit of threads and processes (ulimit -u, TasksMax of a unit)',
  },
  EIO: { kind: 'Unavailable', remedy: 'check the disk: the kernel log has the details' },
  EUCLEAN: { kind: 'Unavailable', remedy: DAMAGED },
  EBADMSG: { kind: 'Unavailable', remedy: DAMAGED },
  ESTALE: { kind: 'Unavailable', remedy: 'remount the network file system' },
  MDB_PANIC: {
    kind: 'Unavailable',
    remedy: `${OPEN_AGAIN}; the kernel log has the details`,
  },
  MDB_READERS_FULL: {
    kind: 'Unavailable',
    remedy: 'close other processes that read the store, and try again',
  },
  MDB_BAD_RSLOT: {
    kind: 'Unavailable',
    remedy: `another program has written into the open store; ${WRITTEN_INTO}`,
  },
  MDB_MAP_FULL: { kind: 'Unavailable', remedy: OPEN_AGAIN },
  MDB_CORRUPTED: { kind: 'Unknown', remedy: 'restore the file from a copy' },
  MDB_PAGE_NOTFOUND: { kind: 'Unknown', remedy: 'restore the file from a copy' },
  ENOTCONN: { kind: 'Unavailable', remedy: 'remount the file system: its server has gone' },
};

/** The `code` of a Node-style system error; undefined for anything else, including errors of this package. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof EbbtideError || !('code' in error)) return undefined;
  if (typeof error.code !== 'string') return undefined;
  const { code, errno } = error as NodeJS.ErrnoException & { code: string };
  return isUnnamed(code) && errno !== undefined ? errnoName(-errno) : code;
}

/**
 * Whether an error came from the system, whatever kind it was given: a disk that is read-only fails a precondition, too, and
 * breaks no rule of ours. Of what a daemon sends there is the text only, which begins with the code as Node writes it.
 */
export function isOfSystem(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 32; at = at.cause, depth++)
    if (errnoOf(at) !== undefined) return true;
  return error instanceof Error && /(^|: )E[A-Z]{2,}: /.test(error.message);
}

/** ENOENT: the path, or one of its parents, does not exist. */
export const isAbsent = (error: unknown): boolean => errnoOf(error) === 'ENOENT';

/** No space or inodes left: on the disk, or in the user's quota. */
export const isFull = (error: unknown): boolean => {
  const code = errnoOf(error instanceof EbbtideError ? error.cause : error);
  return code === 'ENOSPC' || code === 'EDQUOT';
};

/**
 * Whether what is to be removed cannot be renamed first, but can be removed: a full disk has no space for another name, and overlayfs
 * does not rename a directory of a lower layer (EXDEV).
 */
export const isStuck = (error: unknown): boolean => isFull(error) || errnoOf(error) === 'EXDEV';

/** The remedy for an error, by its code. */
export const remedyOf = (code: string): string | undefined => meanings[code]?.remedy;

/** `cannot <what> <path>: <cause>`; a cause that already has a kind keeps it. */
export function fsError(what: string, path: string, cause: unknown): EbbtideError {
  const meaning = lacksProc(cause) ? WITHOUT_PROC : meanings[errnoOf(cause) ?? ''];
  const text = textOf(cause);
  const inner = cause instanceof EbbtideError ? cause : undefined;
  return new EbbtideError(meaning?.kind ?? kindOf(cause), `cannot ${what} ${path}: ${text}`, {
    object: path,
    remedy: meaning?.remedy ?? inner?.remedy,
    cause,
  });
}

const WITHOUT_PROC: Meaning = {
  kind: 'FailedPrecondition',
  remedy: 'mount /proc: directories that are open are reached through it',
};

/** Whether what is missing is not a file, but the way to it. */
function lacksProc(error: unknown): boolean {
  const { path } = error as NodeJS.ErrnoException;
  return isAbsent(error) && path?.startsWith(DESCRIPTORS) === true && !existsSync(DESCRIPTORS);
}

/**
 * The last word on an error, where it leaves the program: one of the system that nobody has given a kind gets it here. That a
 * path is missing or in the way says nothing about the caller's object.
 */
export function meant(thrown: unknown): unknown {
  const error = firstOf(thrown);
  if (kindOf(error) !== 'Unknown') return error;
  for (let at = error, depth = 0; at instanceof Error && depth < 32; at = at.cause, depth++) {
    const code = errnoOf(at) ?? '';
    if ((at as NodeJS.ErrnoException).syscall === 'uv_cwd') return new EbbtideError(...noDirectory(error));
    const meaning = meanings[code];
    if (meaning === undefined || isAbsent(at) || code === 'EEXIST' || meaning.kind === 'Unknown') continue;
    const { object, remedy = meaning.remedy }: Partial<EbbtideError> =
      error instanceof EbbtideError ? error : {};
    return new EbbtideError(meaning.kind, textOf(error), { object, remedy, cause: error });
  }
  return error;
}

/** Of an error, and what then failed on the way out (`using`), the error. */
function firstOf(thrown: unknown): unknown {
  let error = thrown;
  while (error instanceof Error && error.name === 'SuppressedError' && 'suppressed' in error)
    error = error.suppressed;
  return error;
}

/** Node's words for a relative path then name neither the path nor the directory. */
const noDirectory = (cause: unknown): ConstructorParameters<typeof EbbtideError> => [
  'FailedPrecondition',
  'the working directory has been removed',
  { remedy: 'change to another directory, or give paths that begin with /', cause },
];

/** What went wrong, in one line, for logs and removal reports. */
export const messageOf = (error: unknown): string => shown(textOf(error));

/** An error's message; numbers of the system have names. */
export function textOf(error: unknown): string {
  if (!(error instanceof Error)) return withNames(String(error));
  const { errno } = error as NodeJS.ErrnoException;
  return withNames(error.message, errno && -errno);
}
