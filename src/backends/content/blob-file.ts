/** Inspects the file at a blob's path, and moves it away. Called by the content directory and its writers. */
import { randomBytes } from 'node:crypto';
import { lstat, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { shown } from '../../held-paths.js';
import { parseDigest } from '../../model/digest.js';
import { syncDirectory } from '../../system/sync-directory.js';
import { fsError } from '../../system/system-errors.js';
import type { BlobFile } from '../contract.js';
import { orAbsent } from '../files.js';
import { type ContentLayout, DAMAGED } from './layout.js';

export async function lookAtBlob(path: string): Promise<BlobFile> {
  try {
    const stats = await orAbsent(lstat(path));
    if (stats === null) return { path, kind: 'absent', size: 0 };
    return stats.isFile() ? { path, kind: 'file', size: stats.size } : { path, kind: 'other', size: 0 };
  } catch (error) {
    throw fsError('look at', path, error);
  }
}

/**
 * Renames the file at a blob's path, since it may be all that is left of the blob. Returns the new path,
 * undefined when nothing was there. REQUIRES: the caller holds the lock of the digest.
 */
export async function setAside(layout: ContentLayout, digest: string): Promise<string | undefined> {
  const path = layout.blob(digest);
  const { algorithm, hex } = parseDigest(digest);
  try {
    await layout.make(DAMAGED);
    const kept = join(layout.damaged, `${algorithm}-${hex}-${randomBytes(4).toString('hex')}`);
    if ((await orAbsent(rename(path, kept))) === null) return undefined;
    await syncDirectory(layout.damaged);
    await syncDirectory(layout.blobs(algorithm));
    return shown(kept);
  } catch (error) {
    throw fsError('move away', path, error);
  }
}
