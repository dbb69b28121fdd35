/**
 * The native snapshotter: every active snapshot is a full copy of its parent's directory, bind-mounted. Works
 * on any file system and for ordinary users; where the file system can share blocks (reflinks), copies are
 * cheap.
 *
 * Rebasing at commit changes the recorded parent only: the directory has what was put into it, nothing of the
 * new parent.
 */
import { chmod, mkdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Mount } from '../contract.js';
import { copyTree } from '../copy-tree.js';
import { type BackendLog, stderrLog } from '../log.js';
import type { StoredSnapshot } from './metastore-records.js';
import { type NewSnapshot, type SnapshotDriver, snapshotDirectory } from './snapshot-driver.js';
import { DirectorySnapshotter, type SnapshotterOptions } from './snapshotter.js';

/** How a native snapshotter is opened. */
export type NativeOptions = SnapshotterOptions;

/** Opens (or creates, 0700) a native snapshotter in the directory `root`. */
export const openNative = (root: string, options: NativeOptions = {}): Promise<DirectorySnapshotter> =>
  openIn(resolve(root), options);

const openIn = (root: string, options: NativeOptions): Promise<DirectorySnapshotter> =>
  DirectorySnapshotter.open(root, new NativeDriver(root, options.log ?? stderrLog), options);

class NativeDriver implements SnapshotDriver {
  readonly name = 'native';
  readonly removal = 'background';
  readonly #root: string;
  readonly #log: BackendLog;

  constructor(root: string, log: BackendLog) {
    this.#root = root;
    this.#log = log;
  }

  /** A view of a parent uses the parent's directory. */
  hasDirectory({ kind, parent }: NewSnapshot): boolean {
    return kind === 'active' || parent === undefined;
  }

  async build(directory: string, { parent }: NewSnapshot, contents: (id: number) => string): Promise<void> {
    if (parent !== undefined) {
      await copyTree(contents(parent.id), directory, { log: this.#log });
      return;
    }
    await mkdir(directory);
    // The umask applies to the mode of mkdir.
    await chmod(directory, 0o755);
  }

  mounts(snapshot: StoredSnapshot, parents: readonly number[]): Mount[] {
    const [source = ''] = this.needs(snapshot, parents);
    return [{ type: 'bind', source, options: ['rbind', snapshot.kind === 'view' ? 'ro' : 'rw'] }];
  }

  needs({ id, kind }: StoredSnapshot, parents: readonly number[]): string[] {
    return [this.contents(kind === 'view' ? (parents[0] ?? id) : id)];
  }

  contents(id: number): string {
    return snapshotDirectory(this.#root, id);
  }
}
