/**
 * Brings the snapshots of one snapshotter to another root: their metadata into a new file, their directories beside it. Called
 * for a backup and to restore one.
 *
 * A committed snapshot does not change any more, so what an earlier backup has of it is what this one needs. Where the source is
 * in use, files are copied (or share blocks) rather than linked: a second name would show in the containers that have them
 * mounted (`st_nlink`), and one more inode shared with what is being written is one more way to harm a backup.
 */
import { join } from 'node:path';
import { copyTree } from '../backends/copy-tree.js';
import { exists } from '../backends/files.js';
import { inlineJobs } from '../backends/remove-tree.js';
import { Metastore } from '../backends/snapshotters/metastore.js';
import type { StoredSnapshot } from '../backends/snapshotters/metastore-records.js';
import { SNAPSHOTS } from '../backends/snapshotters/snapshot-driver.js';
import { isKind, throwIfAborted } from '../errors.js';
import { messageOf } from '../system/system-errors.js';
import { makeDirectory, type Transfer } from './transfer.js';

export const METADATA = 'metadata.db';

export interface SnapshotSource {
  readonly name: string;
  /** The last id given out. */
  readonly sequence: number;
  /** By id. */
  readonly snapshots: ReadonlyMap<number, StoredSnapshot>;
  directory(id: number): string;
  /** Others write to its directories. */
  readonly isInUse: boolean;
  /** Active snapshots are made as they were prepared, not copied. */
  readonly isFresh?: boolean;
  /** Makes an active snapshot so; where it is in use. */
  makeFresh?:
    | ((directory: string, snapshot: StoredSnapshot, parent: StoredSnapshot | undefined) => Promise<void>)
    | undefined;
  /** An earlier backup on the target's file system. */
  readonly base?: { byId(id: number): StoredSnapshot | undefined; directory(id: number): string } | undefined;
}

/** Problems are reported to the transfer; the rest is copied all the same. Returns how many are active. */
export async function copySnapshots(
  source: SnapshotSource,
  target: string,
  transfer: Transfer,
): Promise<number> {
  await makeDirectory(target, 0o700);
  const directories = join(target, SNAPSHOTS);
  await makeDirectory(directories, 0o700);
  await writeMetadata(join(target, METADATA), source);
  let active = 0;
  for (const snapshot of source.snapshots.values()) {
    throwIfAborted(transfer.signal);
    transfer.progress('snapshots', transfer.report.snapshots++, 0);
    if (snapshot.kind === 'active') active++;
    await copyOne(snapshot, join(directories, String(snapshot.id)), source, transfer);
  }
  return active;
}

async function writeMetadata(path: string, { sequence, snapshots }: SnapshotSource): Promise<void> {
  const metadata = await Metastore.open(path);
  try {
    await metadata.fill(sequence, snapshots.values());
  } finally {
    await metadata.close();
  }
}

async function copyOne(
  snapshot: StoredSnapshot,
  target: string,
  source: SnapshotSource,
  transfer: Transfer,
): Promise<void> {
  const { id, key, kind, parent } = snapshot;
  const makeFresh = kind === 'active' ? source.makeFresh : undefined;
  const above = source.snapshots.get(parent);
  try {
    if (source.isFresh && makeFresh !== undefined) await makeFresh(target, snapshot, above);
    else await copyDirectory(snapshot, target, source, transfer);
  } catch (error) {
    // A container is free to fill one as it likes; a disk that is full, or fails, is not a fault of a snapshot.
    throwIfAborted(transfer.signal);
    if (isKind(error, 'Unavailable')) throw error;
    await inlineJobs.removeTrees(source.name, [target]);
    // So that it can be used, at least.
    if (!source.isFresh) await makeFresh?.(target, snapshot, above);
    transfer.problem({ kind: 'snapshot', object: `${source.name}/${key}`, found: messageOf(error) });
    transfer.log('warn', `cannot copy snapshot ${id}`, { key, error: messageOf(error) });
  }
}

async function copyDirectory(
  snapshot: StoredSnapshot,
  target: string,
  { name, directory, isInUse, base }: SnapshotSource,
  { report, problem, log, signal }: Transfer,
): Promise<void> {
  const { id, key, kind } = snapshot;
  const earlier = base?.byId(id);
  const kept = earlier !== undefined && isSameContent(snapshot, earlier) ? base?.directory(id) : undefined;
  const isKept = kept !== undefined && (await exists(kept));
  const from = isKept ? kept : directory(id);
  if (!isKept && !(await exists(from))) {
    // A view need not have one.
    if (kind !== 'view') problem({ kind: 'snapshot', object: `${name}/${key}`, found: 'no directory' });
    return;
  }
  const copied = await copyTree(from, target, { log, links: isKept, changes: isInUse && !isKept, signal });
  report.files += copied.files;
  report.linked += copied.linkedFiles;
  report.copiedBytes += copied.copiedBytes;
}

/** Ids are not used again, and the moment of a commit distinguishes it from any in a store that was set back. */
const isSameContent = (a: StoredSnapshot, b: StoredSnapshot): boolean =>
  a.kind === 'committed' &&
  b.kind === 'committed' &&
  a.key === b.key &&
  a.created === b.created &&
  a.parent === b.parent;
