/** Disk usage of a directory, counted as `du` does. */
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';

/** Allocated bytes of everything below `root`, hard links counted once; 0 when it does not exist. */
export async function diskUsage(root: string): Promise<number> {
  const seen = new Set<string>();
  let bytes = 0;
  const queue = [root];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const s = await lstat(path).catch(() => undefined);
    if (s === undefined) continue;
    if (s.nlink > 1 && !s.isDirectory()) {
      const inode = `${s.dev}:${s.ino}`;
      if (seen.has(inode)) continue;
      seen.add(inode);
    }
    bytes += s.blocks * 512;
    if (s.isDirectory())
      for (const entry of await readdir(path).catch(() => [])) queue.push(join(path, entry));
  }
  return bytes;
}
