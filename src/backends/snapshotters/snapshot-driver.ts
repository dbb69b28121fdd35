/**
 * What a kind of snapshotter adds to snapshotter.ts: how the directory of a snapshot is made and mounted. Implemented by
 * native.ts and overlayfs.ts. Directories are named by the snapshotter's root here, whatever it is reached through.
 */
import type { Stats } from 'node:fs';
import { join } from 'node:path';
import type { StringMap } from '../../model/records.js';
import type { Mount } from '../contract.js';
import type { StoredSnapshot } from './metastore-records.js';

export const SNAPSHOTS = 'snapshots';
export const snapshotDirectory = (root: string, id: number): string => join(root, SNAPSHOTS, String(id));

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
