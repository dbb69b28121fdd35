/**
 * Deletion in two steps: a rename, after which the name is free, and the actual work on the disk job pool. What a
 * crash leaves in the trash is deleted when the directory is opened again. Called by the content directory.
 */
import { randomBytes } from 'node:crypto';
import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { unknownError } from '../../errors.js';
import { shown } from '../../held-paths.js';
import { isAbsent, isFull, messageOf } from '../../system/system-errors.js';
import type { DiskJobs, RemovalReport } from '../contract.js';
import type { BackendLog } from '../log.js';
import { emptyReport, inlineJobs } from '../remove-tree.js';
import { type ContentLayout, TRASH } from './layout.js';

/** How long deletions are gathered: a job for every small blob costs more than the deletion. */
const GATHER_MS = 100;
/** The stream of jobs that deletes blobs and ingests. */
export const DELETIONS = 'content';

export class Trash {
  readonly #layout: ContentLayout;
  #jobs: DiskJobs;
  readonly #log: BackendLog;
  /** Taken, and to be deleted by the next job. */
  #waiting: string[] = [];
  #isClosed = false;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  /** Names are this instance's own, and never the same twice. */
  readonly #prefix = randomBytes(8).toString('hex');
  #count = 0;

  constructor(layout: ContentLayout, jobs: DiskJobs, log: BackendLog) {
    this.#layout = layout;
    this.#jobs = jobs;
    this.#log = log;
  }

  get #directory(): string {
    return this.#layout.trash;
  }

  /** Moves a file or directory here and answers where it is now; undefined when there was none. */
  async take(path: string): Promise<string | undefined> {
    const name = `${this.#prefix}-${this.#count++}`;
    const place = (): string => join(this.#directory, name);
    try {
      const taken = place();
      await rename(path, taken);
      return taken;
    } catch (error) {
      if (isFull(error)) return this.#deleteInPlace(path);
      if (!isAbsent(error)) throw error;
    }
    // Either the path or the trash itself is missing.
    try {
      await this.#layout.make(TRASH);
      const taken = place();
      await rename(path, taken);
      return taken;
    } catch (error) {
      if (isFull(error)) return this.#deleteInPlace(path);
      if (isAbsent(error)) return undefined;
      throw error;
    }
  }

  /** A full disk has no room for another name. */
  async #deleteInPlace(path: string): Promise<undefined> {
    const { errors } = await this.empty([path]);
    const [error] = errors;
    if (error !== undefined)
      throw unknownError(`cannot delete ${error.path}: ${error.message}`, { object: error.path });
  }

  /** Deletes what was taken. Failures are logged and reported; the next open tries again. */
  async empty(taken: string[]): Promise<RemovalReport> {
    if (taken.length === 0) return emptyReport();
    try {
      const report = await this.#jobs.removeTrees(DELETIONS, taken);
      for (const { path, message } of report.errors)
        this.#log('warn', `cannot delete ${path}`, { error: message });
      return report;
    } catch (error) {
      const message = messageOf(error);
      this.#log('warn', `cannot empty ${this.#directory}`, { error: message });
      return { ...emptyReport(), errors: [{ path: shown(this.#directory), message }] };
    }
  }

  /** Takes a file or directory from its place; its deletion follows in the background. Absent is success. */
  async discard(path: string): Promise<void> {
    const taken = await this.take(path);
    if (taken === undefined) return;
    // Once the directory is let go of, it is too late.
    if (this.#isClosed) await this.empty([taken]);
    else this.#emptyLater([taken]);
  }

  #emptyLater(taken: readonly string[]): void {
    this.#waiting.push(...taken);
    // It keeps no process alive: the next open goes on.
    this.#timer ??= setTimeout(() => this.#start(), GATHER_MS).unref();
  }

  /** One job at a time: what comes meanwhile goes together into the next. */
  #start(): void {
    this.#running = this.#running.then(async () => {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      await this.empty(this.#waiting.splice(0));
    });
  }

  /** Starts deleting what an earlier process left. */
  async recover(): Promise<void> {
    try {
      const names = await readdir(this.#directory);
      this.#emptyLater(names.map((name) => join(this.#directory, name)));
    } catch (error) {
      if (!isAbsent(error)) this.#log('warn', `cannot read ${this.#directory}`, { error: messageOf(error) });
    }
  }

  /** Waits for deletions in the background. What writers that are still open discard is deleted on this thread. */
  async close(): Promise<void> {
    this.#start();
    await this.#running;
    this.#jobs = inlineJobs;
    this.#isClosed = true;
  }
}
