/**
 * File system failures as errors of this package: the kind a caller can act on, the path, and what to do about
 * it. Called by everything in backends/ that touches the disk; pure.
 */
import { EbbtideError, type ErrorKind, kindOf, unknownError } from '../errors.js';

interface Meaning {
  kind: ErrorKind;
  remedy?: string;
}

const meanings: Readonly<Record<string, Meaning>> = {
  ENOENT: { kind: 'NotFound' },
  EEXIST: { kind: 'AlreadyExists' },
  EACCES: { kind: 'FailedPrecondition', remedy: 'give this user access to the path, or run as its owner' },
  EPERM: { kind: 'FailedPrecondition', remedy: 'run as root, or with the capability the operation needs' },
  EROFS: { kind: 'FailedPrecondition', remedy: 'mount the file system read-write' },
  ENOTDIR: { kind: 'FailedPrecondition', remedy: 'move the file away that stands where a directory belongs' },
  EISDIR: { kind: 'FailedPrecondition', remedy: 'move the directory away that stands where a file belongs' },
  ENAMETOOLONG: { kind: 'FailedPrecondition', remedy: 'use a shorter root directory' },
  ENOSPC: { kind: 'Unavailable', remedy: 'free disk space (for example by a collection) and try again' },
  EDQUOT: { kind: 'Unavailable', remedy: "raise the user's disk quota or free space, and try again" },
  EMFILE: { kind: 'Unavailable', remedy: 'raise the limit of open files (ulimit -n)' },
  ENFILE: { kind: 'Unavailable', remedy: 'raise the limit of open files of the system' },
  EBUSY: { kind: 'Unavailable', remedy: 'unmount what uses the path and try again' },
  EIO: { kind: 'Unavailable', remedy: 'check the disk: the kernel log has the details' },
};

/** The `code` of a Node-style system error; undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** ENOENT: the path, or one of its parents, is not there. */
export const isAbsent = (error: unknown): boolean => errnoOf(error) === 'ENOENT';

/** `cannot <what> <path>: <cause>`; a cause that already has a kind keeps it. */
export function fsError(what: string, path: string, cause: unknown): EbbtideError {
  const meaning = meanings[errnoOf(cause) ?? ''];
  const text = cause instanceof Error ? cause.message : String(cause);
  const inner = cause instanceof EbbtideError ? cause : undefined;
  return new EbbtideError(meaning?.kind ?? kindOf(cause), `cannot ${what} ${path}: ${text}`, {
    object: path,
    remedy: meaning?.remedy ?? inner?.remedy,
    cause,
  });
}

/**
 * Like `fsError`, for paths the caller knows nothing of: that one of them is missing or in the way is no answer
 * about the object he named, so it is Unknown.
 */
export function diskError(what: string, path: string, cause: unknown): EbbtideError {
  const code = errnoOf(cause);
  if (code !== 'ENOENT' && code !== 'EEXIST') return fsError(what, path, cause);
  return unknownError(`cannot ${what} ${path}: ${messageOf(cause)}`, {
    object: path,
    remedy: 'somebody else changed the directory: leave it to this program alone',
    cause,
  });
}

/** What went wrong, in a line, for logs and removal reports. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
