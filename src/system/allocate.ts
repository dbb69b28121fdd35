/**
 * Preallocates blocks of a file, so that a later write there cannot fail for lack of space. Called by the
 * engine, the metastore of snapshots and the history, whose removals must work on a full disk.
 */
import { fstatSync } from 'node:fs';
import { loadAddon } from './addon.js';

const addon = loadAddon('ebbtide_sys') as
  | { allocate?(fd: number, offset: number, bytes: number): number; writeInPlace?(fd: number): number }
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

/**
 * For a new file that is overwritten: where the file system would take other blocks for that (btrfs), a full disk would refuse.
 * The file loses that file system's checksums. Elsewhere, and without our addon, nothing changes.
 */
export function writeInPlace(fd: number): void {
  if (fstatSync(fd).size === 0) addon?.writeInPlace?.(fd);
}
