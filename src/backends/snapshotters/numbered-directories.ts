/**
 * The directories of a snapshotter's snapshots, from their construction to their removal, and which of those
 * without a record may be deleted. Called by snapshotter.ts, which runs one operation at a time for a key,
 * and verifies first that the directory is in its place.
 *
 *   <id>/           of the snapshot with that number
 *   new-<random>/   under construction
 *   rm-<id>/        being removed
 *
 * A name with an operation under way is busy: nothing else deletes it.
 */
import { randomBytes } from 'node:crypto';
import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { EbbtideError } from '../../errors.js';
import type { HeldDirectory } from '../../system/held-directory.js';
import { syncDirectory } from '../../system/sync-directory.js';
import { isStuck, messageOf } from '../../system/system-errors.js';
import type { DiskJobs, RemovalReport } from '../contract.js';
import { orAbsent, yieldToEventLoop } from '../files.js';
import { diskError } from '../fs-errors.js';
import type { BackendLog } from '../log.js';
import { addReport, emptyReport } from '../remove-tree.js';
import { syncFileSystem } from '../sys.js';
import type { Metastore } from './metastore.js';
import type { MetaTransaction } from './metastore-change.js';
import type { RemovalMode } from './snapshot-driver.js';
import { toBeSpared } from './unknown-directories.js';

const BUILDING = 'new-';
const REMOVED = 'rm-';
const NUMBER = /^[1-9]\d{0,14}$/;
/** Names that are examined before yielding. */
const STEP = 256;
/** Cleanups of known leftovers before one scans the whole directory again. */
const CLEANUPS_PER_SCAN = 32;

export const isSnapshotNumber = (name: string): boolean => NUMBER.test(name);

interface Means {
  /** Of the snapshotter: the stream of its removals, and for the log. */
  readonly name: string;
  readonly jobs: DiskJobs;
  readonly log: BackendLog;
}

export class NumberedDirectories {
  readonly #place: HeldDirectory;
  readonly #meta: Metastore;
  readonly #means: Means;
  /** Names in the directory that an operation is using. */
  readonly #busy = new Set<string>();
  /** Directories found at open that the metadata does not know: never removed. */
  readonly #spared = new Set<string>();
  readonly #background = new Set<Promise<void>>();
  /** Directories of removed snapshots that wait for `cleanup`. */
  readonly #left = new Set<string>();
  /** Cleanups until the next one that scans the whole directory. */
  #scanIn = 0;
  /** What background removals freed since the last report. */
  #freed = emptyReport();

  constructor(place: HeldDirectory, meta: Metastore, means: Means) {
    this.#place = place;
    this.#meta = meta;
    this.#means = means;
  }

  path(name: string): string {
    return join(this.#place.at, name);
  }

  // ------------------------------------------------------------------------------------------- creating,
  // removing

  /**
   * Builds a directory and renames it to the number that `create` returns, in the transaction that writes the
   * record.
   */
  async make(build: (path: string) => Promise<void>, create: (tx: MetaTransaction) => number): Promise<void> {
    let name = BUILDING + randomBytes(8).toString('hex');
    const building = name;
    this.#busy.add(building);
    try {
      await build(this.path(name));
      await this.#meta.write(async (tx) => {
        const id = String(create(tx));
        await rename(this.path(name), this.path(id));
        name = id;
        await syncDirectory(this.#place.at);
      });
    } catch (error) {
      await this.#delete([name]);
      throw error instanceof EbbtideError ? error : diskError('make', this.path(name), error);
    } finally {
      this.#busy.delete(building);
    }
  }

  /**
   * Builds a directory, on disk, and puts it in the place of that of a snapshot, which is deleted. A crash leaves one of the two.
   * `release`: called with the name of the old one when nobody finds it under its own any more; throws if it has to stay.
   * REQUIRES: no operation on the snapshot is under way.
   */
  async replace(
    id: number,
    build: (name: string) => Promise<void>,
    release: (name: string) => Promise<void>,
  ): Promise<void> {
    const name = String(id);
    const building = BUILDING + randomBytes(8).toString('hex');
    const old = REMOVED + name;
    const busy = [building, old];
    for (const one of busy) this.#busy.add(one);
    try {
      await build(building);
      await syncFileSystem(this.path(building));
      const isThere = (await orAbsent(rename(this.path(name), this.path(old)))) !== null;
      try {
        if (isThere) await release(old);
        await rename(this.path(building), this.path(name));
      } catch (error) {
        if (isThere) await rename(this.path(old), this.path(name));
        throw error;
      }
      await syncDirectory(this.#place.at);
      await this.#delete([old]);
    } catch (error) {
      await this.#delete([building]);
      throw error instanceof EbbtideError ? error : diskError('replace', this.path(name), error);
    } finally {
      for (const one of busy) this.#busy.delete(one);
    }
  }

  /**
   * `remove` removes the record and returns its number; its directory, if any, is deleted according to
   * `mode`.
   */
  async remove(remove: (tx: MetaTransaction) => number, mode: RemovalMode): Promise<void> {
    const name = await this.#takeOut(remove);
    if (name === undefined) return;
    switch (mode) {
      case 'background':
        this.#deleteInBackground([name]);
        return;
      case 'immediate': {
        const { errors } = await this.#delete([name]);
        if (errors.length > 0) this.#scanIn = 0;
        break;
      }
      case 'deferred':
        this.#left.add(name);
    }
    this.#busy.delete(name);
  }

  /**
   * Removes the record; returns the new name of the directory, which is busy, or undefined without a
   * directory.
   */
  async #takeOut(remove: (tx: MetaTransaction) => number): Promise<string | undefined> {
    let renamed: { from: string; to: string } | undefined;
    let stuck: string | undefined;
    try {
      await this.#meta.write(async (tx) => {
        const id = remove(tx);
        const names = { from: String(id), to: REMOVED + id };
        this.#busy.add(names.to);
        const moved = await this.#moveAway(names);
        if (moved === 'moved') renamed = names;
        else this.#busy.delete(names.to);
        if (moved === 'stuck') stuck = names.from;
      });
    } catch (error) {
      if (renamed !== undefined) await this.#restore(renamed);
      throw error instanceof EbbtideError ? error : diskError('remove', this.#place.at, error);
    }
    // Only now does it lack a record.
    if (stuck !== undefined) this.#left.add(stuck);
    return renamed?.to;
  }

  /** Stuck: a cleanup deletes it under its own name. */
  async #moveAway({ from, to }: { from: string; to: string }): Promise<'moved' | 'absent' | 'stuck'> {
    try {
      return (await orAbsent(rename(this.path(from), this.path(to)))) === null ? 'absent' : 'moved';
    } catch (error) {
      if (isStuck(error)) return 'stuck';
      throw error;
    }
  }

  async #restore({ from, to }: { from: string; to: string }): Promise<void> {
    await rename(this.path(to), this.path(from));
    this.#busy.delete(to);
  }

  // ---------------------------------------------------------------------------------------------------- leftovers

  /**
   * Deletes directories that belong to no snapshot, and waits for removals under way. Returns what that and
   * the removals since the last call freed. Leftovers of removals are known; the whole directory is scanned
   * once after opening, when nothing is known to be left, and at intervals.
   */
  async cleanup(): Promise<RemovalReport> {
    await this.idle();
    const report = this.#freed;
    this.#freed = emptyReport();
    const left = [...this.#left];
    this.#left.clear();
    const scan = this.#scanIn <= 0 || left.length === 0;
    this.#scanIn = scan ? CLEANUPS_PER_SCAN : this.#scanIn - 1;
    addReport(report, await this.#delete(scan ? await this.#scan() : left));
    if (report.errors.length > 0) this.#scanIn = 0;
    return report;
  }

  /** Names that belong to no snapshot, and are not known to wait for a cleanup. */
  async orphans(): Promise<string[]> {
    const names = (await this.#scan()).filter((name) => !this.#left.has(name));
    // A removal may have ended while they were looked through: then its directory is gone.
    const there = names.length === 0 ? undefined : new Set(await this.#list());
    return names.filter((name) => there?.has(name));
  }

  /** Recovers from a crash: partly built and partly removed directories, ids issued but never recorded. */
  async recover(): Promise<void> {
    const names = await this.#list();
    await this.#findSpared(names.filter(isSnapshotNumber));
    const leftovers: string[] = [];
    const there = new Set(names);
    for (const name of names) {
      const id = name.startsWith(REMOVED) ? name.slice(REMOVED.length) : undefined;
      // With both, the old one of a directory that was replaced.
      if (id !== undefined && this.#isKnown(id) && !there.has(id))
        await this.#restore({ from: id, to: name });
      else if (id !== undefined || name.startsWith(BUILDING) || this.#isAbandoned(name)) leftovers.push(name);
    }
    if (leftovers.length === 0) return;
    for (const name of leftovers) this.#busy.add(name);
    this.#deleteInBackground(leftovers);
  }

  /** Waits for removals under way. */
  async idle(): Promise<void> {
    await Promise.all(this.#background);
  }

  async #findSpared(numbered: readonly string[]): Promise<void> {
    const { existed, sequence } = this.#meta;
    const unknown = numbered.filter((name) => !this.#isKnown(name));
    for (const name of numbered) this.#meta.skipTo(Number(name));
    const spared = existed ? await toBeSpared(this.#place.at, numbered.length, unknown, sequence) : numbered;
    if (spared.length === 0) return;
    for (const name of spared) this.#spared.add(name);
    const what = existed ? 'that their metadata file does not know' : 'but their metadata file is gone';
    this.#means.log('warn', `${this.#place.path} holds ${spared.length} snapshots, ${what}`, {
      directories: spared.slice(0, 20),
      remedy: 'restore metadata.db; or, if they are lost for good, delete these directories',
    });
  }

  /**
   * Names in the directory that belong to no snapshot and no operation. Collected in steps, then decided in a
   * write transaction, during which no creation is between renaming its directory and committing its record.
   * Ids are never reused, so a name that belongs to no snapshot then never will.
   */
  async #scan(): Promise<string[]> {
    const isUnknown = (name: string): boolean =>
      !this.#isKnown(name) && !this.#busy.has(name) && !this.#spared.has(name);
    const names = await this.#list();
    const candidates: string[] = [];
    for (let at = 0; at < names.length; at += STEP) {
      candidates.push(...names.slice(at, at + STEP).filter(isUnknown));
      await yieldToEventLoop();
    }
    return this.#meta.write(() => candidates.filter(isUnknown));
  }

  async #list(): Promise<string[]> {
    try {
      return await readdir(this.#place.at);
    } catch (error) {
      throw diskError('list', this.#place.at, error);
    }
  }

  /** REQUIRES: the names are busy; they are released afterwards. */
  #deleteInBackground(names: readonly string[]): void {
    const work = async (): Promise<void> => {
      addReport(this.#freed, await this.#delete(names));
      for (const name of names) this.#busy.delete(name);
    };
    const running: Promise<void> = work().finally(() => this.#background.delete(running));
    this.#background.add(running);
  }

  /** Failures are logged; the next cleanup or open tries again. */
  async #delete(names: readonly string[]): Promise<RemovalReport> {
    if (names.length === 0) return emptyReport();
    const { name: snapshotter, jobs, log } = this.#means;
    const paths = names.map((name) => this.path(name));
    try {
      const report = await jobs.removeTrees(`snapshotter ${snapshotter}`, paths);
      for (const { path, message } of report.errors) log('warn', `cannot delete ${path}`, { error: message });
      return report;
    } catch (error) {
      const message = messageOf(error);
      log('warn', `cannot delete ${paths.length} snapshot directories`, { error: message });
      return { ...emptyReport(), errors: [{ path: this.#place.path, message }] };
    }
  }

  #isAbandoned(name: string): boolean {
    return isSnapshotNumber(name) && !this.#isKnown(name) && !this.#spared.has(name);
  }

  #isKnown(name: string): boolean {
    return isSnapshotNumber(name) && this.#meta.has(Number(name));
  }
}
