/** Called by what gives a file another name instead of a copy. */

/** It cannot have one: on another file system, too many already, not permitted, or not known there. */
export const NO_LINK: ReadonlySet<string> = new Set([
  'EXDEV',
  'EMLINK',
  'EPERM',
  'ENOTSUP',
  'EOPNOTSUPP',
  'ENOSYS',
]);
