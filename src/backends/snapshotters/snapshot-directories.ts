/** Checks that the directories of snapshots are where their metadata says. Called by the snapshotters. */
import { failedPrecondition } from '../../errors.js';
import { errnoOf, fsError, isAbsent } from '../../system/system-errors.js';
import type { SnapshotProblem } from '../contract.js';
import { firstNoDirectory } from '../sys.js';
import type { Metastore } from './metastore.js';
import type { SnapshotDriver } from './snapshot-driver.js';

/** FailedPrecondition, with the snapshot's key, unless all paths are directories. */
export async function requireDirectories(key: string, paths: readonly string[]): Promise<void> {
  const lost = await firstMissing(paths);
  if (lost === undefined) return;
  throw failedPrecondition(`snapshot "${key}" is damaged: missing directory ${lost}`, {
    object: key,
    remedy: 'remove the snapshots that need it, then unpack the image again; `ebbtide check` lists them',
  });
}

/** The first of the paths, in order, that is not a directory. */
async function firstMissing(paths: readonly string[]): Promise<string | undefined> {
  const found = await firstNoDirectory(paths);
  if (found === undefined) return undefined;
  if (!isAbsent(found.error) && errnoOf(found.error) !== 'ENOTDIR')
    throw fsError('look at', found.path, found.error);
  return found.path;
}

/** Problems of one snapshot: its directory, its parent. */
export async function problemsOf(
  meta: Metastore,
  driver: SnapshotDriver,
  id: number,
): Promise<SnapshotProblem[]> {
  const snapshot = meta.byId(id);
  if (snapshot === undefined) return [];
  const about = { name: snapshot.key, path: driver.contents(id) };
  const problems: SnapshotProblem[] = [];
  const parent = snapshot.parent === 0 ? undefined : meta.byId(snapshot.parent);
  if (snapshot.parent !== 0 && parent?.kind !== 'committed') {
    const found =
      parent === undefined
        ? `its parent, number ${snapshot.parent}, is gone`
        : `its parent is ${parent.kind}`;
    problems.push({ ...about, kind: 'parent', found });
  }
  const kind = snapshot.kind === 'view' ? 'view' : 'active';
  if (!driver.hasDirectory({ kind, parent, labels: snapshot.labels })) return problems;
  const lost = await firstMissing(driver.needs(snapshot, []));
  // It may have been removed in the meantime.
  if (lost !== undefined && meta.byId(id)?.key === snapshot.key) {
    problems.push({ ...about, path: lost, kind: 'directory', found: 'no directory' });
  }
  return problems;
}
