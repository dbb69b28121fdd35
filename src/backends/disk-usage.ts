/**
 * Disk usage of a tree, as `du` counts: allocated blocks, including directories; a file with several names
 * counts once. Called by the snapshotters for the usage of a snapshot. The tree may be in use: what
 * disappears during the count is left out, and nothing outside it is counted (held-tree.ts).
 */
import type { Stats } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { errnoOf } from '../system/system-errors.js';
import type { Usage } from './contract.js';
import { eachLimit, entryName } from './files.js';
import { below, HeldTree, isReplaced } from './held-tree.js';

const PARALLEL = 8;
export const BLOCK_BYTES = 512;

/**
 * Inodes and bytes of the tree, including its top; zero when it does not exist. `see` is called for each
 * entry.
 */
export async function diskUsage(tree: string, see?: (path: Buffer, stats: Stats) => void): Promise<Usage> {
  const usage: Usage = { inodes: 0, size: 0 };
  const counted = new Set<string>();
  const path = Buffer.from(tree);
  const directories: Buffer[] = [];

  const count = async (at: Buffer, name: Buffer): Promise<void> => {
    const stats = await orUnreachable(lstat(at));
    if (stats === null) return;
    see?.(below(path, name), stats);
    if (stats.isDirectory()) directories.push(name);
    else if (stats.nlink > 1) {
      const inode = `${stats.dev}:${stats.ino}`;
      if (counted.has(inode)) return;
      counted.add(inode);
    }
    usage.inodes++;
    usage.size += stats.blocks * BLOCK_BYTES;
  };
  const countIn = async (directory: Buffer, prefix: Buffer): Promise<void> => {
    const entries = await orUnreachable(readdir(prefix, { encoding: 'buffer', withFileTypes: true }));
    await eachLimit(entries ?? [], PARALLEL, (entry) => {
      const name = entryName(entry);
      return count(Buffer.concat([prefix, name]), below(directory, name));
    });
  };

  await count(path, Buffer.alloc(0));
  if (directories.length === 0) return usage;
  const held = await orUnreachable(Promise.resolve(path).then((top) => new HeldTree(top)));
  try {
    for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
      const directory = next;
      await orUnreachable(held?.inside(directory, (prefix) => countIn(directory, prefix)));
    }
  } finally {
    held?.close();
  }
  return usage;
}

/**
 * `null` for what is gone, and for what is deeper than the limit of a path (a hostile tree must not block a
 * commit).
 */
async function orUnreachable<T>(work: Promise<T> | undefined): Promise<T | null> {
  try {
    return (await work) ?? null;
  } catch (error) {
    if (isReplaced(error) || errnoOf(error) === 'ENAMETOOLONG') return null;
    throw error;
  }
}
