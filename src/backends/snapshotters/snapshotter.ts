/**
 * The common part of the native and the overlay snapshotter: a metastore, and one directory per snapshot
 * named after its id. A driver (snapshot-driver.ts) builds and mounts directories. Called through
 * SnapshotterBackend.
 *
 *   <root>/metadata.db       <root>/metadata.lock       <root>/snapshots/   see numbered-directories.ts
 *
 * Record and directory: a directory is renamed into place before its record is committed, and renamed away in
 * the transaction that removes the record, so a crash leaves directories under construction or removal, which
 * the next open or cleanup removes, and at most one numbered directory without a record. Others without one
 * are those of a metadata file that was lost or set back: they are left alone (unknown-directories.ts).
 *
 * Threading: operations on different keys overlap; building a directory (a copy can take minutes) delays only
 * users of that key and removals of its parent. Records change one commit at a time. Resolved means on disk.
 */
import { join } from 'node:path';
import { EbbtideError, failedPrecondition, invalidArgument, notFound, openedReadOnly } from '../../errors.js';
import { shown } from '../../held-paths.js';
import { maskedLabels } from '../../model/fieldpaths.js';
import { adaptLabels, parseFilters } from '../../model/filters.js';
import { compactMap, copyMap } from '../../model/labels.js';
import { closeAll } from '../../system/close-all.js';
import { HeldDirectory } from '../../system/held-directory.js';
import { ReaderSeat } from '../../system/lmdb/readers.js';
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
} from '../contract.js';
import { diskUsage, type Noticed } from '../disk-usage.js';
import { FileLock } from '../file-lock.js';
import { makeRoot, orAbsent, yieldToEventLoop } from '../files.js';
import { diskError } from '../fs-errors.js';
import { type BackendLog, stderrLog } from '../log.js';
import { ObjectLocks } from '../object-locks.js';
import { inlineJobs } from '../remove-tree.js';
import { Metastore } from './metastore.js';
import { checkCommit, checkCreate, type MetaTransaction } from './metastore-change.js';
// Not through metastore.js: our declarations must not pull lmdb's, which are unsound, into users' builds.
import type { StoredSnapshot } from './metastore-records.js';
import { directoriesOf, isReadOnly, movedTo, sameDirectories } from './mount-shape.js';
import { mountPointOf } from './mounted.js';
import { isSnapshotNumber, NumberedDirectories } from './numbered-directories.js';
import { problemsOf, requireDirectories } from './snapshot-directories.js';
import { SNAPSHOTS, type SnapshotDriver, snapshotDirectory } from './snapshot-driver.js';

/** How a snapshotter is opened. */
export interface SnapshotterOptions {
  /** Where directories are deleted; on the calling thread if absent. */
  jobs?: DiskJobs | undefined;
  /** Gets what an operator should know; by default nobody. */
  log?: BackendLog | undefined;
  /** It must exist, and may have an owner; changes are FailedPrecondition, and nothing is written. */
  readOnly?: boolean | undefined;
}

/**
 * The snapshots of a backend at one moment: their records until `release`, their directories in their current
 * state.
 */
export interface FrozenSnapshots {
  /** The last id issued. */
  readonly sequence: number;
  find(key: string): StoredSnapshot | undefined;
  byId(id: number): StoredSnapshot | undefined;
  /** The directory of a snapshot, if it has one. */
  directory(id: number): string;
  /** Builds the directory of an active snapshot as it was when it was prepared. */
  makeFresh(directory: string, snapshot: StoredSnapshot, parent: StoredSnapshot | undefined): Promise<void>;
  release(): void;
}

/** Snapshots that are examined before yielding. */
const STEP = 256;

const LOCK = 'metadata.lock';
const METADATA = 'metadata.db';

export class DirectorySnapshotter implements SnapshotterBackend, AsyncDisposable {
  readonly root: string;
  readonly rebases: boolean;
  readonly #driver: SnapshotDriver;
  readonly #root: HeldDirectory;
  /** The directory of the snapshots: often a file system of its own. */
  readonly #snapshots: HeldDirectory;
  readonly #meta: Metastore;
  readonly #directories: NumberedDirectories;
  /** Undefined: it is read-only. */
  readonly #lock: FileLock | undefined;
  readonly #keys = new ObjectLocks();
  /** By key: aborts what is writing to the snapshot. */
  readonly #writers = new Map<string, AbortController>();
  /** Of a read-only snapshotter. */
  readonly #seat: ReaderSeat | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    place: { root: HeldDirectory; snapshots: HeldDirectory; lock?: FileLock; seat?: ReaderSeat },
    driver: SnapshotDriver,
    meta: Metastore,
    o: SnapshotterOptions,
  ) {
    this.#seat = place.seat;
    this.root = place.root.path;
    this.rebases = driver.rebases ?? false;
    this.#driver = driver;
    this.#root = place.root;
    this.#snapshots = place.snapshots;
    this.#lock = place.lock;
    this.#meta = meta;
    this.#directories = new NumberedDirectories(place.snapshots, meta, {
      name: driver.name,
      jobs: o.jobs ?? inlineJobs,
      log: o.log ?? stderrLog,
    });
  }

  /**
   * Opens (or creates) a snapshotter in `root`, an absolute path. Unavailable when it is open already; clear
   * errors for a root that cannot be used and for metadata that is damaged or not ours.
   */
  static async open(
    path: string,
    driver: SnapshotDriver,
    options: SnapshotterOptions,
  ): Promise<DirectorySnapshotter> {
    if (options.readOnly) return DirectorySnapshotter.#openToRead(path, driver, options);
    await makeRoot(path, 0o700);
    const root = HeldDirectory.open(path);
    const undo: (() => unknown)[] = [() => root.release()];
    try {
      root.setMode(0o700);
      const lockPath = join(root.at, LOCK);
      const lock = await FileLock.acquire(lockPath, `the ${driver.name} snapshotter in ${path}`);
      undo.push(() => lock.release());
      await makeRoot(join(root.at, SNAPSHOTS), 0o700);
      const snapshots = root.child(SNAPSHOTS);
      undo.push(() => snapshots.release());
      const meta = await Metastore.open(join(root.at, METADATA), { fd: lock.fd, path: lockPath });
      undo.push(() => meta.close());
      const snapshotter = new DirectorySnapshotter({ root, snapshots, lock }, driver, meta, options);
      await snapshotter.#directories.recover();
      return snapshotter;
    } catch (error) {
      await closeAll(undo.reverse()).catch(() => undefined);
      throw error;
    }
  }

  static async #openToRead(
    path: string,
    driver: SnapshotDriver,
    options: SnapshotterOptions,
  ): Promise<DirectorySnapshotter> {
    const root = HeldDirectory.open(path);
    const undo: (() => unknown)[] = [() => root.release()];
    try {
      const metadata = join(root.at, METADATA);
      const seat = ReaderSeat.take(join(root.at, LOCK), metadata);
      undo.push(() => seat.leave());
      const snapshots = root.child(SNAPSHOTS);
      undo.push(() => snapshots.release());
      const meta = await Metastore.openToRead(metadata);
      seat.leaveOnRequest((why) => meta.end(why));
      return new DirectorySnapshotter({ root, snapshots, seat }, driver, meta, options);
    } catch (error) {
      await closeAll(undo.reverse()).catch(() => undefined);
      throw error;
    }
  }

  #checkWritable(): void {
    if (this.#lock === undefined) throw openedReadOnly();
  }

  /**
   * Called before directories are created, listed or returned by their names. Unavailable: they are not in
   * their place.
   */
  #verify(): void {
    this.#root.verify();
    this.#snapshots.verify();
    this.#lock?.verify(this.#root, LOCK);
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

  has(key: string): boolean {
    return this.#meta.find(key) !== undefined;
  }

  directoryOf(key: string): string | undefined {
    const snapshot = this.#meta.find(key);
    return snapshot && String(snapshot.id);
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
    for await (const id of this.#ids()) {
      // Read again, because earlier calls of fn may have changed it.
      const snapshot = this.#meta.byId(id);
      if (snapshot === undefined) continue;
      const info = this.#info(snapshot);
      if (matches((path) => field(info, path))) await fn(info);
    }
  }

  /** Of all snapshots, in steps. */
  async *#ids(): AsyncGenerator<number, void> {
    let last = 0;
    for (let step = this.#meta.after(last, STEP); step.length > 0; step = this.#meta.after(last, STEP)) {
      for (const { id } of step) {
        last = id;
        yield id;
      }
      await yieldToEventLoop();
    }
  }

  async ownerOf(mounts: readonly Mount[]): Promise<MountOwner | undefined> {
    const [top] = directoriesOf(mounts) ?? [];
    const id = Number(top?.slice(join(this.root, SNAPSHOTS).length + 1).split('/')[0]);
    if (top === undefined || !isSnapshotNumber(String(id)) || this.#driver.contents(id) !== top)
      return undefined;
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
      this.#checkWritable();
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

  /** All snapshots in their current state, for a backup. */
  freeze(): FrozenSnapshots {
    this.#verify();
    const { sequence, find, byId, release } = this.#meta.freeze();
    const makeFresh: FrozenSnapshots['makeFresh'] = (directory, { labels }, parent) =>
      this.#driver.build(directory, { kind: 'active', parent, labels }, (id) => this.#contents(id));
    return {
      sequence,
      find,
      byId,
      directory: (id) => this.#directories.path(String(id)),
      makeFresh,
      release,
    };
  }

  /** Snapshots without their directory or with a lost parent, and directories without a snapshot. */
  async inspect(fn: (problem: SnapshotProblem) => Promise<void> | void): Promise<void> {
    this.#verify();
    for await (const id of this.#ids()) {
      for (const problem of await this.#problemsOf(id)) await fn(problem);
    }
    for (const name of await this.#orphans()) {
      await fn({ kind: 'orphan', name, path: shown(this.#directories.path(name)), found: 'no snapshot' });
    }
  }

  /** What is found is looked at again without operations on the snapshot: a removal takes the directory before the record. */
  async #problemsOf(id: number): Promise<SnapshotProblem[]> {
    const look = (): Promise<SnapshotProblem[]> => problemsOf(this.#meta, this.#driver, id);
    const [found] = await look();
    return found === undefined ? [] : this.#keys.with(found.name, 'shared', look);
  }

  /**
   * Beside an owner, directories under construction or removal, and younger than the state read here, are not
   * orphans.
   */
  async #orphans(): Promise<string[]> {
    const names = await this.#directories.orphans();
    if (this.#lock !== undefined) return names;
    return names.filter((name) => isSnapshotNumber(name) && Number(name) <= this.#meta.sequence);
  }

  async #measure(id: number, marked?: Noticed['marked']): Promise<Usage> {
    const path = this.#contents(id);
    try {
      return await diskUsage(path, { marked });
    } catch (error) {
      if (error instanceof EbbtideError) throw error;
      throw diskError('measure', path, error);
    }
  }

  /** `contents` of the driver, as reached from here. */
  #contents(id: number): string {
    return this.#snapshots.through(this.#driver.contents(id));
  }

  // ---------------------------------------------------------------------------------------------------- changing

  async update(info: SnapshotInfo, ...paths: string[]): Promise<SnapshotInfo> {
    if (info.name === '') throw invalidArgument('snapshot name must not be empty');
    this.#checkWritable();
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
      this.#checkWritable();
      const parent = checkCreate(this.#meta, key, parentKey);
      this.#verify();
      if (parent !== undefined) await this.#requireLayers(parent);
      const snapshot = { kind, parent, labels: compactMap(options.labels) };
      const create = (tx: MetaTransaction): number => tx.create(kind, key, parentKey, snapshot.labels).id;
      if (this.#driver.hasDirectory(snapshot)) {
        await this.#directories.make(
          (path) => this.#driver.build(path, snapshot, (id) => this.#contents(id)),
          create,
        );
      } else await this.#meta.write(create);
      this.#verify();
      const made = this.#meta.get(key);
      return this.#driver.mounts(made, this.#meta.ancestors(made));
    });
  }

  /** A snapshot on a parent without its directory could not be mounted, or would lack the parent's files. */
  async #requireLayers(parent: StoredSnapshot): Promise<void> {
    const layers = this.#driver.needs({ ...parent, kind: 'view' }, [
      parent.id,
      ...this.#meta.ancestors(parent),
    ]);
    await requireDirectories(parent.key, layers);
  }

  commit(name: string, key: string, options: SnapshotOptions = {}): Promise<void> {
    const rebase = options.parent ?? '';
    return this.#keys.withAll({ exclusive: [name, key], shared: [rebase] }, async () => {
      this.#checkWritable();
      this.#verify();
      const active = checkCommit(this.#meta, name, key);
      const usage = await this.#measure(
        active.id,
        await this.#driver.checkCommit?.(this.#directories.path(String(active.id))),
      );
      await this.#meta.write((tx) => {
        tx.commit(name, key, usage, compactMap(options.labels), rebase);
      });
    });
  }

  rebuild(key: string, fill: (mounts: Mount[]) => Promise<void>): Promise<void> {
    return this.#keys.with(key, 'exclusive', async () => {
      this.#checkWritable();
      const snapshot = this.#meta.get(key);
      const { id, kind, labels } = snapshot;
      if (kind !== 'committed')
        throw failedPrecondition(`snapshot "${key}" is ${kind} and is not made again`, { object: key });
      this.#verify();
      const parents = this.#meta.ancestors(snapshot);
      const parent = parents[0] === undefined ? undefined : this.#meta.byId(parents[0]);
      if (parent !== undefined) await this.#requireLayers(parent);
      const place = snapshotDirectory(this.root, id);
      const moved = (name: string): string => join(this.root, SNAPSHOTS, name);
      await this.#requireUnmounted(snapshot, place);
      await this.#directories.replace(
        id,
        async (name) => {
          const built = this.#directories.path(name);
          await this.#driver.build(built, { kind: 'active', parent, labels }, (of) => this.#contents(of));
          const mounts = this.#driver.mounts({ ...snapshot, kind: 'active' }, parents);
          await fill(movedTo(mounts, place, moved(name)));
        },
        // Also one that was mounted since: from now on nobody mounts it.
        (name) => this.#requireUnmounted(snapshot, moved(name)),
      );
    });
  }

  /** A mount would lose its files with the directory that it has. `place`: where that is now. */
  async #requireUnmounted({ id, key }: StoredSnapshot, place: string): Promise<void> {
    const contents = this.#driver.contents(id);
    const now = place + contents.slice(snapshotDirectory(this.root, id).length);
    const point = await orAbsent(mountPointOf(contents, now));
    if (point === null || point === undefined) return;
    throw failedPrecondition(`snapshot "${key}" is mounted at ${point}`, {
      object: key,
      remedy: 'stop what uses it, unmount it, and try again',
    });
  }

  remove(key: string): Promise<void> {
    this.#writers.get(key)?.abort(notFound(`snapshot "${key}" has been removed`, { object: key }));
    return this.#keys.with(key, 'exclusive', async () => {
      this.#checkWritable();
      this.#verify();
      await this.#directories.remove((tx) => tx.remove(key).id, this.#driver.removal);
    });
  }

  /**
   * Deletes directories that belong to no snapshot, and waits for removals under way. Returns what that and
   * the removals since the last call freed. Leftovers of removals are known; the whole directory is scanned
   * once after opening, when nothing is known to be left, and at intervals.
   */
  async cleanup(): Promise<RemovalReport> {
    this.#checkWritable();
    this.#verify();
    return this.#directories.cleanup();
  }

  /** Waits for operations and removals under way. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#directories.idle();
    await closeAll([
      () => this.#meta.close(),
      () => this.#lock?.release(),
      () => this.#seat?.leave(),
      () => this.#snapshots.release(),
      () => this.#root.release(),
    ]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Fields for filters. */
function field(info: SnapshotInfo, path: readonly string[]): string | undefined {
  if (path[0] === 'labels') return adaptLabels(info.labels, path, 1);
  if (path.length > 1) return undefined;
  if (path[0] === 'name') return info.name;
  if (path[0] === 'kind') return info.kind;
  return path[0] === 'parent' ? info.parent : undefined;
}
