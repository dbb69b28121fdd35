/**
 * Deletion in two steps: a rename, which frees the name, and the actual deletion on the disk job pool. What a
 * crash leaves in the trash is deleted when the directory is opened again. Called by the content directory.
 */
import { randomBytes } from 'node:crypto';
import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { unknownError } from '../../errors.js';
import { shown } from '../../held-paths.js';
import { isAbsent, isStuck, messageOf } from '../../system/system-errors.js';
import type { DiskJobs, RemovalReport } from '../contract.js';
import { type FileStep, FileSteps } from '../file-steps.js';
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
  /** Paths in the trash for the next job. */
  #waiting: string[] = [];
  #isClosed = false;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  /** Makes names unique to this instance. */
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

  /** Moves a file or directory into the trash and returns its new path; undefined when it did not exist. */
  async take(path: string): Promise<string | undefined> {
    try {
      const moved = this.#place();
      await rename(path, moved);
      return moved;
    } catch (error) {
      if (isStuck(error)) return this.#deleteInPlace(path);
      if (!isAbsent(error)) throw error;
    }
    // Either the path or the trash itself is missing.
    try {
      await this.#layout.make(TRASH);
      const moved = this.#place();
      await rename(path, moved);
      return moved;
    } catch (error) {
      if (isStuck(error)) return this.#deleteInPlace(path);
      if (isAbsent(error)) return undefined;
      throw error;
    }
  }

  /** For what cannot get another name. */
  async #deleteInPlace(path: string): Promise<undefined> {
    const { errors } = await this.empty([path]);
    const [error] = errors;
    if (error !== undefined)
      throw unknownError(`cannot delete ${error.path}: ${error.message}`, { object: error.path });
  }

  /** Deletes paths in the trash. Failures are logged and reported; the next open tries again. */
  async empty(moved: string[]): Promise<RemovalReport> {
    if (moved.length === 0) return emptyReport();
    try {
      const report = await this.#jobs.removeTrees(DELETIONS, moved);
      for (const { path, message } of report.errors)
        this.#log('warn', `cannot delete ${path}`, { error: message });
      return report;
    } catch (error) {
      const message = messageOf(error);
      this.#log('warn', `cannot empty ${this.#directory}`, { error: message });
      return { ...emptyReport(), errors: [{ path: shown(this.#directory), message }] };
    }
  }

  /** Moves a file or directory into the trash and deletes it in the background. Absent is success. */
  async discard(path: string): Promise<void> {
    const moved = await this.take(path);
    if (moved === undefined) return;
    // After the directory is closed, there is no later.
    if (this.#isClosed) await this.empty([moved]);
    else this.#emptyLater([moved]);
  }

  /** The same as a step for a list; when it was made, `made` is to be called, else `discard`. */
  discarding(path: string): { readonly step: FileStep; readonly made: () => void } {
    const moved = this.#place();
    return { step: FileSteps.rename(path, moved), made: () => this.#emptyLater([moved]) };
  }

  #place(): string {
    return join(this.#directory, `${this.#prefix}-${this.#count++}`);
  }

  #emptyLater(moved: readonly string[]): void {
    this.#waiting.push(...moved);
    // Does not keep the process alive: the next open continues.
    this.#timer ??= setTimeout(() => this.#start(), GATHER_MS).unref();
  }

  /** One job at a time: what arrives during it goes into the next. */
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

  /** Waits for background deletions. What open writers discard afterwards is deleted on this thread. */
  async close(): Promise<void> {
    this.#start();
    await this.#running;
    this.#jobs = inlineJobs;
    this.#isClosed = true;
  }
}
