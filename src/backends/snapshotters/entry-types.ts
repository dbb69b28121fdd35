/**
 * Does a file system tell the type of an entry together with its name (d_type)? Overlay mounts need it. Asked
 * once, when the overlay snapshotter is made.
 */
import { closeSync, mkdtempSync, opendirSync, openSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isAbsent } from '../../system/system-errors.js';

/**
 * Node hides the answer: where the system gives no type it looks at the entry itself, by its path. So the
 * directory is renamed between opening and reading it: types that came with the names are not affected, a look by
 * the old path ends in ENOENT.
 */
export function supportsEntryTypes(directory: string): boolean {
  const probe = mkdtempSync(join(directory, '.d_type-'));
  const moved = `${probe}-moved`;
  try {
    closeSync(openSync(join(probe, 'file'), 'w'));
    const entries = opendirSync(probe);
    try {
      renameSync(probe, moved);
      return entries.readSync()?.isFile() ?? false;
    } catch (error) {
      if (isAbsent(error)) return false;
      throw error;
    } finally {
      entries.closeSync();
    }
  } finally {
    rmSync(probe, { recursive: true, force: true });
    rmSync(moved, { recursive: true, force: true });
  }
}
