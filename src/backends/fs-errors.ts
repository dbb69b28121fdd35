/** File system failures as the backends take them; for all others, system-errors.ts. Pure. */
import { type EbbtideError, unknownError } from '../errors.js';
import { errnoOf, fsError, messageOf } from '../system/system-errors.js';

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

/** Why a file cannot have another name: on another file system, too many already, not permitted, or not known there. */
export const NO_LINK: ReadonlySet<string> = new Set([
  'EXDEV',
  'EMLINK',
  'EPERM',
  'ENOTSUP',
  'EOPNOTSUPP',
  'ENOSYS',
]);
