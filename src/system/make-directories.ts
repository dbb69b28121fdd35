/**
 * Creates a directory with its missing parents. Called for directories at a path that a user has given.
 * Node's own recursive mkdir never returns where a directory exists and nothing can be created in it, as in
 * /proc.
 */
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf } from './system-errors.js';

/**
 * Returns the topmost directory that was created; undefined if all existed.
 * @param path absolute
 * @throws the system's error; EEXIST when the name belongs to something other than a directory
 */
export function makeDirectories(path: string, mode: number): string | undefined {
  const missing: string[] = [];
  let at = path;
  while (!isThere(at)) {
    missing.push(at);
    if (at === dirname(at)) break;
    at = dirname(at);
  }
  let first: string | undefined;
  for (const directory of missing.reverse()) if (makeOne(directory, mode)) first ??= directory;
  return first;
}

function isThere(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined || stats.isDirectory()) return stats !== undefined;
  throw Object.assign(new Error(`EEXIST: not a directory, mkdir '${path}'`), { code: 'EEXIST' });
}

/** False when another process created it first. */
function makeOne(path: string, mode: number): boolean {
  try {
    mkdirSync(path, { mode });
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST' && isThere(path)) return false;
    throw error;
  }
}
