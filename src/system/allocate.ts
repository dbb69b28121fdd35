/**
 * Preallocates blocks of a file, so that a later write there cannot fail for lack of space. Called by the
 * engine and the metastore of snapshots, whose removals must work on a full disk.
 */
import { loadAddon } from './addon.js';

const addon = loadAddon('ebbtide_sys') as
  | { allocate?(fd: number, offset: number, bytes: number): number }
  | undefined;

const ENOSPC = 28;
const EDQUOT = 122;

/**
 * Changes neither content nor size of the file. Returns false if the disk, or the quota, has no room for all
 * of it. Returns true also if the file system cannot do it (or the addon is missing): such a store has no
 * reserve.
 */
export function allocate(fd: number, offset: number, bytes: number): boolean {
  const errno = addon?.allocate?.(fd, offset, bytes) ?? 0;
  return errno !== ENOSPC && errno !== EDQUOT;
}
