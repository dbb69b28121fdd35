/**
 * Restores a backup into a root that is not there, or has nothing in it. Called by embedders and the command; no process may use the
 * root meanwhile.
 *
 * The metadata is compared with the manifest first. All is made in a draft in the root, every blob with the size that its record
 * says, and flushed; then the directories get their places, that of the records last: before that there is no store at the
 * root. What a restore leaves that was killed is removed by the next one.
 *
 * Blobs get another name where they can, as in a backup. Snapshots are copied: containers write to them, and must not write into
 * the backup.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { copyFile, open, rename, rm, rmdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { hashFile } from '../backends/content/hash-file.js';
import { blobName } from '../backends/content/layout.js';
import { exists, makeDurableDirectory } from '../backends/files.js';
import { type BackendLog, stderrLog } from '../backends/log.js';
import { inlineJobs } from '../backends/remove-tree.js';
import { Metastore } from '../backends/snapshotters/metastore.js';
import type { StoredSnapshot } from '../backends/snapshotters/metastore-records.js';
import { snapshotDirectory } from '../backends/snapshotters/snapshot-driver.js';
import type { TreeCopy } from '../engine/contract.js';
import { dataPath } from '../engine/lmdb/disk/files.js';
import { openTreeCopy } from '../engine/lmdb/tree-copy.js';
import { alreadyExists, failedPrecondition, throwIfAborted } from '../errors.js';
import { parseDigest } from '../model/digest.js';
import { layout } from '../system/root-layout.js';
import { syncDirectory } from '../system/sync-directory.js';
import { fsError, isAbsent } from '../system/system-errors.js';
import { copyBlobs } from './blobs.js';
import { Draft, isDraft } from './draft.js';
import { checkMetadata, type Manifest, readManifest, storeIn } from './manifest.js';
import { copySnapshots, METADATA } from './snapshots.js';
import { makeDirectory, type OnTransferProgress, Transfer, type TransferReport } from './transfer.js';

/** How a backup is restored. */
export interface RestoreOptions {
  /** Reads every blob and compares its digest. */
  hash?: boolean | undefined;
  /** Restores what there is of a backup that is damaged. */
  damaged?: boolean | undefined;
  /** Ends it; nothing is left then. */
  signal?: AbortSignal | undefined;
  /** Gets what an operator should know; default standard error. */
  log?: BackendLog | undefined;
  /** Called again and again, with what is done. */
  onProgress?: OnTransferProgress | undefined;
}

/** A backup that was restored. */
export type RestoreReport = TransferReport & { root: string; takenAt: string };

/** Files that a new file system has. */
const NOTHING: ReadonlySet<string> = new Set(['lost+found']);
/** In the draft: the names that have moved out of it, or may have. */
const MOVING = 'moving';

/**
 * NotFound: no backup there. AlreadyExists: something is at the root. Unknown: the metadata of the backup is damaged.
 * FailedPrecondition: blobs or snapshots are, beyond what the backup itself says. Unavailable: the disk is full. In all cases
 * nothing is left at the root.
 */
export async function restoreBackup(
  backup: string,
  root: string,
  options: RestoreOptions = {},
): Promise<RestoreReport> {
  const from = resolve(backup);
  const to = resolve(root);
  const manifest = await readManifest(from);
  await checkMetadata(from, manifest);
  const isNew = await useRoot(to);
  const transfer = new Transfer({ ...options, log: options.log ?? stderrLog });
  let draft: Draft | undefined;
  try {
    draft = await Draft.make(to, inlineJobs, (left) => undo(left, to));
    checkEmpty(to);
    await fill(draft.at, from, manifest, transfer, options.hash === true);
    const { problems, problemList } = transfer.report;
    if (problems > manifest.problems && options.damaged !== true) throw damaged(from, problems, problemList);
    throwIfAborted(options.signal);
    await draft.sync();
    await move(draft.at, to);
  } catch (error) {
    await draft?.discard();
    if (isNew) await rmdir(to).catch(() => undefined);
    throw error;
  }
  await draft.discard();
  return { ...transfer.report, root: to, takenAt: manifest.takenAt };
}

const damaged = (backup: string, problems: number, [first]: readonly { object: string; found: string }[]) =>
  failedPrecondition(
    `${problems} objects of the backup ${backup} are damaged, the first of them ${first?.object}: ${first?.found}`,
    { object: backup, remedy: 'restore from another backup, or what there is of this one with --damaged' },
  );

// ------------------------------------------------------------------------------------------------------- the root

/** Whether it was made. */
async function useRoot(root: string): Promise<boolean> {
  try {
    const isNew = !existsSync(root);
    await makeDurableDirectory(root, 0o711);
    return isNew;
  } catch (error) {
    throw fsError('make the root directory', root, error);
  }
}

/** A draft of our own is nothing. */
function checkEmpty(root: string): void {
  const found = list(root).find((name) => !NOTHING.has(name) && !isDraft(name));
  if (found === undefined) return;
  throw alreadyExists(`${root} is not empty: it has ${found}`, {
    object: root,
    remedy: 'name a root that is not there or has nothing in it, or move what is there away',
  });
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    throw fsError('list', directory, error);
  }
}

async function move(draft: string, root: string): Promise<void> {
  const store = storeIn(draft);
  const names = list(store);
  const database = basename(layout.database(root));
  const order = [...names.filter((name) => name !== database), database];
  // Another process may have begun a store there meanwhile.
  checkEmpty(root);
  const moved: string[] = [];
  try {
    writeFileSync(join(draft, MOVING), JSON.stringify(order));
    await syncDirectory(draft);
    for (const name of order) {
      await rename(join(store, name), join(root, name));
      moved.push(name);
    }
    await syncDirectory(root);
  } catch (error) {
    for (const name of moved.reverse())
      await rename(join(root, name), join(store, name)).catch(() => undefined);
    throw fsError('make', root, error);
  }
}

/** Brings back what a restore has moved that died before the records had their place. */
async function undo(draft: string, root: string): Promise<void> {
  const moving = join(draft, MOVING);
  if (!existsSync(moving) || existsSync(layout.database(root))) return;
  for (const name of JSON.parse(readFileSync(moving, 'utf8')) as string[]) {
    const path = join(root, basename(name));
    try {
      await rename(path, join(storeIn(draft), basename(name)));
    } catch (error) {
      if (!isAbsent(error)) throw fsError('move away', path, error);
    }
  }
}

// --------------------------------------------------------------------------------------------------- the contents

async function fill(
  at: string,
  backup: string,
  manifest: Manifest,
  transfer: Transfer,
  hash: boolean,
): Promise<void> {
  const [from, store] = [storeIn(backup), storeIn(at)];
  transfer.progress('metadata', 0, 0);
  await makeDirectory(store, 0o700);
  await makeDirectory(layout.database(store), 0o700);
  const data = dataPath(layout.database(store));
  await copy(dataPath(layout.database(from)), data);
  let tree: TreeCopy | undefined;
  try {
    tree = await openTreeCopy(data);
    transfer.report.revision = tree.revision;
    await copyBlobs(tree, transfer, {
      sources: [(digest) => join(layout.content(from), blobName(digest))],
      target: layout.content(store),
      examine: hash ? differs : undefined,
    });
  } finally {
    await tree?.close();
  }
  for (const name of Object.keys(manifest.snapshotters)) {
    const root = layout.snapshotter(from, basename(name));
    const scratch = join(at, `${basename(name)}.db`);
    await copy(join(root, METADATA), scratch);
    const metadata = await Metastore.open(scratch);
    try {
      const snapshots = new Map<number, StoredSnapshot>();
      for (const id of metadata.ids()) {
        const snapshot = metadata.byId(id);
        if (snapshot !== undefined) snapshots.set(id, snapshot);
      }
      const directory = (id: number): string => snapshotDirectory(root, id);
      const source = { name, sequence: metadata.sequence, snapshots, directory, isInUse: false };
      await copySnapshots(source, layout.snapshotter(store, basename(name)), transfer);
    } finally {
      await metadata.close();
      // What is left goes with the draft.
      for (const path of [scratch, `${scratch}-lock`]) await rm(path, { force: true }).catch(() => undefined);
    }
  }
}

async function copy(from: string, to: string): Promise<void> {
  try {
    await copyFile(from, to);
  } catch (error) {
    throw fsError('copy', from, error);
  }
}

/** What is wrong with the bytes of a blob. */
async function differs(path: string, digest: string): Promise<string | undefined> {
  if (!(await exists(path))) return 'no file';
  const handle = await open(path, 'r');
  try {
    const { digester } = await hashFile(handle, parseDigest(digest).algorithm);
    const found = digester.digest();
    return found === digest ? undefined : `bytes of ${found}`;
  } catch (error) {
    throw fsError('read', path, error);
  } finally {
    await handle.close();
  }
}
