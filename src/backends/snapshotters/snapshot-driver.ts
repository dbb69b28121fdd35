/**
 * What a kind of snapshotter adds to snapshotter.ts: how the directory of a snapshot is built and mounted.
 * Implemented by native.ts and overlayfs.ts. Directories are given by the snapshotter's root here, however
 * that is reached.
 */
import { join } from 'node:path';
import type { StringMap } from '../../model/records.js';
import type { Mount } from '../contract.js';
import type { Noticed } from '../disk-usage.js';
import type { StoredSnapshot } from './metastore-records.js';

export const SNAPSHOTS = 'snapshots';
export const snapshotDirectory = (root: string, id: number): string => join(root, SNAPSHOTS, String(id));

/** When the directory of a removed snapshot is deleted. */
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
  /** As a backend's. */
  readonly rebases?: boolean;
  /** False for snapshots that need no directory of their own. */
  hasDirectory(snapshot: NewSnapshot): boolean;
  /**
   * Builds `directory`, which does not exist. `contents`: where to read the tree of another snapshot. The
   * caller removes what a failure leaves.
   */
  build(directory: string, snapshot: NewSnapshot, contents: (id: number) => string): Promise<void>;
  /** Mounts of an active snapshot or a view. `parents`: ids, nearest first. */
  mounts(snapshot: StoredSnapshot, parents: readonly number[]): Mount[];
  /** Directories that those mounts need, by their names; without parents: those of the snapshot alone. */
  needs(snapshot: StoredSnapshot, parents: readonly number[]): string[];
  /** Directory with the snapshot's own files, by its name. */
  contents(id: number): string;
  /**
   * Optional: FailedPrecondition for an active snapshot whose directory alone is not what its mount showed.
   * Returns what is checked of each file, with the same error.
   */
  checkCommit?(directory: string): Promise<Noticed['marked']>;
  /** Labels that are computed, not stored. */
  shownLabels?(snapshot: StoredSnapshot): StringMap;
}
