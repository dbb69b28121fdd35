/**
 * Ingests under construction. An ingest is created as a draft, which listers ignore, and renamed into place,
 * so that others see all of it or nothing.
 *
 * Several instances may share the directory. Each deletes drafts that are older than any construction takes;
 * a draft that disappears all the same, as after a step of the clock, is created again. Called by the content
 * directory; nothing here is durable.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, lstat, open, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { unavailable } from '../../errors.js';
import { errnoOf, isAbsent, messageOf } from '../../system/system-errors.js';
import { runSteps } from '../file-steps.js';
import { orAbsent } from '../files.js';
import type { BackendLog } from '../log.js';
import { dataPath, type IngestHead, ingestSteps } from './ingest.js';
import { type ContentLayout, DRAFTS, INGESTS } from './layout.js';
import type { Trash } from './trash.js';

/** Attempts before giving up because others remove the draft. */
const MAX_ATTEMPTS = 16;
/** Age from which a draft's creator must have died. */
const ABANDONED_AFTER_MS = 60_000;
const DATA = constants.O_RDWR | constants.O_NOFOLLOW;
/** Errors of a rename whose target exists: a directory with entries, or something other than a directory. */
const EXISTS: ReadonlySet<string> = new Set(['ENOTEMPTY', 'EEXIST', 'ENOTDIR']);

export class Drafts {
  readonly #layout: ContentLayout;
  readonly #trash: Trash;
  readonly #log: BackendLog;
  /** Makes names unique to this instance. */
  readonly #prefix = randomBytes(8).toString('hex');
  #count = 0;

  constructor(layout: ContentLayout, trash: Trash, log: BackendLog) {
    this.#layout = layout;
    this.#trash = trash;
    this.#log = log;
  }

  /** Creates an ingest in its place and returns its open data file; undefined when something exists there. */
  async publish(head: IngestHead): Promise<FileHandle | undefined> {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const path = join(this.#layout.drafts, `${this.#prefix}-${this.#count++}`);
      const outcome = await this.#publish(path, head).catch(async (error: unknown) => {
        await this.#trash.discard(path).catch(() => undefined);
        throw error;
      });
      if (outcome === 'exists') {
        await this.#trash.discard(path);
        return undefined;
      }
      if (outcome !== 'lost') return outcome;
    }
    throw unavailable(`cannot create an ingest: others keep removing what is in ${this.#layout.drafts}`, {
      object: this.#layout.drafts,
      remedy: 'no other program may use the content directory',
    });
  }

  async #publish(path: string, head: IngestHead): Promise<FileHandle | 'exists' | 'lost'> {
    const handle = await this.#make(path, head);
    if (handle === null) return 'lost';
    let outcome: 'placed' | 'exists' | 'lost' | undefined;
    try {
      outcome = await this.#place(path, head.ref);
      if (outcome === 'placed') return handle;
      return outcome;
    } finally {
      if (outcome !== 'placed') await handle.close();
    }
  }

  /** Null when another process has removed the draft. */
  async #make(path: string, head: IngestHead): Promise<FileHandle | null> {
    const steps = ingestSteps(path, head);
    let [failure] = await runSteps(steps);
    if (failure?.step.kind === 'makeDirectory' && isAbsent(failure.error)) {
      await this.#layout.make(DRAFTS);
      [failure] = await runSteps(steps);
    }
    if (failure === undefined) return orAbsent(open(dataPath(path), DATA));
    if (isAbsent(failure.error)) return null;
    throw failure.error;
  }

  async #place(path: string, ref: string): Promise<'placed' | 'exists' | 'lost'> {
    try {
      if ((await orAbsent(rename(path, this.#layout.ingest(ref)))) !== null) return 'placed';
      await this.#layout.make(INGESTS);
      return (await orAbsent(rename(path, this.#layout.ingest(ref)))) === null ? 'lost' : 'placed';
    } catch (error) {
      if (EXISTS.has(errnoOf(error) ?? '')) return 'exists';
      throw error;
    }
  }

  /** Deletes drafts whose creators died. */
  async sweep(): Promise<void> {
    const { drafts } = this.#layout;
    try {
      for (const name of (await orAbsent(readdir(drafts))) ?? []) {
        const path = join(drafts, name);
        const stats = await orAbsent(lstat(path));
        if (stats === null || Math.abs(Date.now() - stats.mtimeMs) < ABANDONED_AFTER_MS) continue;
        await this.#trash.discard(path);
      }
    } catch (error) {
      this.#log('warn', `cannot clear ${drafts}`, { error: messageOf(error) });
    }
  }
}
