/**
 * Places below an open directory. A container may change a snapshot while a layer is written to it or read
 * from it, so no path of several names is ever passed to the file system: the directory of a place is opened
 * step by step, never through a symlink, and calls use one name in it. If something is replaced in the
 * meantime, the call fails or works on what was there before; in both cases inside the root.
 *
 * `/proc/self/fd/<n>/<name>` is how to write such a call in Node, which lacks openat(2) and its relatives.
 */
import { closeSync, openSync } from 'node:fs';
import { chmod, readdir } from 'node:fs/promises';
import { DIRECTORY_ONLY, openBeneath, PLACE_ONLY } from '../sys.js';
import { type BytePath, fsPath, joinPath } from './paths.js';

/** A directory of the store, opened on first use. Close it after the last call has ended. */
export class Root {
  readonly path: BytePath;
  #fd: number | undefined;

  constructor(path: BytePath) {
    this.path = path;
  }

  /** Its descriptor (O_PATH); only for opening what is below. */
  get fd(): number {
    this.#fd ??= openSync(fsPath(this.path), DIRECTORY_ONLY);
    return this.#fd;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

export interface Place {
  readonly root: Root;
  /** Names below the root; '' is the root itself. */
  readonly path: BytePath;
}

export const under = (place: Place, name: BytePath): Place => ({
  root: place.root,
  path: joinPath(place.path, name),
});

/** The place's path, for messages. */
export const placePath = ({ root, path }: Place): BytePath => joinPath(root.path, path);

const open = ({ root, path }: Place, flags: number): number =>
  openBeneath(root.fd, path === '' ? '.' : fsPath(path), flags);

async function through<T>(
  directory: Place,
  name: BytePath,
  fn: (path: BytePath) => Promise<T> | T,
): Promise<T> {
  const fd = open(directory, DIRECTORY_ONLY);
  const prefix = `/proc/self/fd/${fd}/`;
  try {
    return await fn(prefix + name);
  } catch (error) {
    if (error instanceof Error) error.message = error.message.replaceAll(prefix, `${placePath(directory)}/`);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/**
 * Calls `fn` with a path to the place, for calls that do not follow symlinks; the place's directory is open
 * until `fn` ends. ELOOP or ENOTDIR when a directory on the way is no longer one.
 */
export async function within<T>(place: Place, fn: (path: BytePath) => Promise<T> | T): Promise<T> {
  const slash = place.path.lastIndexOf('/');
  const directory = { root: place.root, path: slash < 0 ? '' : place.path.slice(0, slash) };
  return through(directory, place.path === '' ? '.' : place.path.slice(slash + 1), fn);
}

/** As `within`, for a directory: the path leads to it even if its name is reused in the meantime. */
export async function inside<T>(place: Place, fn: (path: BytePath) => Promise<T> | T): Promise<T> {
  return through(place, '.', fn);
}

export const namesIn = (directory: Place): Promise<BytePath[]> =>
  inside(directory, (path) => readdir(fsPath(path), { encoding: 'latin1' }));

/** chmod(2) of a path from `within`; never follows a symlink there. */
export async function chmodPlace(path: BytePath, mode: number): Promise<void> {
  const fd = openSync(fsPath(path), PLACE_ONLY);
  try {
    await chmod(`/proc/self/fd/${fd}`, mode);
  } finally {
    closeSync(fd);
  }
}
