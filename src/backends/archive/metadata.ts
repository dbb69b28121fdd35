/**
 * Owner, mode, times and extended attributes of a layer's entries. What this user may not set is skipped and
 * counted, because an ordinary user's store is still useful. The only file of this room that calls sys.ts.
 */
import { chmod, lchown, lstat } from 'node:fs/promises';
import { failedPrecondition } from '../../errors.js';
import { errnoOf } from '../../system/system-errors.js';
import { fallbackReason, sys } from '../sys.js';
import { type Place, placePath, within } from './beneath.js';
import { type BytePath, fsPath, showPath } from './paths.js';
import type { TarEntry } from './tar/tar-reader.js';
import { OVERLAY_XATTRS } from './target.js';

export const isRoot = process.geteuid?.() === 0;

/** Bits of `st_mode`. */
export const FileType = { fifo: 0o010000, char: 0o020000, directory: 0o040000, block: 0o060000 } as const;

/** Set on a directory once the layer is complete. Times in nanoseconds since 1970. */
export interface FinalMetadata {
  mode?: number;
  mtime?: bigint;
  atime?: bigint;
}

/** Numbers of entries for which something was skipped. */
export interface Skipped {
  owners: number;
  devices: number;
  xattrs: number;
}

const notPermitted = new Set(['EPERM', 'EACCES', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);

/** Whether an error means "not possible for this user or file system", and not a failure. */
const isNotPermitted = (error: unknown): boolean => notPermitted.has(errnoOf(error) ?? '');

/** Overlay's own attributes would let a layer rearrange its neighbours. */
export const isForbidden = (name: string): boolean =>
  OVERLAY_XATTRS.some((prefix) => name.startsWith(prefix));

/** Whether this user may set the entry's owner; counted when it is needed and not allowed. */
export function isOwnerSet({ uid, gid }: TarEntry, skipped: Skipped): boolean {
  if (!isRoot && (uid !== process.geteuid?.() || gid !== process.getegid?.())) skipped.owners++;
  return isRoot;
}

/**
 * Sets owner and attributes of a new file, directory, symlink or device; the owner first, since that clears
 * capabilities.
 */
export async function setOwnerAndXattrs(path: BytePath, entry: TarEntry, skipped: Skipped): Promise<void> {
  if (isOwnerSet(entry, skipped)) {
    try {
      await lchown(fsPath(path), entry.uid, entry.gid);
    } catch (error) {
      if (!isNotPermitted(error)) throw error;
      skipped.owners++;
    }
  }
  for (const [name, value] of entry.xattrs) {
    if (isForbidden(name) || !(await trySetXattr(path, name, value))) skipped.xattrs++;
  }
}

/** Times of an entry: the access time as given, but never before the modification time. */
export function timesOf(entry: TarEntry): { atime: bigint; mtime: bigint } {
  const mtime = bounded(entry.mtime);
  const atime = entry.atime === undefined ? mtime : bounded(entry.atime);
  if (atime > mtime) return { atime, mtime };
  return { atime: mtime, mtime };
}

/** Times that no file system can store become 1970, as in containerd. */
const MAX_TIME = (1n << 63n) - 1n;
const bounded = (t: bigint): bigint => (t < 0n || t > MAX_TIME ? 0n : t);

export async function setTimes(path: BytePath, atime: bigint, mtime: bigint): Promise<void> {
  sys.utimes(fsPath(path), atime, mtime);
}

/** Sets a directory's final metadata. REQUIRES: `path` from `inside`. */
export async function setFinal(path: BytePath, final: FinalMetadata): Promise<void> {
  if (final.mtime !== undefined) await setTimes(path, final.atime ?? final.mtime, final.mtime);
  // Last, because an ordinary user may not be able to enter it afterwards.
  if (final.mode !== undefined) await chmod(fsPath(path), final.mode);
}

/**
 * Copies owner and attributes of `from` to `to`; returns mode and times, which the caller sets at the end.
 */
export async function copyMetadata(from: BytePath, to: BytePath): Promise<Required<FinalMetadata>> {
  const stats = await lstat(fsPath(from), { bigint: true });
  if (isRoot) await lchown(fsPath(to), Number(stats.uid), Number(stats.gid));
  for (const [name, value] of await readXattrs(from)) await trySetXattr(to, name, value);
  return { mode: Number(stats.mode & 0o7777n), mtime: stats.mtimeNs, atime: stats.atimeNs };
}

/** Attributes of `from` that `to` has not got. */
export async function addXattrs(from: BytePath, to: BytePath): Promise<void> {
  for (const [name, value] of await readXattrs(from)) {
    if ((await getXattr(to, name)) === undefined) await trySetXattr(to, name, value);
  }
}

/** All attributes except overlay's own. */
export async function readXattrs(path: BytePath): Promise<Map<string, Buffer>> {
  const xattrs = new Map<string, Buffer>();
  for (const name of listXattrs(path)) {
    const value = isForbidden(name) ? undefined : await getXattr(path, name);
    if (value !== undefined) xattrs.set(name, value);
  }
  return xattrs;
}

function listXattrs(path: BytePath): string[] {
  if (!sys.xattrSupported) return [];
  try {
    return sys.llistxattr(fsPath(path));
  } catch (error) {
    if (isNotPermitted(error)) return [];
    throw error;
  }
}

async function trySetXattr(path: BytePath, name: string, value: Buffer): Promise<boolean> {
  if (!sys.xattrSupported) return false;
  try {
    sys.lsetxattr(fsPath(path), name, value);
    return true;
  } catch (error) {
    if (isNotPermitted(error)) return false;
    throw error;
  }
}

/** Sets an attribute that correctness depends on. FailedPrecondition if that is not possible. */
export async function setXattr(place: Place, name: string, value: Buffer): Promise<void> {
  if (await within(place, (path) => trySetXattr(path, name, value))) return;
  const shown = showPath(placePath(place));
  const why = sys.xattrSupported ? '' : `: ${fallbackReason()}`;
  throw failedPrecondition(`cannot set the attribute ${name} on ${shown}${why}`, {
    object: shown,
    remedy: 'run as root, use a file system with extended attributes, or use the native snapshotter',
  });
}

/** Undefined if it does not exist, or attributes are not supported. */
export async function getXattr(path: BytePath, name: string): Promise<Buffer | undefined> {
  if (!sys.xattrSupported) return undefined;
  try {
    return sys.lgetxattr(fsPath(path), name);
  } catch (error) {
    if (errnoOf(error) === 'ENODATA' || isNotPermitted(error)) return undefined;
    throw error;
  }
}

/** Returns false if this user may not create it. @param type one of `FileType` */
export async function tryMakeNode(
  path: BytePath,
  type: number,
  major: number,
  minor: number,
): Promise<boolean> {
  try {
    sys.mknod(fsPath(path), type | 0o600, major, minor);
    return true;
  } catch (error) {
    if (isNotPermitted(error)) return false;
    throw error;
  }
}

/**
 * Creates overlay's whiteout. FailedPrecondition if that is not possible: without it deleted files would
 * reappear.
 */
export async function makeWhiteout(place: Place): Promise<void> {
  if (await within(place, (path) => tryMakeNode(path, FileType.char, 0, 0))) return;
  const shown = showPath(placePath(place));
  throw failedPrecondition(`cannot mark ${shown} as deleted`, {
    object: shown,
    remedy: 'run as root, on a file system that allows devices, or use the native snapshotter',
  });
}
