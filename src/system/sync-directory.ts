/**
 * Puts the names in a directory on disk: without it a power cut could take what was just created or renamed.
 *
 * File systems that cannot do it say EINVAL (CIFS, some of FUSE); they are taken to keep names by themselves.
 */
import { closeSync, fsyncSync, openSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { errnoOf } from './system-errors.js';

export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } catch (error) {
    throwUnlessUnknown(error);
  } finally {
    // Not awaited: closing a synced file cannot fail in a way that matters.
    handle.close().catch(() => undefined);
  }
}

/** The same, while the thread waits. */
export function syncDirectoryNow(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } catch (error) {
    throwUnlessUnknown(error);
  } finally {
    closeSync(fd);
  }
}

function throwUnlessUnknown(error: unknown): void {
  if (errnoOf(error) !== 'EINVAL') throw error;
}
