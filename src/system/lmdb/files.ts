/**
 * The files that LMDB opens: private to their owner, and as a full disk needs them. Called by the engine and by the metastore of
 * snapshots, before LMDB opens a file for the first time in a process.
 */
import { closeSync, constants, fstatSync, rmSync, writeSync } from 'node:fs';
import { openPrivate } from '../private-file.js';
import { locksInMemory } from './lmdb.js';

/** The file of LMDB's own locks and readers, where they are not in memory. */
export const lmdbLockPath = (path: string): string => `${path}-lock`;

const LOCK_BYTES = 16 * 1024;

/**
 * Makes the file, if need be. LMDB maps its lock file and writes to it, which ends the process when the disk has no block for it:
 * even one that has blocks, where a file system writes to others (btrfs). So the locks, which only threads of this process share, are in
 * memory; without our addon the file gets its blocks here.
 */
export function prepareFiles(path: string): void {
  closeSync(openPrivate(path, constants.O_RDWR | constants.O_CREAT));
  if (locksInMemory()) {
    rmSync(lmdbLockPath(path), { force: true });
    return;
  }
  const fd = openPrivate(lmdbLockPath(path), constants.O_RDWR | constants.O_CREAT);
  try {
    const { size, blocks } = fstatSync(fd);
    if (size < LOCK_BYTES || blocks * 512 < size)
      writeSync(fd, Buffer.alloc(Math.max(size, LOCK_BYTES)), 0, undefined, 0);
  } finally {
    closeSync(fd);
  }
}
