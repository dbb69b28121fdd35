/** What the tests of a replaced root share: ways to put another directory in the place of one, and copies of a disk. */
import { createHash } from 'node:crypto';
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { sys, UmountFlag } from '../../src/backends/sys.js';

export interface Replaced {
  /** Where the directory that was opened can be looked at now; undefined while it cannot be seen. */
  original: string | undefined;
  undo(): void;
}

/** Ways to replace the directory `path` by what `fill` puts into the new one. */
export const replacements: Readonly<
  Record<string, (path: string, fill: (path: string) => void) => Replaced>
> = {
  'renamed away and made again': (path, fill) => {
    const original = `${path}-original`;
    renameSync(path, original);
    mkdirSync(path);
    fill(path);
    return {
      original,
      undo: () => {
        rmSync(path, { recursive: true });
        renameSync(original, path);
      },
    };
  },
  'renamed away and replaced by a link': (path, fill) => {
    const original = `${path}-original`;
    const other = `${path}-other`;
    mkdirSync(other);
    fill(other);
    renameSync(path, original);
    symlinkSync(other, path);
    return {
      original,
      undo: () => {
        unlinkSync(path);
        rmSync(other, { recursive: true });
        renameSync(original, path);
      },
    };
  },
  'mounted over': (path, fill) => {
    sys.mount('tmpfs', path, 'tmpfs', 0, 'size=64m');
    fill(path);
    return { original: undefined, undo: () => sys.umount(path, UmountFlag.detach) };
  },
};

/** Names, modes and contents of everything below a directory. */
export function treeOf(directory: string): Record<string, string> {
  const tree: Record<string, string> = {};
  for (const name of readdirSync(directory, { recursive: true }).map(String).sort()) {
    const path = join(directory, name);
    const stats = lstatSync(path);
    const bytes = stats.isFile() ? readFileSync(path) : stats.isSymbolicLink() ? readlinkSync(path) : '';
    tree[name] = `${stats.mode.toString(8)} ${createHash('sha256').update(bytes).digest('hex')}`;
  }
  return tree;
}
