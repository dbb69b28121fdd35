/**
 * Hard-links a blob into another content directory, or copies it. Called by backups and restores.
 *
 * A committed blob is never written again: replacing, moving or deleting it changes names only (writer.ts,
 * blob-file.ts, trash.ts). So both directories can share the file, if they are on one file system; damage in
 * it then affects both.
 */
import { constants } from 'node:fs';
import { copyFile, type FileHandle, link, lstat, open, rm } from 'node:fs/promises';
import { throwIfAborted } from '../../errors.js';
import { descriptorPath } from '../../held-paths.js';
import { errnoOf, fsError, isAbsent } from '../../system/system-errors.js';
import { orAbsent } from '../files.js';
import { NO_LINK } from '../fs-errors.js';
import { sys } from '../sys.js';
import { BLOB_MODE } from './layout.js';

/** `missing`: there is no regular file of the size. `present`: the target existed. */
export type BlobCopy = 'linked' | 'copied' | 'present' | 'missing';

const CHUNK_BYTES = 1024 * 1024;
/** Errors of a file system that cannot share blocks. */
const NO_CLONE: ReadonlySet<string> = new Set([...NO_LINK, 'EINVAL', 'ENOTTY', 'EBADF']);

/**
 * REQUIRES: no other call creates `to` at the same time. A failed copy is removed; durability is the caller's
 * task.
 */
export async function copyBlob(
  from: string,
  to: string,
  size: number,
  signal?: AbortSignal | undefined,
): Promise<BlobCopy> {
  try {
    const stats = await orAbsent(lstat(from));
    if (stats === null || !stats.isFile() || stats.size !== size) return 'missing';
    return (await linked(from, to)) ?? (await copied(from, to, size, signal));
  } catch (error) {
    // Nothing is deleted during a backup, but a repair may move a damaged file away.
    if (isAbsent(error) && (await orAbsent(lstat(from))) === null) return 'missing';
    throw fsError('copy', from, error);
  }
}

/** Undefined: it cannot be linked there. */
async function linked(from: string, to: string): Promise<'linked' | 'present' | undefined> {
  try {
    await link(from, to);
    return 'linked';
  } catch (error) {
    const code = errnoOf(error) ?? '';
    if (code === 'EEXIST') return 'present';
    if (NO_LINK.has(code)) return undefined;
    throw error;
  }
}

async function copied(
  from: string,
  to: string,
  size: number,
  signal: AbortSignal | undefined,
): Promise<BlobCopy> {
  if ((await orAbsent(lstat(to))) !== null) return 'present';
  const source = await open(from, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  let isWhole = false;
  try {
    const { atimeNs, mtimeNs } = await source.stat({ bigint: true });
    if (!(await cloned(source, to))) await copyBytes(source, to, signal);
    const target = await open(to, 'r');
    try {
      await target.chmod(BLOB_MODE);
      isWhole = (await target.stat()).size === size;
    } finally {
      await target.close();
    }
    sys.utimes(to, atimeNs, mtimeNs);
    return isWhole ? 'copied' : 'missing';
  } finally {
    await source.close();
    if (!isWhole) await rm(to, { force: true });
  }
}

/** Whether the file system could share the blocks. */
async function cloned(source: FileHandle, to: string): Promise<boolean> {
  try {
    await copyFile(descriptorPath(source.fd), to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch (error) {
    if (!NO_CLONE.has(errnoOf(error) ?? '')) throw error;
    await rm(to, { force: true });
    return false;
  }
}

async function copyBytes(source: FileHandle, to: string, signal: AbortSignal | undefined): Promise<void> {
  const target = await open(to, 'wx', 0o600);
  try {
    const piece = Buffer.allocUnsafe(CHUNK_BYTES);
    for (let position = 0; ; ) {
      throwIfAborted(signal);
      const { bytesRead } = await source.read(piece, 0, CHUNK_BYTES, position);
      if (bytesRead === 0) return;
      await target.writeFile(piece.subarray(0, bytesRead));
      position += bytesRead;
    }
  } finally {
    await target.close();
  }
}
