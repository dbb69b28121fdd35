/**
 * Which numbered directories without a record a snapshotter must leave alone when it is opened. Its own
 * crashes leave at most one: built and renamed, but never recorded, and so without a user's files. More of
 * them, or files in one, mean that the metadata file was replaced by an older copy or another one, and that
 * these are snapshots. Called by numbered-directories.ts.
 */
import type { Dirent } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { orAbsent, yieldToEventLoop } from '../files.js';
import { diskError } from '../fs-errors.js';

/**
 * Removed directories keep their number if an earlier version, or containerd, removed them: few, or a small
 * fraction.
 */
const FLOOR = 20;
const MAX_SHARE = 0.5;

/**
 * @param numbered number of numbered directories
 * @param unknown those of them without a record
 * @param sequence the last number issued according to the metadata file
 */
export async function toBeSpared(
  directory: string,
  numbered: number,
  unknown: readonly string[],
  sequence: number,
): Promise<string[]> {
  const spared: string[] = [];
  const removed = unknown.filter((name) => Number(name) <= sequence);
  if (removed.length > FLOOR && removed.length > MAX_SHARE * numbered) spared.push(...removed);
  for (const name of unknown) {
    if (Number(name) <= sequence) continue;
    if (!(await isHollow(join(directory, name)))) spared.push(name);
    await yieldToEventLoop();
  }
  return spared;
}

/** Whether it has only directories. */
async function isHollow(path: string): Promise<boolean> {
  let entries: Dirent[] | null;
  try {
    entries = await orAbsent(readdir(path, { withFileTypes: true }));
  } catch (error) {
    throw diskError('list', path, error);
  }
  for (const entry of entries ?? []) {
    if (!entry.isDirectory() || !(await isHollow(join(path, entry.name)))) return false;
  }
  return true;
}
