/**
 * One state of a bbolt file, read while another process writes it: no lock, no open for writing. Called by readers of
 * other programs' files. How: reading.ts. A reading that was overtaken by commits begins again when there are less of them, at last
 * of a copy that shares the file's blocks, where the file system makes one.
 */
import { constants } from 'node:fs';
import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { throwIfAborted, unavailable } from '../errors.js';
import { errnoOf, fsError } from '../system/system-errors.js';
import { temporaryDirectory } from '../system/temporary-directory.js';
import { Turn } from '../system/turns.js';
import { BoltFile, type BoltSource } from './file.js';
import type { Meta } from './format.js';
import type { FileHeap } from './heap.js';
import type { Pages } from './pages.js';
import { Overtaken, Reading, type ReadingOptions } from './reading.js';

export interface BoltSnapshot {
  readonly pages: Pages;
  readonly meta: Meta;
  /** Times that the reading began again. */
  readonly retries: number;
  /** Commits that came while it was read, and that it has. */
  readonly commits: number;
}

export interface SnapshotOptions {
  readonly signal?: AbortSignal | undefined;
  /** Readings before Unavailable. */
  readonly readingsMax?: number;
  /** As much as is kept of values that take more than a page. Default: all. */
  readonly valueBytesMax?: number | undefined;
  /** Has the pages, instead of memory, as long as they are used. */
  readonly heap?: FileHeap | undefined;
}

const READINGS_MAX = 60;
/** Copying takes as long as the rest of a reading, and other processors may do that, unless commits are to be seen in time. */
const LANES = 4;
/** What changed in this time has an owner that commits. */
const BUSY_MS = 5000;
/** After so many a copy is tried, once. */
const READINGS_BEFORE_COPY = 3;
/** Calm: not more than one commit in this time. */
const CALM_MS = 20;
const CALM_STEPS_MAX = 50;

/**
 * NotFound; FailedPrecondition for what is not a bbolt file; Unavailable when commits came too fast to follow them, each time.
 */
export async function readBolt(path: string, options: SnapshotOptions = {}): Promise<BoltSnapshot> {
  const { readingsMax = READINGS_MAX, signal, valueBytesMax, heap } = options;
  try {
    for (let retries = 0; retries < readingsMax; retries++) {
      using file = new BoltFile(path);
      if (retries > 0) await calm(file, signal);
      const lanes = retries === 0 && file.age() > BUSY_MS ? LANES : 1;
      const snapshot = await readOnce(file, retries, { signal, valueBytesMax, heap, lanes });
      if (snapshot !== undefined && !file.isReplaced()) return snapshot;
      const copied = retries === READINGS_BEFORE_COPY ? await readCopy(path, retries, options) : undefined;
      if (copied !== undefined) return copied;
    }
  } catch (error) {
    if (errnoOf(error) !== undefined) throw fsError('read', path, error);
    throw error;
  }
  throw unavailable(
    `${path} was changed too fast to follow each of the ${readingsMax} times that it was read`,
    {
      object: path,
      remedy: 'try again when its owner commits less, or read a copy that a snapshot of the file system has',
    },
  );
}

/** Undefined if it was overtaken. */
export async function readOnce(
  source: BoltSource,
  retries = 0,
  { signal, heap, ...options }: SnapshotOptions & ReadingOptions = {},
): Promise<BoltSnapshot | undefined> {
  try {
    await heap?.clear();
    const reading = new Reading(source, { ...options, heap });
    const turn = new Turn();
    for await (const _ of reading.steps()) {
      throwIfAborted(signal);
      await turn.next();
    }
    const { pages, meta, commits } = reading;
    return { pages, meta, retries, commits };
  } catch (error) {
    if (error instanceof Overtaken) return undefined;
    throw error;
  }
}

/** Waits for the end of a burst of commits. */
async function calm(file: BoltFile, signal: AbortSignal | undefined): Promise<void> {
  for (let step = 0; step < CALM_STEPS_MAX; step++) {
    const { transaction } = file.newest();
    await sleep(CALM_MS);
    throwIfAborted(signal);
    if (file.newest().transaction - transaction <= 1n) return;
  }
}

/** Of a copy that is made at once, and takes no room. Undefined where the file system makes none, or the temporary directory is on another one. */
export async function readCopy(
  path: string,
  retries: number,
  options: SnapshotOptions,
): Promise<BoltSnapshot | undefined> {
  const directory = await temporaryDirectory('copy');
  const copy = join(directory, 'copy');
  let file: BoltFile;
  try {
    await copyFile(path, copy, constants.COPYFILE_FICLONE_FORCE);
    file = new BoltFile(copy);
  } catch {
    return undefined;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  using opened = file;
  return await readOnce(opened, retries, options);
}

/** The newest transaction of the file. A cheap way to see whether it changed. */
export async function boltTransaction(path: string): Promise<bigint> {
  using file = new BoltFile(path);
  return file.newest().transaction;
}
