/** File system errors that backends treat specially; for all others see system-errors.ts. Pure. */
import { type EbbtideError, unknownError } from '../errors.js';
import { errnoOf, fsError, messageOf } from '../system/system-errors.js';

/**
 * Like `fsError`, for internal paths: that one of them is missing or in the way says nothing about the
 * caller's object, so it is Unknown.
 */
export function diskError(what: string, path: string, cause: unknown): EbbtideError {
  const code = errnoOf(cause);
  if (code !== 'ENOENT' && code !== 'EEXIST') return fsError(what, path, cause);
  return unknownError(`cannot ${what} ${path}: ${messageOf(cause)}`, {
    object: path,
    remedy: 'another program changed the directory: only this program may use it',
    cause,
  });
}

/**
 * Errors of link(2) for which a copy is the alternative: another file system, too many links, not permitted,
 * or not supported.
 */
export const NO_LINK: ReadonlySet<string> = new Set([
  'EXDEV',
  'EMLINK',
  'EPERM',
  'ENOTSUP',
  'EOPNOTSUPP',
  'ENOSYS',
]);
