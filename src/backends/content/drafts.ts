/**
 * Ingests in the making. An ingest is made in a draft, which no lister takes for one, and gets its place by a rename, so
 * that others see all of it or nothing.
 *
 * Several instances may share the directory. Each deletes the drafts that are older than any making takes; should one
 * disappear all the same, as after a step of the clock, it is made again. Called by the content directory; nothing here
 * is durable.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { unavailable } from '../../errors.js';
import { errnoOf, isAbsent, messageOf } from '../../system/system-errors.js';
import { orAbsent, together } from '../files.js';
import type { BackendLog } from '../log.js';
import { dataPath, type IngestHead, writeHead } from './ingest.js';
import { type ContentLayout, DRAFTS, INGESTS } from './layout.js';
import type { Trash } from './trash.js';

/** Drafts lost to others before one gives up. */
const MAX_ATTEMPTS = 16;
/** Age of a draft whose maker has died. */
const ABANDONED_AFTER_MS = 60_000;
/** What a rename to a place says where something is: a directory with entries, or something else than a directory. */
const TAKEN: ReadonlySet<string> = new Set(['ENOTEMPTY', 'EEXIST', 'ENOTDIR']);

export class Drafts {
  readonly #layout: ContentLayout;
  readonly #trash: Trash;
  readonly #log: BackendLog;
  /** Names are this instance's own, and never the same twice. */
  readonly #prefix = randomBytes(8).toString('hex');
  #count = 0;

  constructor(layout: ContentLayout, trash: Trash, log: BackendLog) {
    this.#layout = layout;
    this.#trash = trash;
    this.#log = log;
  }

  /** Makes an ingest in its place and answers its open data file; undefined when there is something already. */
  async publish(head: IngestHead): Promise<FileHandle | undefined> {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const path = join(this.#layout.drafts, `${this.#prefix}-${this.#count++}`);
      const outcome = await this.#publish(path, head).catch(async (error: unknown) => {
        await this.#trash.discard(path).catch(() => undefined);
        throw error;
      });
      if (outcome === 'taken') {
        await this.#trash.discard(path);
        return undefined;
      }
      if (outcome !== 'lost') return outcome;
    }
    throw unavailable(`cannot make an ingest: others keep removing what is in ${this.#layout.drafts}`, {
      object: this.#layout.drafts,
      remedy: 'leave the content directory to this program alone',
    });
  }

  async #publish(path: string, head: IngestHead): Promise<FileHandle | 'taken' | 'lost'> {
    const handle = await this.#make(path, head);
    if (handle === null) return 'lost';
    let outcome: 'placed' | 'taken' | 'lost' | undefined;
    try {
      outcome = await this.#place(path, head.ref);
      if (outcome === 'placed') return handle;
      return outcome;
    } finally {
      if (outcome !== 'placed') await handle.close();
    }
  }

  /** Null when somebody removed the draft meanwhile. */
  async #make(path: string, head: IngestHead): Promise<FileHandle | null> {
    if ((await orAbsent(mkdir(path, 0o700))) === null) {
      await this.#layout.make(DRAFTS);
      if ((await orAbsent(mkdir(path, 0o700))) === null) return null;
    }
    const opening = open(dataPath(path), constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      const [handle] = await together([opening, writeHead(path, head)]);
      return handle;
    } catch (error) {
      await opening.then((handle) => handle.close()).catch(() => undefined);
      if (isAbsent(error)) return null;
      throw error;
    }
  }

  async #place(path: string, ref: string): Promise<'placed' | 'taken' | 'lost'> {
    try {
      if ((await orAbsent(rename(path, this.#layout.ingest(ref)))) !== null) return 'placed';
      await this.#layout.make(INGESTS);
      return (await orAbsent(rename(path, this.#layout.ingest(ref)))) === null ? 'lost' : 'placed';
    } catch (error) {
      if (TAKEN.has(errnoOf(error) ?? '')) return 'taken';
      throw error;
    }
  }

  /** Deletes what was left by makers that died. */
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
