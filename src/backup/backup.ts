/**
 * Backups: a whole store, as it was at one moment, in a directory of its own, made beside its writers and collections. Called by
 * the DB.
 *
 * The moment. The tree is copied with all commits that its log has at one moment (engine/lmdb/tree-copy.ts); in the same
 * synchronous step the metadata of the snapshotters is frozen. So a backup is what the disk would show if the process
 * had died there, which every opening can go on from, and it has all that was acknowledged before the call. One gap that a
 * crash has is closed: a snapshot whose commit was between its backend and its record is kept as the record has it.
 *
 * What the records of that moment name is there until it has been copied: sweeps of the backends are held from before the
 * moment to the end (DBHost.suspendSweeps). Collections go on and remove records; the next one after the backup removes their
 * bytes. Blobs and committed snapshots do not change, so it does not matter when they are copied. Active snapshots do: of each
 * a backup has what it had while it was copied, file by file, unless it is asked to have them as they were prepared. Ingests are left
 * out; their records stay, and an upload that goes on begins again.
 *
 * Durability: made aside, flushed, then renamed. It takes the target's name whole or not at all.
 */
import { lstatSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { copyFile, rm } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { blobName } from '../backends/content/layout.js';
import { LocalContent } from '../backends/content/store.js';
import type { ContentBackend, DiskJobs, SnapshotterBackend } from '../backends/contract.js';
import { exists } from '../backends/files.js';
import type { BackendLog } from '../backends/log.js';
import { Metastore } from '../backends/snapshotters/metastore.js';
import type { StoredSnapshot } from '../backends/snapshotters/metastore-records.js';
import { snapshotDirectory } from '../backends/snapshotters/snapshot-driver.js';
import { DirectorySnapshotter, type FrozenSnapshots } from '../backends/snapshotters/snapshotter.js';
import type { Engine, TreeCopy } from '../engine/contract.js';
import { dataPath } from '../engine/lmdb/disk/files.js';
import { components, key } from '../engine/schema/keys.js';
import {
  alreadyExists,
  failedPrecondition,
  invalidArgument,
  notImplemented,
  throwIfAborted,
} from '../errors.js';
import { formatTimestamp, now } from '../model/time.js';
import { layout } from '../system/root-layout.js';
import { fsError, isAbsent } from '../system/system-errors.js';
import { copyBlobs } from './blobs.js';
import { Draft } from './draft.js';
import {
  describeFile,
  type Manifest,
  newManifest,
  readManifest,
  storeIn,
  writeManifest,
} from './manifest.js';
import { copySnapshots, METADATA, type SnapshotSource } from './snapshots.js';
import {
  makeDirectory,
  type OnTransferProgress,
  recordsIn,
  Transfer,
  type TransferReport,
} from './transfer.js';

/** How a backup is made. */
export interface BackupOptions {
  /** An earlier backup on the same file system: what has not changed since is one file in both. */
  base?: string | undefined;
  /** `fresh`: active snapshots are left out, and are in the backup as they were prepared. Default: copied as they are. */
  activeSnapshots?: 'copied' | 'fresh' | undefined;
  /** Ends it; nothing is left then. */
  signal?: AbortSignal | undefined;
  /** Called again and again, with what is done. */
  onProgress?: OnTransferProgress | undefined;
}

/** A backup that was made. */
export type BackupReport = TransferReport & { directory: string; takenAt: string; activeSnapshots: number };

/** What a backup is made of. */
export interface BackupHost {
  readonly engine: Engine;
  readonly content: ContentBackend;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
  readonly jobs: DiskJobs;
  readonly log: BackendLog;
}

interface Parts {
  readonly copyTo: NonNullable<Engine['copyTo']>;
  readonly content: LocalContent;
  readonly snapshotters: ReadonlyMap<string, DirectorySnapshotter>;
}

/**
 * Makes a backup in `directory`, which is not there yet or is empty. REQUIRES: sweeps of the backends are held.
 * AlreadyExists: something is there. InvalidArgument: inside the store, or a base elsewhere. NotImplemented: records in etcd or
 * in memory, or a backend of another author. Unavailable: the disk is full; nothing is left then.
 */
export async function backUp(
  host: BackupHost,
  directory: string,
  options: BackupOptions = {},
): Promise<BackupReport> {
  const parts = partsOf(host);
  const target = targetOf(resolve(directory), parts);
  const base = options.base === undefined ? undefined : await openBase(resolve(options.base), target.device);
  const transfer = new Transfer({ ...options, log: (...line) => host.log(...line) });
  const draft = await Draft.make(target.parent, host.jobs);
  try {
    await makeDirectory(storeIn(draft.at), 0o711);
    const manifest = await fill(draft.at, parts, base, transfer, options);
    throwIfAborted(options.signal);
    await draft.sync();
    await writeManifest(draft.at, manifest);
    await draft.publish(target.path, target.parent);
    const { takenAt, snapshotters } = manifest;
    const activeSnapshots = Object.values(snapshotters).reduce((sum, { active }) => sum + active, 0);
    return { ...transfer.report, directory: target.path, takenAt, activeSnapshots };
  } catch (error) {
    await draft.discard();
    throw error;
  }
}

function partsOf({ engine, content, backends }: BackupHost): Parts {
  if (engine.kind !== 'lmdb' || engine.copyTo === undefined) {
    throw notImplemented(
      `a store whose records are in ${engine.kind === 'etcd' ? 'etcd' : 'memory'} cannot be backed up`,
      {
        remedy:
          engine.kind === 'etcd'
            ? 'back up etcd itself (etcdctl snapshot save), and each content directory'
            : undefined,
      },
    );
  }
  const snapshotters = new Map<string, DirectorySnapshotter>();
  for (const [name, backend] of backends) {
    if (!(backend instanceof DirectorySnapshotter)) throw foreign(`snapshotter "${name}"`);
    snapshotters.set(name, backend);
  }
  if (!(content instanceof LocalContent)) throw foreign('content store');
  return { copyTo: engine.copyTo.bind(engine), content, snapshotters };
}

const foreign = (what: string) =>
  notImplemented(`the ${what} is not one of this package, which does not know how to back it up`);

// ---------------------------------------------------------------------------------------------------- the target

interface Target {
  /** With the real name of its parent. */
  path: string;
  parent: string;
  device: number;
}

function targetOf(path: string, { content, snapshotters }: Parts): Target {
  let parent: string;
  let device: number;
  try {
    parent = realpathSync(dirname(path));
    device = statSync(parent).dev;
  } catch (error) {
    throw fsError('use the directory', dirname(path), error);
  }
  const real = join(parent, basename(path));
  checkFree(real, device);
  for (const root of rootsOf([content.root, ...[...snapshotters.values()].map((one) => one.root)])) {
    if (!isWithin(parent, root)) continue;
    throw invalidArgument(`${path} is inside of what is backed up: ${root}`, {
      object: path,
      remedy: 'name a directory outside of the root, best on another disk',
    });
  }
  return { path: real, parent, device };
}

/** The root that the content directory is in, where it is laid out as one, and the directories of the backends. */
function rootsOf([content, ...snapshotters]: readonly [string, ...string[]]): string[] {
  const root = dirname(content);
  return [...(layout.content(root) === content ? [root] : [content]), ...snapshotters];
}

/** Also through a bind mount: whether a directory on the way up is the root. */
function isWithin(directory: string, root: string): boolean {
  try {
    const { dev, ino } = statSync(root);
    for (let at = directory; ; at = dirname(at)) {
      const found = statSync(at);
      if (found.dev === dev && found.ino === ino) return true;
      if (at === dirname(at)) return false;
    }
  } catch (error) {
    throw fsError('look at', root, error);
  }
}

/** AlreadyExists unless nothing is there, or a directory without anything in it. */
function checkFree(path: string, device: number): void {
  try {
    const found = lstatSync(path);
    // Another one cannot take the place of what a file system is mounted on.
    if (found.isDirectory() && found.dev !== device) {
      throw failedPrecondition(`a file system is mounted at ${path}`, {
        object: path,
        remedy: `name a directory in it, such as ${join(path, 'backup')}`,
      });
    }
    if (found.isDirectory() && readdirSync(path).length === 0) return;
  } catch (error) {
    if (isAbsent(error)) return;
    throw fsError('use the directory', path, error);
  }
  throw alreadyExists(`${path} is there already`, {
    object: path,
    remedy:
      'name a directory that is not there; with a base it shares with an earlier backup what has not changed',
  });
}

// ------------------------------------------------------------------------------------------------------- the base

function deviceOf(path: string): number {
  try {
    return statSync(path).dev;
  } catch (error) {
    throw fsError('use the directory', path, error);
  }
}

async function openBase(path: string, device: number): Promise<string> {
  await readManifest(path);
  if (deviceOf(storeIn(path)) === device) return path;
  throw invalidArgument(`the base ${path} is on another file system than the new backup`, {
    object: path,
    remedy: 'name a base on the disk of the new backup, or none',
  });
}

/** The snapshots of a backup. Its metadata is read from a copy: opening a file changes it. */
class BaseSnapshots {
  readonly #metadata: Metastore;
  readonly #root: string;

  private constructor(metadata: Metastore, root: string) {
    this.#metadata = metadata;
    this.#root = root;
  }

  /** Undefined: the base has no such snapshotter. */
  static async open(base: string, name: string, scratch: string): Promise<BaseSnapshots | undefined> {
    const root = layout.snapshotter(storeIn(base), name);
    if (!(await exists(join(root, METADATA)))) return undefined;
    try {
      await copyFile(join(root, METADATA), scratch);
    } catch (error) {
      throw fsError('copy', join(root, METADATA), error);
    }
    return new BaseSnapshots(await Metastore.open(scratch), root);
  }

  byId(id: number): StoredSnapshot | undefined {
    return this.#metadata.byId(id);
  }

  directory(id: number): string {
    return snapshotDirectory(this.#root, id);
  }

  close(): Promise<void> {
    return this.#metadata.close();
  }
}

// ---------------------------------------------------------------------------------------------------- the contents

async function fill(
  at: string,
  parts: Parts,
  base: string | undefined,
  transfer: Transfer,
  { activeSnapshots = 'copied' }: BackupOptions,
): Promise<Manifest> {
  const store = storeIn(at);
  const data = dataPath(layout.database(store));
  const frozen = new Map<string, FrozenSnapshots>();
  const release = (): void => {
    for (const { release } of frozen.values()) release();
    frozen.clear();
  };
  let takenAt = 0n;
  let tree: TreeCopy | undefined;
  transfer.progress('metadata', 0, 0);
  await makeDirectory(layout.database(store), 0o700);
  try {
    tree = await parts.copyTo(data, () => {
      takenAt = now();
      for (const [name, snapshotter] of parts.snapshotters) frozen.set(name, snapshotter.freeze());
    });
    const sources = await sourcesOf(tree, frozen, transfer);
    release();
    await copyBlobs(tree, transfer, {
      sources: [
        ...(base === undefined
          ? []
          : [(digest: string) => join(layout.content(storeIn(base)), blobName(digest))]),
        (digest) => parts.content.blobPath(digest),
      ],
      target: layout.content(store),
    });
    const snapshotters: Manifest['snapshotters'] = {};
    for (const source of sources) {
      const { name } = source;
      const scratch = join(at, `base-${name}.db`);
      const earlier = base === undefined ? undefined : await BaseSnapshots.open(base, name, scratch);
      try {
        const all = { ...source, isFresh: activeSnapshots === 'fresh', base: earlier };
        const active = await copySnapshots(all, layout.snapshotter(store, name), transfer);
        snapshotters[name] = { snapshots: source.snapshots.size, active };
      } finally {
        await earlier?.close();
        for (const path of [scratch, `${scratch}-lock`])
          await rm(path, { force: true }).catch(() => undefined);
      }
    }
    const { revision, records } = tree;
    await tree.close();
    const { report } = transfer;
    report.revision = revision;
    const files = [data, ...sources.map(({ name }) => join(layout.snapshotter(store, name), METADATA))];
    return newManifest({
      takenAt: formatTimestamp(takenAt),
      revision,
      records,
      content: { blobs: report.blobs, bytes: report.bytes },
      snapshotters,
      activeSnapshots,
      metadata: await Promise.all(files.map((path) => describeFile(at, relative(at, path)))),
      problems: report.problems,
      problemList: report.problemList,
    });
  } finally {
    release();
    await tree?.close().catch(() => undefined);
  }
}

/** What is named by the records of the moment, by snapshotter, with all that it stands on. */
async function sourcesOf(
  tree: TreeCopy,
  frozen: ReadonlyMap<string, FrozenSnapshots>,
  transfer: Transfer,
): Promise<(SnapshotSource & FrozenSnapshots)[]> {
  const found = new Map(
    [...frozen].map(([name, moment]) => [name, { moment, snapshots: new Map<number, StoredSnapshot>() }]),
  );
  for await (const batch of recordsIn(tree, key('snapshots'))) {
    throwIfAborted(transfer.signal);
    for (const [k, value] of batch) {
      const [, , name = ''] = components(k);
      const backendName = typeof value === 'object' && typeof value.name === 'string' ? value.name : '';
      const source = found.get(name);
      if (source === undefined) throw notOpen(name);
      const { moment, snapshots } = source;
      let snapshot = moment.find(backendName);
      if (snapshot === undefined) {
        const object = `${name}/${backendName}`;
        transfer.problem({ kind: 'snapshot', object, found: 'not known to the snapshotter' });
      }
      for (; snapshot !== undefined && !snapshots.has(snapshot.id); snapshot = moment.byId(snapshot.parent))
        snapshots.set(snapshot.id, snapshot);
    }
  }
  return [...found].map(([name, { moment, snapshots }]) => ({
    ...moment,
    name,
    snapshots: new Map([...snapshots].sort(([a], [b]) => a - b)),
    isInUse: true,
  }));
}

const notOpen = (name: string) =>
  failedPrecondition(`there are records of snapshotter "${name}", which is not open`, {
    object: name,
    remedy: 'open the store with all its snapshotters',
  });
