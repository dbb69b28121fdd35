/** Files that only their owner may read and write: a process that can read a file can lock it. */
import { closeSync, fchmodSync, fstatSync, openSync } from 'node:fs';
import { errnoOf } from './system-errors.js';

/** Opens a file, making it if the flags say so, that only the owner may read and write from now on, whatever the umask. */
export function openPrivate(path: string, flags: number): number {
  const fd = openSync(path, flags, 0o600);
  try {
    if ((fstatSync(fd).mode & 0o777) !== 0o600) fchmodSync(fd, 0o600);
  } catch (error) {
    // Whose file it is decides.
    if (errnoOf(error) !== 'EPERM') {
      closeSync(fd);
      throw error;
    }
  }
  return fd;
}
