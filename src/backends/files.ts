/**
 * Small file system helpers shared by the backends. All asynchronous: nothing here blocks the event loop.
 */
import { constants } from 'node:fs';
import { chmod, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { failedPrecondition } from '../errors.js';
import { makeDirectories } from '../system/make-directories.js';
import { syncDirectory } from '../system/sync-directory.js';
import { fsError, isAbsent } from '../system/system-errors.js';

/**
 * Creates a directory with its parents, each with this mode whatever the umask; syncs every directory that
 * got a new name.
 */
export async function makeDurableDirectory(path: string, mode: number): Promise<void> {
  const first = makeDirectories(path, mode);
  if (first === undefined) return;
  const top = dirname(first);
  for (let at = path; at !== top && at !== dirname(at); at = dirname(at)) {
    await chmod(at, mode);
    await syncDirectory(dirname(at));
  }
}

/**
 * Creates the root directory of a backend (absolute) if it is missing; a clear error when it cannot be used.
 */
export async function makeRoot(path: string, mode: number): Promise<void> {
  let isDirectory = true;
  try {
    const stats = await orAbsent(stat(path));
    if (stats === null) await makeDurableDirectory(path, mode);
    else isDirectory = stats.isDirectory();
  } catch (error) {
    throw fsError('use the directory', path, error);
  }
  if (isDirectory) return;
  throw failedPrecondition(`cannot use ${path}: it is not a directory`, {
    object: path,
    remedy: 'move the file away, or use another root directory',
  });
}

/** A pipe in the file's place must not block, and a link must not be followed. */
const PLAIN_FILE = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;

/** The text of a small file; ENXIO or ELOOP for what is not a regular file. */
export async function readText(path: string): Promise<string> {
  const handle = await open(path, PLAIN_FILE);
  try {
    if (!(await handle.stat()).isFile()) {
      throw Object.assign(new Error(`${path} is not a regular file`), { code: 'ENXIO' });
    }
    return await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
}

export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw fsError('look at', path, error);
  }
}

/** `null` instead of ENOENT; other errors are rethrown. */
export async function orAbsent<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    if (isAbsent(error)) return null;
    throw error;
  }
}

/**
 * Runs `fn` over the items, at most `limit` at once. After an error no further ones are started, and those
 * under way are awaited before the first error is thrown.
 */
export async function eachLimit<T>(
  items: readonly T[],
  limit: number,
  fn: (item: T, index: number) => Promise<void>,
): Promise<void> {
  // One walk for all lanes.
  const walk = items.entries();
  let failed = false;
  const lane = async (): Promise<void> => {
    for (const [index, item] of walk) {
      if (failed) return;
      try {
        await fn(item, index);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const lanes = Array.from({ length: Math.min(limit, items.length) }, lane);
  for (const outcome of await Promise.allSettled(lanes)) {
    if (outcome.status === 'rejected') throw outcome.reason;
  }
}

/** Lets timers and I/O run in a long loop. */
export const yieldToEventLoop = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export const SLASH = Buffer.from('/');

/**
 * The name of a directory entry read with the encoding `buffer`, which the type of Dirent does not say. File
 * names are bytes: trees of containers have names that are not UTF-8.
 */
export const entryName = (entry: { name: unknown }): Buffer =>
  Buffer.isBuffer(entry.name) ? entry.name : Buffer.from(String(entry.name));
