/**
 * Whether a file system returns the type of an entry with its name (d_type), which overlay mounts need.
 * Tested once, when the overlay snapshotter is created.
 */
import { closeSync, mkdtempSync, opendirSync, openSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { EbbtideError } from '../../errors.js';
import { isAbsent } from '../../system/system-errors.js';

export class NoEntryTypes extends EbbtideError {
  constructor(root: string) {
    super(
      'FailedPrecondition',
      `${root} is on a file system that does not report the types of directory entries`,
      {
        object: root,
        remedy:
          'use a file system with d_type support (on xfs: mkfs.xfs -n ftype=1), or the native snapshotter',
      },
    );
  }
}

/**
 * Node hides it: if the system returns no type, Node stats the entry by its path. So the directory is renamed
 * between opening and reading it: types that came with the names are unaffected, a stat by the old path fails
 * with ENOENT.
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
