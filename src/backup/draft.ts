/**
 * A directory that is made aside, under a name of its own, and gets its real one when it is whole: it appears so or not at all.
 * Called by backup.ts, which makes one beside its target, and restore.ts, which makes one in the root.
 *
 * The file `unfinished` in it marks it and is locked by the process that makes it; the next one deletes a draft whose maker has died.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, lstatSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DiskJobs } from '../backends/contract.js';
import { FileLock } from '../backends/file-lock.js';
import { syncFileSystem } from '../backends/sys.js';
import { isKind } from '../errors.js';
import { HeldDirectory } from '../system/held-directory.js';
import { syncDirectory } from '../system/sync-directory.js';
import { fsError } from '../system/system-errors.js';

const PREFIX = '.ebbtide-draft-';
const NAME = /^\.ebbtide-draft-[0-9a-f]{16}$/;
const MARK = 'unfinished';
/** The stream of jobs that deletes drafts. */
const DELETIONS = 'drafts';

export const isDraft = (name: string): boolean => NAME.test(name);

export class Draft {
  readonly #place: HeldDirectory;
  readonly #lock: FileLock;
  readonly #jobs: DiskJobs;
  #isReleased = false;

  private constructor(place: HeldDirectory, lock: FileLock, jobs: DiskJobs) {
    this.#place = place;
    this.#lock = lock;
    this.#jobs = jobs;
  }

  /** Makes one in `directory`, after deleting those that no process works on any more; `undo` is called with each before. */
  static async make(
    directory: string,
    jobs: DiskJobs,
    undo?: (draft: string) => Promise<void>,
  ): Promise<Draft> {
    await sweepDrafts(directory, jobs, undo);
    const path = join(directory, PREFIX + randomBytes(8).toString('hex'));
    try {
      await mkdir(path, { mode: 0o700 });
    } catch (error) {
      throw fsError('make the directory', path, error);
    }
    let place: HeldDirectory | undefined;
    try {
      place = HeldDirectory.open(path);
      return new Draft(place, await FileLock.acquire(join(place.at, MARK), path), jobs);
    } catch (error) {
      place?.release();
      await rm(path, { recursive: true, force: true }).catch(() => undefined);
      throw error;
    }
  }

  /** Where to make what is in it, whatever its name leads to by now. */
  get at(): string {
    return this.#place.at;
  }

  /** Puts all that is in it on disk. */
  async sync(): Promise<void> {
    this.#place.verify();
    try {
      await syncFileSystem(this.at);
    } catch (error) {
      throw fsError('write', this.#place.path, error);
    }
  }

  /** Gives it its name, which may be an empty directory's. REQUIRES: `sync`. */
  async publish(target: string, parent: string): Promise<void> {
    this.#place.verify();
    try {
      // A name must not be on disk before what has it is whole.
      await syncDirectory(this.at);
      await rename(this.#place.path, target);
      await syncDirectory(parent);
    } catch (error) {
      throw fsError('make', target, error);
    }
    await rm(join(this.at, MARK), { force: true }).catch(() => undefined);
    await this.#release();
  }

  /** Deletes it; what cannot be deleted goes with the next one. Again, or after `publish`: no error. */
  async discard(): Promise<void> {
    await this.#jobs.removeTrees(DELETIONS, [this.#place.path]).catch(() => undefined);
    await this.#release();
  }

  async #release(): Promise<void> {
    if (this.#isReleased) return;
    this.#isReleased = true;
    await this.#lock.release();
    this.#place.release();
  }
}

/** Deletes what makers left that died. One that a process works on stays, and so does what another user put there. */
async function sweepDrafts(
  directory: string,
  jobs: DiskJobs,
  undo?: (draft: string) => Promise<void>,
): Promise<void> {
  for (const name of (await list(directory)).filter(isDraft)) {
    const path = join(directory, name);
    if (!isOwn(path) || !existsSync(join(path, MARK))) continue;
    let lock: FileLock;
    try {
      lock = await FileLock.acquire(join(path, MARK), path);
    } catch (error) {
      if (isKind(error, 'Unavailable')) continue;
      throw error;
    }
    try {
      await undo?.(path);
      await jobs.removeTrees(DELETIONS, [path]);
    } finally {
      await lock.release();
    }
  }
}

/** A directory of this user, in which no other user can have put anything. */
function isOwn(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found?.isDirectory() === true && found.uid === process.geteuid?.() && (found.mode & 0o077) === 0;
}

async function list(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    throw fsError('use the directory', directory, error);
  }
}
