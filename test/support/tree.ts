/** Describes a directory tree in lines that can be compared: everything a layer carries. */
import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { sys } from '../../src/backends/sys.js';

export interface TreeOptions {
  /** Leave times of directories out (they change when entries are removed by some tools). */
  ignoreDirTimes?: boolean;
}

/** path → type, mode, owner, times, links, device, extended attributes, content hash. */
export function describeTree(root: string, options: TreeOptions = {}): Map<string, string> {
  const lines = new Map<string, string>();
  const firstOf = new Map<string, string>();
  const queue = ['.'];
  for (let path = queue.shift(); path !== undefined; path = queue.shift()) {
    const full = join(root, path);
    const s = lstatSync(full);
    const parts = [(s.mode & 0o170000).toString(8), (s.mode & 0o7777).toString(8), `${s.uid}:${s.gid}`];
    if (!(s.isDirectory() && options.ignoreDirTimes)) parts.push(`mtime=${Math.floor(s.mtimeMs / 1000)}`);
    if (s.isSymbolicLink()) parts.push(`-> ${readlinkSync(full)}`);
    if (s.isBlockDevice() || s.isCharacterDevice()) parts.push(`rdev=${s.rdev}`);
    if (s.isFile()) {
      parts.push(createHash('sha256').update(readFileSync(full)).digest('hex'));
      if (s.nlink > 1) {
        const inode = `${s.dev}:${s.ino}`;
        parts.push(`hard=${firstOf.get(inode) ?? path}`);
        if (!firstOf.has(inode)) firstOf.set(inode, path);
      }
    }
    if (!s.isSymbolicLink() && sys.xattrSupported) {
      for (const name of sys.llistxattr(full).sort()) {
        if (name.startsWith('trusted.overlay.') || name.startsWith('user.overlay.')) continue;
        parts.push(`${name}=${sys.lgetxattr(full, name)?.toString('hex')}`);
      }
    }
    lines.set(path, parts.join(' '));
    if (s.isDirectory()) {
      for (const entry of readdirSync(full).sort()) queue.push(join(path, entry));
    }
  }
  return lines;
}

/** The differences of two trees, a line each; empty when they are equal. */
export function treeDifferences(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): string[] {
  const differences: string[] = [];
  for (const path of [...new Set([...a.keys(), ...b.keys()])].sort()) {
    if (a.get(path) !== b.get(path)) differences.push(`${path}\n  - ${a.get(path)}\n  + ${b.get(path)}`);
  }
  return differences;
}

/** Disk bytes in use below a directory (allocated blocks; hard links once). */
export function diskUsage(root: string): number {
  const seen = new Set<string>();
  let bytes = 0;
  const queue = [root];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const s = lstatSync(path);
    const inode = `${s.dev}:${s.ino}`;
    if (seen.has(inode)) continue;
    seen.add(inode);
    bytes += s.blocks * 512;
    if (s.isDirectory()) for (const entry of readdirSync(path)) queue.push(join(path, entry));
  }
  return bytes;
}
