/**
 * What the native and the overlay snapshotter have in common: a metastore, and one directory per snapshot named
 * after its id. A driver says how directories are made and mounted. Called through SnapshotterBackend.
 *
 *   <root>/metadata.db              <root>/snapshots/<id>/       <root>/snapshots/new-<random>/  under construction
 *   <root>/metadata.lock            <root>/snapshots/rm-<id>/    on its way out
 *
 * Record and directory: a directory is renamed into place before its record is committed, and renamed out of it in the
 * transaction that removes the record, so a crash leaves directories under construction or on their way out, which the
 * next open or cleanup removes, and at most one numbered directory without a record. Others without one are those of a
 * metadata file that was lost or set back: they are left alone (unknown-directories.ts).
 *
 * Threading: operations on different keys overlap; building a directory (a copy can take minutes) holds up only
 * users of that key and removals of its parent. Records change one commit at a time. Resolved means on disk.
 */
import { randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { EbbtideError, failedPrecondition, invalidArgument, notFound } from '../errors.js';
import { HeldDirectory } from '../held-directory.js';
import { shown } from '../held-paths.js';
import { maskedLabels } from '../model/fieldpaths.js';
import { adaptLabels, parseFilters } from '../model/filters.js';
import { compactMap, copyMap } from '../model/labels.js';
import type { StringMap } from '../model/records.js';
import type {
  DiskJobs,
  Mount,
  MountOwner,
  RemovalReport,
  SnapshotInfo,
  SnapshotOptions,
  SnapshotProblem,
  SnapshotterBackend,
  Usage,
} from './contract.js';
import { diskUsage } from './disk-usage.js';
import { FileLock } from './file-lock.js';
import { breathe, makeRoot, orAbsent, syncDirectory } from './files.js';
import { diskError, isFull, messageOf } from './fs-errors.js';
import { type BackendLog, stderrLog } from './log.js';
import { checkCommit, checkCreate, Metastore, type MetaTransaction } from './metastore.js';
// Not through metastore.js: our declarations must not drag lmdb's, which are unsound, into users' builds.
import type { StoredSnapshot } from './metastore-records.js';
import { directoriesOf, isReadOnly, sameDirectories } from './mount-shape.js';
import { ObjectLocks } from './object-locks.js';
import { addReport, emptyReport, inlineJobs } from './remove-tree.js';
import { problemsOf, requireDirectories } from './snapshot-directories.js';
import { toBeSpared } from './unknown-directories.js';

export interface SnapshotterOptions {
  /** Where directories are deleted; the calling thread when absent. */
  jobs?: DiskJobs | undefined;
  log?: BackendLog | undefined;
}

/** When the directory of a removed snapshot goes. */
export type RemovalMode =
  /** In the background. */
  | 'background'
  /** In `cleanup`. */
  | 'deferred'
  /** Before `remove` resolves. */
  | 'immediate';

export interface NewSnapshot {
  kind: 'active' | 'view';
  parent: StoredSnapshot | undefined;
  labels: StringMap | undefined;
}

export interface SnapshotDriver {
  readonly name: string;
  readonly removal: RemovalMode;
  /** False for snapshots that need no directory of their own. */
  hasDirectory(snapshot: NewSnapshot): boolean;
  /**
   * Makes `directory`, which does not exist. `contents`: where the tree of another snapshot is read. What a failure leaves
   * behind is removed by the caller.
   */
  build(directory: string, snapshot: NewSnapshot, contents: (id: number) => string): Promise<void>;
  /** Mounts of an active snapshot or a view. `parents`: ids, nearest first. */
  mounts(snapshot: StoredSnapshot, parents: readonly number[]): Mount[];
  /** Directories that those mounts need, by their names; without parents: those of the snapshot alone. */
  needs(snapshot: StoredSnapshot, parents: readonly number[]): string[];
  /** Directory whose tree is what the snapshot alone takes, by its name. */
  contents(id: number): string;
  /**
   * Optional: FailedPrecondition for an active snapshot whose directory alone is not what its mount showed. Answers what
   * to ask, with the same error, about each entry of it.
   */
  checkCommit?(directory: string): Promise<(path: Buffer, stats: Stats) => void>;
  /** Labels that are not stored but shown. */
  shownLabels?(snapshot: StoredSnapshot): StringMap;
}

const BUILDING = 'new-';
const REMOVED = 'rm-';
const NUMBER = /^[1-9]\d{0,14}$/;
/** Snapshots or names that are looked at without letting others run. */
const STEP = 256;
/** Cleanups that only do what is known to be left, before one looks through the whole directory again. */
const CLEANUPS_PER_SCAN = 32;

const SNAPSHOTS = 'snapshots';
const LOCK = 'metadata.lock';
export const snapshotDirectory = (root: string, id: number): string => join(root, SNAPSHOTS, String(id));

export class DirectorySnapshotter implements SnapshotterBackend, AsyncDisposable {
  readonly root: string;
  readonly #driver: SnapshotDriver;
  readonly #root: HeldDirectory;
  /** Of the snapshots: often a file system of its own. */
  readonly #snapshots: HeldDirectory;
  readonly #meta: Metastore;
  readonly #lock: FileLock;
  readonly #jobs: DiskJobs;
  readonly #log: BackendLog;
  readonly #keys = new ObjectLocks();
  /** By key: ends what is being written to the snapshot. */
  readonly #writers = new Map<string, AbortController>();
  /** Names in the directory that belong to an operation under way. */
  readonly #busy = new Set<string>();
  /** Directories found at open that the metadata does not know: never removed. */
  readonly #spared = new Set<string>();
  readonly #background = new Set<Promise<void>>();
  /** Directories of removed snapshots that wait for `cleanup`. */
  readonly #left = new Set<string>();
  /** Cleanups until the next one that looks through the whole directory. */
  #scanIn = 0;
  /** What background removals freed since it was last reported. */
  #freed = emptyReport();
  #closing: Promise<void> | undefined;

  private constructor(
    place: { root: HeldDirectory; snapshots: HeldDirectory; lock: FileLock },
    driver: SnapshotDriver,
    meta: Metastore,
    o: SnapshotterOptions,
  ) {
    this.root = place.root.path;
    this.#driver = driver;
    this.#root = place.root;
    this.#snapshots = place.snapshots;
    this.#lock = place.lock;
    this.#meta = meta;
    this.#jobs = o.jobs ?? inlineJobs;
    this.#log = o.log ?? stderrLog;
  }

  /**
   * Opens (or makes) a snapshotter in `root`, an absolute path. Unavailable when it is open already; clear errors for a
   * root that cannot be used and for metadata that is damaged or not ours.
   */
  static async open(
    path: string,
    driver: SnapshotDriver,
    options: SnapshotterOptions,
  ): Promise<DirectorySnapshotter> {
    await makeRoot(path, 0o700);
    const root = HeldDirectory.open(path);
    const undo: (() => unknown)[] = [() => root.release()];
    try {
      root.setMode(0o700);
      const lock = await FileLock.acquire(join(root.at, LOCK), `the ${driver.name} snapshotter in ${path}`);
      undo.push(() => lock.release());
      await makeRoot(join(root.at, SNAPSHOTS), 0o700);
      const snapshots = root.child(SNAPSHOTS);
      undo.push(() => snapshots.release());
      const meta = await Metastore.open(join(root.at, 'metadata.db'));
      undo.push(() => meta.close());
      const snapshotter = new DirectorySnapshotter({ root, snapshots, lock }, driver, meta, options);
      await snapshotter.#recover();
      return snapshotter;
    } catch (error) {
      for (const step of undo.reverse()) await step();
      throw error;
    }
  }

  /** Before directories are made, listed or handed out by their names. Unavailable: they are not where they were. */
  #verify(): void {
    this.#root.verify();
    this.#snapshots.verify();
    this.#lock.verify(this.#root, LOCK);
  }

  get #directory(): string {
    return this.#snapshots.at;
  }

  // ---------------------------------------------------------------------------------------------------- reading

  async stat(key: string): Promise<SnapshotInfo> {
    return this.#info(this.#meta.get(key));
  }

  async usage(key: string): Promise<Usage> {
    const snapshot = this.#meta.get(key);
    if (snapshot.kind === 'active') return this.#measure(snapshot.id);
    return { inodes: snapshot.inodes, size: snapshot.size };
  }

  async mounts(key: string): Promise<Mount[]> {
    const snapshot = this.#meta.get(key);
    if (snapshot.kind === 'committed') {
      throw failedPrecondition(`snapshot "${key}" is committed and cannot be mounted`, {
        object: key,
        remedy: 'make a view of it and mount that',
      });
    }
    this.#verify();
    const parents = this.#meta.ancestors(snapshot);
    await requireDirectories(key, this.#driver.needs(snapshot, parents));
    return this.#driver.mounts(snapshot, parents);
  }

  async walk(fn: (info: SnapshotInfo) => Promise<void> | void, ...filters: string[]): Promise<void> {
    const matches = parseFilters(filters);
    this.#verify();
    let last = 0;
    for (let step = this.#meta.after(last, STEP); step.length > 0; step = this.#meta.after(last, STEP)) {
      for (const { id } of step) {
        last = id;
        // Looked at again, for what earlier calls of fn changed.
        const snapshot = this.#meta.byId(id);
        if (snapshot === undefined) continue;
        const info = this.#info(snapshot);
        if (matches((path) => field(info, path))) await fn(info);
      }
      await breathe();
    }
  }

  async ownerOf(mounts: readonly Mount[]): Promise<MountOwner | undefined> {
    const [top] = directoriesOf(mounts) ?? [];
    const id = Number(top?.slice(join(this.root, SNAPSHOTS).length + 1).split('/')[0]);
    if (top === undefined || !NUMBER.test(String(id)) || this.#driver.contents(id) !== top) return undefined;
    const snapshot = this.#meta.byId(id);
    if (snapshot === undefined) return undefined;
    const above = this.#meta.ancestors(snapshot);
    const own =
      snapshot.kind === 'committed'
        ? this.#driver.mounts({ ...snapshot, kind: 'view' }, [id, ...above])
        : this.#driver.mounts(snapshot, above);
    if (!sameDirectories(own, mounts)) return undefined;
    this.#verify();
    return {
      key: snapshot.key,
      mounts: own,
      writable: snapshot.kind === 'active' && !isReadOnly(mounts),
    };
  }

  write<T>(key: string, work: (mounts: Mount[], signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#keys.with(key, 'exclusive', async () => {
      const snapshot = this.#meta.get(key);
      if (snapshot.kind !== 'active') {
        throw failedPrecondition(`snapshot "${key}" is ${snapshot.kind} and cannot be written`, {
          object: key,
        });
      }
      this.#verify();
      const removal = new AbortController();
      this.#writers.set(key, removal);
      try {
        return await work(this.#driver.mounts(snapshot, this.#meta.ancestors(snapshot)), removal.signal);
      } finally {
        this.#writers.delete(key);
      }
    });
  }

  #info(snapshot: StoredSnapshot): SnapshotInfo {
    return {
      kind: snapshot.kind,
      name: snapshot.key,
      parent: this.#meta.parentKey(snapshot),
      labels: { ...copyMap(snapshot.labels), ...this.#driver.shownLabels?.(snapshot) },
      created: snapshot.created,
      updated: snapshot.updated,
    };
  }

  /** Snapshots without their directory, with a lost parent, and directories that no snapshot has. */
  async inspect(fn: (problem: SnapshotProblem) => Promise<void> | void): Promise<void> {
    this.#verify();
    let last = 0;
    for (let step = this.#meta.after(last, STEP); step.length > 0; step = this.#meta.after(last, STEP)) {
      for (const { id } of step) {
        last = id;
        for (const problem of await problemsOf(this.#meta, this.#driver, id)) await fn(problem);
      }
      await breathe();
    }
    for (const name of await this.#scan()) {
      if (this.#left.has(name)) continue;
      await fn({ kind: 'orphan', name, path: shown(this.#path(name)), found: 'no snapshot' });
    }
  }

  async #measure(id: number, see?: (path: Buffer, stats: Stats) => void): Promise<Usage> {
    const path = this.#contents(id);
    try {
      return await diskUsage(path, see);
    } catch (error) {
      if (error instanceof EbbtideError) throw error;
      throw diskError('measure', path, error);
    }
  }

  /** `contents` of the driver as it is reached from here. */
  #contents(id: number): string {
    return this.#snapshots.through(this.#driver.contents(id));
  }

  // ---------------------------------------------------------------------------------------------------- changing

  async update(info: SnapshotInfo, ...paths: string[]): Promise<SnapshotInfo> {
    if (info.name === '') throw invalidArgument('snapshot name must not be empty');
    const updated = await this.#meta.write((tx) =>
      tx.relabel(info.name, (labels) =>
        compactMap(maskedLabels('snapshot', info.name, labels, info.labels, paths)),
      ),
    );
    return this.#info(updated);
  }

  prepare(key: string, parent: string, options: SnapshotOptions = {}): Promise<Mount[]> {
    return this.#make('active', key, parent, options);
  }

  view(key: string, parent: string, options: SnapshotOptions = {}): Promise<Mount[]> {
    return this.#make('view', key, parent, options);
  }

  #make(kind: 'active' | 'view', key: string, parentKey: string, options: SnapshotOptions): Promise<Mount[]> {
    return this.#keys.withAll({ exclusive: [key], shared: [parentKey] }, async () => {
      const parent = checkCreate(this.#meta, key, parentKey);
      this.#verify();
      if (parent !== undefined) await this.#requireLayers(parent);
      const snapshot = { kind, parent, labels: compactMap(options.labels) };
      const create = (tx: MetaTransaction): number => tx.create(kind, key, parentKey, snapshot.labels).id;
      if (this.#driver.hasDirectory(snapshot)) await this.#makeDirectory(snapshot, create);
      else await this.#meta.write(create);
      return this.mounts(key);
    });
  }

  /** A snapshot on a parent whose directory is gone could not be mounted, or would lack what the parent had. */
  async #requireLayers(parent: StoredSnapshot): Promise<void> {
    const layers = this.#driver.needs({ ...parent, kind: 'view' }, [
      parent.id,
      ...this.#meta.ancestors(parent),
    ]);
    await requireDirectories(parent.key, layers);
  }

  async #makeDirectory(snapshot: NewSnapshot, create: (tx: MetaTransaction) => number): Promise<void> {
    let name = BUILDING + randomBytes(8).toString('hex');
    const building = name;
    this.#busy.add(building);
    try {
      await this.#driver.build(this.#path(name), snapshot, (id) => this.#contents(id));
      await this.#meta.write(async (tx) => {
        const id = String(create(tx));
        await rename(this.#path(name), this.#path(id));
        name = id;
        await syncDirectory(this.#directory);
      });
    } catch (error) {
      await this.#delete([name]);
      throw error instanceof EbbtideError ? error : diskError('make', this.#path(name), error);
    } finally {
      this.#busy.delete(building);
    }
  }

  commit(name: string, key: string, options: SnapshotOptions = {}): Promise<void> {
    const rebase = options.parent ?? '';
    return this.#keys.withAll({ exclusive: [name, key], shared: [rebase] }, async () => {
      this.#verify();
      const active = checkCommit(this.#meta, name, key);
      const usage = await this.#measure(
        active.id,
        await this.#driver.checkCommit?.(this.#path(String(active.id))),
      );
      await this.#meta.write((tx) => {
        tx.commit(name, key, usage, compactMap(options.labels), rebase);
      });
    });
  }

  remove(key: string): Promise<void> {
    this.#writers.get(key)?.abort(notFound(`snapshot "${key}" has been removed`, { object: key }));
    return this.#keys.with(key, 'exclusive', async () => {
      this.#verify();
      const name = await this.#takeOut(key);
      if (name === undefined) return;
      switch (this.#driver.removal) {
        case 'background':
          this.#run(async () => {
            addReport(this.#freed, await this.#delete([name]));
            this.#busy.delete(name);
          });
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
    });
  }

  /** Removes the record; answers the new name of the directory, which is busy, or undefined without a directory. */
  async #takeOut(key: string): Promise<string | undefined> {
    let renamed: { from: string; to: string } | undefined;
    let stuck: string | undefined;
    try {
      await this.#meta.write(async (tx) => {
        const { id } = tx.remove(key);
        const names = { from: String(id), to: REMOVED + id };
        this.#busy.add(names.to);
        const moved = await this.#moveAway(names);
        if (moved === 'moved') renamed = names;
        else this.#busy.delete(names.to);
        if (moved === 'stuck') stuck = names.from;
      });
    } catch (error) {
      if (renamed !== undefined) await this.#restore(renamed);
      throw error instanceof EbbtideError ? error : diskError('remove', this.#directory, error);
    }
    // Only now has it no record.
    if (stuck !== undefined) this.#left.add(stuck);
    return renamed?.to;
  }

  /** Stuck: a full disk has no room for another name, and a cleanup deletes it under its own. */
  async #moveAway({ from, to }: { from: string; to: string }): Promise<'moved' | 'absent' | 'stuck'> {
    try {
      return (await orAbsent(rename(this.#path(from), this.#path(to)))) === null ? 'absent' : 'moved';
    } catch (error) {
      if (isFull(error)) return 'stuck';
      throw error;
    }
  }

  async #restore({ from, to }: { from: string; to: string }): Promise<void> {
    await rename(this.#path(to), this.#path(from));
    this.#busy.delete(to);
  }

  /**
   * Deletes directories that belong to no snapshot, and waits for removals under way. Answers what that and the
   * removals since the last call freed. What removals left is known; once after opening, when nothing is known to
   * be left, and now and then, the whole directory is looked through.
   */
  async cleanup(): Promise<RemovalReport> {
    this.#verify();
    await Promise.all(this.#background);
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

  /**
   * Names in the directory that are no snapshot's and nobody's work under way. Found in steps, then decided in a
   * write transaction, in which no creation is between renaming its directory and committing its record. Ids are
   * never used again, so what belongs to nobody then never will.
   */
  async #scan(): Promise<string[]> {
    const isUnknown = (name: string): boolean =>
      !this.#isKnown(name) && !this.#busy.has(name) && !this.#spared.has(name);
    const names = await this.#list();
    const candidates: string[] = [];
    for (let at = 0; at < names.length; at += STEP) {
      candidates.push(...names.slice(at, at + STEP).filter(isUnknown));
      await breathe();
    }
    return this.#meta.write(() => candidates.filter(isUnknown));
  }

  async #list(): Promise<string[]> {
    try {
      return await readdir(this.#directory);
    } catch (error) {
      throw diskError('list', this.#directory, error);
    }
  }

  /** What could not be deleted is logged; it is tried again by the next cleanup or open. */
  async #delete(names: readonly string[]): Promise<RemovalReport> {
    if (names.length === 0) return emptyReport();
    const paths = names.map((name) => this.#path(name));
    try {
      const report = await this.#jobs.removeTrees(`snapshotter ${this.#driver.name}`, paths);
      for (const { path, message } of report.errors)
        this.#log('warn', `cannot delete ${path}`, { error: message });
      return report;
    } catch (error) {
      const message = messageOf(error);
      this.#log('warn', `cannot delete ${paths.length} snapshot directories`, { error: message });
      return { ...emptyReport(), errors: [{ path: this.#snapshots.path, message }] };
    }
  }

  #run(work: () => Promise<void>): void {
    const running: Promise<void> = work().finally(() => this.#background.delete(running));
    this.#background.add(running);
  }

  /** Puts right what a crash left: half-built and half-removed directories, ids given out but never recorded. */
  async #recover(): Promise<void> {
    const names = await this.#list();
    const numbered = names.filter((name) => NUMBER.test(name));
    const { existed, sequence } = this.#meta;
    const unknown = numbered.filter((name) => !this.#isKnown(name));
    for (const name of numbered) this.#meta.skipTo(Number(name));
    const spared = existed ? await toBeSpared(this.#directory, numbered.length, unknown, sequence) : numbered;
    for (const name of spared) this.#spared.add(name);
    if (spared.length > 0) this.#logSpared(existed, spared);
    const leftovers: string[] = [];
    for (const name of names) {
      const id = name.startsWith(REMOVED) ? name.slice(REMOVED.length) : undefined;
      if (id !== undefined && this.#isKnown(id)) await this.#restore({ from: id, to: name });
      else if (id !== undefined || name.startsWith(BUILDING)) leftovers.push(name);
      else if (this.#isAbandoned(name)) leftovers.push(name);
    }
    if (leftovers.length === 0) return;
    for (const name of leftovers) this.#busy.add(name);
    this.#run(async () => {
      addReport(this.#freed, await this.#delete(leftovers));
      for (const name of leftovers) this.#busy.delete(name);
    });
  }

  #logSpared(existed: boolean, names: readonly string[]): void {
    const what = existed ? 'that their metadata file does not know' : 'but their metadata file is gone';
    this.#log('warn', `${this.#snapshots.path} holds ${names.length} snapshots, ${what}`, {
      directories: names.slice(0, 20),
      remedy: 'restore metadata.db; or, if they are lost for good, delete these directories',
    });
  }

  #isAbandoned(name: string): boolean {
    return NUMBER.test(name) && !this.#isKnown(name) && !this.#spared.has(name);
  }

  #isKnown(name: string): boolean {
    return NUMBER.test(name) && this.#meta.has(Number(name));
  }

  #path(name: string): string {
    return join(this.#directory, name);
  }

  /** Waits for operations and removals under way. Again: no error. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.all(this.#background);
    await this.#meta.close();
    await this.#lock.release();
    this.#snapshots.release();
    this.#root.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Fields that filters may name. */
function field(info: SnapshotInfo, path: readonly string[]): string | undefined {
  if (path[0] === 'labels') return adaptLabels(info.labels, path, 1);
  if (path.length > 1) return undefined;
  if (path[0] === 'name') return info.name;
  if (path[0] === 'kind') return info.kind;
  return path[0] === 'parent' ? info.parent : undefined;
}
