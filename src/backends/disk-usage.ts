/**
 * What a tree takes on disk, as `du` counts: allocated blocks, directories included, a file with several names
 * once. Called by the snapshotters for the usage of a snapshot. The tree may be in use: what vanishes while it is
 * being counted is left out.
 */
import type { Stats } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { errnoOf } from '../system/system-errors.js';
import type { Usage } from './contract.js';
import { eachLimit, entryName, orAbsent, SLASH } from './files.js';

const PARALLEL = 8;
export const BLOCK_BYTES = 512;

/** Inodes and bytes of the tree, its top included; zero when it is not there. `see` is called for each entry. */
export async function diskUsage(tree: string, see?: (path: Buffer, stats: Stats) => void): Promise<Usage> {
  const usage: Usage = { inodes: 0, size: 0 };
  const counted = new Set<string>();
  const directories: Buffer[] = [];

  const count = async (path: Buffer): Promise<void> => {
    const stats = await orUnreachable(lstat(path));
    if (stats === null) return;
    see?.(path, stats);
    if (stats.isDirectory()) directories.push(path);
    else if (stats.nlink > 1) {
      const inode = `${stats.dev}:${stats.ino}`;
      if (counted.has(inode)) return;
      counted.add(inode);
    }
    usage.inodes++;
    usage.size += stats.blocks * BLOCK_BYTES;
  };

  await count(Buffer.from(tree));
  for (let path = directories.pop(); path !== undefined; path = directories.pop()) {
    const directory = path;
    const entries = await orUnreachable(readdir(directory, { encoding: 'buffer', withFileTypes: true }));
    await eachLimit(entries ?? [], PARALLEL, (entry) =>
      count(Buffer.concat([directory, SLASH, entryName(entry)])),
    );
  }
  return usage;
}

/** `null` for what is gone, and for what lies deeper than a path can say (a hostile tree must not block a commit). */
async function orUnreachable<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await orAbsent(work);
  } catch (error) {
    if (errnoOf(error) === 'ENAMETOOLONG') return null;
    throw error;
  }
}
