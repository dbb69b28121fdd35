/**
 * Removes what a layer replaces. Never follows a symlink. An ordinary user may first have to make directories
 * writable that an earlier layer made read-only.
 */
import { rmdir, unlink } from 'node:fs/promises';
import { errnoOf } from '../../system/system-errors.js';
import { chmodPlace, namesIn, type Place, under, within } from './beneath.js';
import { isRoot } from './metadata.js';
import { fsPath } from './paths.js';

/** Attempts to empty a directory while others add to it. */
const MAX_ROUNDS = 3;

/** Absent is success. */
export async function removeTree(top: Place): Promise<void> {
  const open = [{ place: top, rounds: 0 }];
  for (let visit = open.at(-1); visit !== undefined; visit = open.at(-1)) {
    const { place } = visit;
    if (await removeOne(place, visit.rounds++ >= MAX_ROUNDS)) {
      open.pop();
      continue;
    }
    if (!isRoot) await within(place, (path) => chmodPlace(path, 0o700));
    for (const name of await namesIn(place)) {
      const child = under(place, name);
      if (!(await removeOne(child, false))) open.push({ place: child, rounds: 0 });
    }
  }
}

/** Returns false for a directory that is not empty; on the `last` attempt that is an error. */
async function removeOne(place: Place, last: boolean): Promise<boolean> {
  return within(place, async (path) => {
    try {
      await unlink(fsPath(path)).catch((error: unknown) => {
        if (errnoOf(error) !== 'EISDIR') throw error;
        return rmdir(fsPath(path));
      });
    } catch (error) {
      const code = errnoOf(error);
      if (code === 'ENOTEMPTY' && !last) return false;
      if (code !== 'ENOENT') throw error;
    }
    return true;
  });
}
