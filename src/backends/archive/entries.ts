/**
 * Creates single entries of a layer: files, links, devices, directories. The caller has resolved the parent
 * and removed what had the name; everything is created with `O_EXCL`, so an existing file is never written
 * through. Paths are those of `within`: one name in an open directory.
 */
import { constants, link, lstat, open, readlink, symlink } from 'node:fs/promises';
import { type EbbtideError, failedPrecondition, present } from '../../errors.js';
import { errnoOf, fsError } from '../../system/system-errors.js';
import { copyOpen } from '../copy-file.js';
import { chmodPlace, type Place, within } from './beneath.js';
import { needsBelow } from './detached.js';
import { badPath, type DirNode, type LayerTree } from './layer-tree.js';
import {
  copyMetadata,
  FileType,
  type Skipped,
  setOwnerAndXattrs,
  setTimes,
  timesOf,
  tryMakeNode,
} from './metadata.js';
import { type BytePath, fsPath, showPath, splitEntryName } from './paths.js';
import type { TarEntry } from './tar/tar-reader.js';

/** Creates a file with the entry's content; `onWrite` is called with the bytes of each write. */
export async function makeFile(
  path: BytePath,
  entry: TarEntry,
  skipped: Skipped,
  onWrite: (bytes: number) => void,
): Promise<void> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const file = await open(fsPath(path), flags, 0o600);
  try {
    const places = placesOf(entry);
    for await (const chunk of entry.body()) {
      for (let done = 0; done < chunk.length; ) {
        const { at, room } = places.next(chunk.length - done);
        const { bytesWritten } = await file.write(chunk, done, room, at);
        places.advance(bytesWritten);
        done += bytesWritten;
        onWrite(bytesWritten);
      }
    }
    if (entry.segments !== undefined) await file.truncate(entry.size);
    await finishFile(path, entry, skipped, (mode) => file.chmod(mode));
  } finally {
    await file.close();
  }
}

async function finishFile(
  path: BytePath,
  entry: TarEntry,
  skipped: Skipped,
  chmod: (mode: number) => Promise<void>,
): Promise<void> {
  await setOwnerAndXattrs(path, entry, skipped);
  await chmod(entry.mode);
  const { atime, mtime } = timesOf(entry);
  await setTimes(path, atime, mtime);
}

/** Where the next bytes of the content go: consecutively, or into the segments of a sparse file. */
function placesOf(entry: TarEntry) {
  const segments = entry.segments?.filter((segment) => segment.size > 0) ?? [{ offset: 0, size: entry.size }];
  let index = 0;
  let within = 0;
  const segment = () => present(segments[index], 'a segment for the content');
  return {
    next(wanted: number): { at: number; room: number } {
      const { offset, size } = segment();
      return { at: offset + within, room: Math.min(wanted, size - within) };
    },
    advance(bytes: number): void {
      within += bytes;
      if (within < segment().size) return;
      index++;
      within = 0;
    },
  };
}

export async function makeSymlink(path: BytePath, entry: TarEntry, skipped: Skipped): Promise<void> {
  // The target is stored verbatim: readers resolve it inside the container's root.
  await symlink(fsPath(entry.linkname), fsPath(path));
  await setOwnerAndXattrs(path, entry, skipped);
  const { atime, mtime } = timesOf(entry);
  await setTimes(path, atime, mtime);
}

/** Creates a device or fifo; returns false when it was left out. */
export async function makeNode(path: BytePath, entry: TarEntry, skipped: Skipped): Promise<boolean> {
  const type = FileType[entry.type === 'char' ? 'char' : entry.type === 'block' ? 'block' : 'fifo'];
  // To an overlay this device is a deletion mark, not a device; the kernel refuses to create it in an
  // overlay, too.
  const isWhiteout = entry.type === 'char' && entry.major === 0 && entry.minor === 0;
  if (isWhiteout || !(await tryMakeNode(path, type, entry.major, entry.minor))) {
    skipped.devices++;
    return false;
  }
  await finishFile(path, entry, skipped, (mode) => chmodPlace(path, mode));
  return true;
}

/**
 * Adds a name to a file of the same layer or one below. The target is resolved inside the layer's root like
 * any other path; a lower file is copied up first. The metadata stays the target's, because there is only one
 * file.
 */
export async function makeHardLink(tree: LayerTree, to: Place, entry: TarEntry): Promise<void> {
  const components = splitEntryName(entry.linkname, 'link target');
  const name = components.pop();
  if (name === undefined) throw badPath(entry.name, 'is a hard link to the root');
  const dir = await tree.resolve(components, false, entry.name);
  const found = dir === undefined ? undefined : await tree.lookup(dir, name);
  if (dir === undefined || found === undefined || found.kind === 'none') {
    if (tree.target.detached) throw needsBelow(entry.name, `is a hard link to "${showPath(entry.linkname)}"`);
    throw badPath(entry.name, `is a hard link to "${showPath(entry.linkname)}", which does not exist`);
  }
  if (found.kind === 'directory') {
    throw badPath(entry.name, `is a hard link to the directory "${showPath(entry.linkname)}"`);
  }
  if (tree.upper(dir, name).path === to.path) throw badPath(entry.name, 'is a hard link to itself');
  const { inUpper, place, data } = found;
  if (!inUpper) await copyUpFile(tree, dir, name, place, data ?? place);
  else if (data !== undefined) {
    throw failedPrecondition(
      `the content of "${showPath(entry.linkname)}" is in a layer below its metadata`,
      {
        object: showPath(entry.linkname),
        remedy: 'apply layers to a snapshot that was not mounted with metacopy=on',
      },
    );
  }
  const target = tree.upper(dir, name);
  await within(target, (from) => within(to, (path) => link(fsPath(from), fsPath(path))));
}

async function copyUpFile(
  tree: LayerTree,
  dir: DirNode,
  name: BytePath,
  place: Place,
  data: Place,
): Promise<void> {
  await tree.open(dir);
  // The upper directory now has a name that is not an entry of this layer.
  dir.fresh = false;
  const to = tree.upper(dir, name);
  await within(place, (from) => within(data, (content) => within(to, (path) => copyUp(from, content, path))));
}

async function copyUp(from: BytePath, content: BytePath, to: BytePath): Promise<void> {
  const stats = await lstat(fsPath(from));
  if (stats.isFile()) {
    await using source = await open(fsPath(content), constants.O_RDONLY | constants.O_NOFOLLOW);
    const flags = constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE;
    await copyOpen(source, fsPath(to), flags);
  } else if (stats.isSymbolicLink()) {
    await symlink(await readlink(fsPath(from), { encoding: 'buffer' }), fsPath(to));
  } else {
    const { major, minor } = deviceOf(stats.rdev);
    if (!(await tryMakeNode(to, stats.mode & 0o170000, major, minor))) {
      throw badPath(from, 'is a device that this user cannot create');
    }
  }
  const { mode, atime, mtime } = await copyMetadata(from, to);
  if (!stats.isSymbolicLink()) await chmodPlace(to, mode);
  await setTimes(to, atime, mtime);
}

/** Linux's packing of major and minor into `st_rdev`. */
export function deviceOf(rdev: number): { major: number; minor: number } {
  const major = Math.floor(rdev / 256) & 0xfff;
  const minor = (rdev & 0xff) | (Math.floor(rdev / 4096) & 0xfff00);
  return { major, minor };
}

/** Errors that are the archive's fault, not the disk's. */
const unacceptable: Readonly<Record<string, string>> = {
  EEXIST: 'has the name of something that it needs itself, or that another process has made',
  ENAMETOOLONG: 'has a name that is too long for the file system',
  ERANGE: 'has an extended attribute whose name is empty or too long',
  E2BIG: 'has an extended attribute that is too large',
};

/** Converts a file system error to one about the entry. */
export function entryError(name: BytePath, error: unknown): EbbtideError {
  const what = unacceptable[errnoOf(error) ?? ''];
  if (what !== undefined) return badPath(name, what);
  return fsError('write the archive entry', showPath(name), error);
}
