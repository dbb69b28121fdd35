/**
 * Blocks for a part of a file before they are needed, so that writing there later cannot fail for want of room. Called by
 * the engine and the metastore of snapshots, whose removals must work on a full disk.
 */
import { loadAddon } from './addon.js';

const addon = loadAddon('ebbtide_sys') as
  | { allocate?(fd: number, offset: number, bytes: number): number }
  | undefined;

const ENOSPC = 28;
const EDQUOT = 122;

/**
 * Neither contents nor size of the file change. False: the disk, or the quota, has no room for all of it. True also where
 * the file system (or a package without its addon) cannot say: such a store has no reserve.
 */
export function allocate(fd: number, offset: number, bytes: number): boolean {
  const errno = addon?.allocate?.(fd, offset, bytes) ?? 0;
  return errno !== ENOSPC && errno !== EDQUOT;
}
