/** Whether the directories of snapshots are where their metadata says. Called by the snapshotters. */
import { stat } from 'node:fs/promises';
import { failedPrecondition } from '../errors.js';
import { fsError } from '../system/system-errors.js';
import type { SnapshotProblem } from './contract.js';
import { orAbsent } from './files.js';
import type { Metastore } from './metastore.js';
import type { SnapshotDriver } from './snapshot-driver.js';

/** FailedPrecondition, by the snapshot's key, unless all paths are directories. */
export async function requireDirectories(key: string, paths: readonly string[]): Promise<void> {
  const lost = await firstMissing(paths);
  if (lost === undefined) return;
  throw failedPrecondition(`snapshot "${key}" is damaged: there is no directory ${lost}`, {
    object: key,
    remedy: 'remove the snapshots that need it, then unpack the image again; `ebbtide check` lists them',
  });
}

/** The first of the paths, in their order, that is not a directory. */
async function firstMissing(paths: readonly string[]): Promise<string | undefined> {
  const found = await Promise.all(
    paths.map((path) =>
      orAbsent(stat(path)).catch((error: unknown) => {
        throw fsError('look at', path, error);
      }),
    ),
  );
  return paths.find((_, i) => found[i]?.isDirectory() !== true);
}

/** What is wrong with one snapshot: its directory, its parent. */
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
  // It may have been removed meanwhile.
  if (lost !== undefined && meta.byId(id)?.key === snapshot.key) {
    problems.push({ ...about, path: lost, kind: 'directory', found: 'no directory' });
  }
  return problems;
}
