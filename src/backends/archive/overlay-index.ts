/**
 * Upper directories that show everything only through the mount they were written through, because it had
 * options that the store's own mounts switch off. Readers and commits refuse such a directory.
 *
 * An overlay mounted with `index=on` keeps the new content of a lower file with several names in its scratch
 * directory and shows it under all of them. The layers alone then show old content under the names that were
 * not changed, and so would every later mount without that directory. One mounted with `metacopy=on` leaves
 * the content of a file whose owner or mode changed in the layer below; a mount without that option cannot
 * read the file.
 */
import { readdir } from 'node:fs/promises';
import { failedPrecondition } from '../../errors.js';
import { errnoOf, isAbsent } from '../../system/system-errors.js';
import { inside, Root } from './beneath.js';
import { getXattr } from './metadata.js';
import { type BytePath, fsPath, showPath } from './paths.js';
import type { Target } from './target.js';

/** @throws FailedPrecondition if the index has files with several names */
export async function refuseIndexed({ work, overlay }: Pick<Target, 'work' | 'overlay'>): Promise<void> {
  if (work === undefined || overlay === undefined) return;
  const root = new Root(work);
  try {
    if (!(await inside({ root, path: 'index' }, (path) => hasFiles(path, `${overlay}nlink`)))) return;
  } catch (error) {
    if (isAbsent(error) || errnoOf(error) === 'ENOTDIR') return;
    throw error;
  } finally {
    root.close();
  }
  throw failedPrecondition(
    `the overlay of ${showPath(work)} was mounted with index=on, and files with several names changed`,
    {
      object: showPath(work),
      remedy: 'mount it with index=on and copy the mounted tree',
    },
  );
}

/** @throws FailedPrecondition: of a file that is marked `metacopy` */
export function refuseMetacopy(path: Buffer): never {
  throw failedPrecondition(`${path} has only metadata: the overlay was mounted with metacopy=on`, {
    object: path.toString(),
    remedy: 'mount it with metacopy=on and open such files for writing, which copies their content',
  });
}

/** The kernel marks such files with the number of their names. */
async function hasFiles(path: BytePath, mark: string): Promise<boolean> {
  for (const name of await readdir(fsPath(path), { encoding: 'latin1' })) {
    if ((await getXattr(`${path.slice(0, -1)}${name}`, mark)) !== undefined) return true;
  }
  return false;
}
