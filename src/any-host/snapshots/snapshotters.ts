/**
 * Another program's snapshotters, by their `metadata.db` and their directories. Called by store.ts. Those
 * that keep a snapshot in `snapshots/<number>` have sizes from the disk; of others only the names are known,
 * and of some not even these: they exist all the same, so that their records are shown, and counted without
 * bytes.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import type {
  Mount,
  SnapshotInfo,
  SnapshotKind,
  SnapshotProblem,
  SnapshotterBackend,
  Usage,
} from '../../backends/contract.js';
import { diskUsage } from '../../backends/disk-usage.js';
import { SNAPSHOTS } from '../../backends/snapshotters/snapshot-driver.js';
import { type EbbtideError, notFound, throwIfAborted } from '../../errors.js';
import { fsError, messageOf } from '../../system/system-errors.js';
import type { Complain } from '../fields.js';
import { refusal } from '../refusals.js';
import { readSnapshots, SnapshotTable } from './snapshot-table.js';

/**
 * Snapshotters that keep all of a snapshot in `snapshots/<number>`. Those of btrfs share blocks, so the size
 * of one is not defined.
 */
const BY_NUMBER = new Set(['overlayfs', 'native', 'fuse-overlayfs', 'stargz', 'nydus', 'overlaybd']);

/** The metadata in a snapshotter's directory. */
export const metadataIn = (root: string): string => join(root, 'metadata.db');

export class ForeignSnapshotter implements SnapshotterBackend {
  readonly name: string;
  readonly root: string | undefined;
  /** Whether its metadata could be read and is therefore complete. */
  readonly isKnown: boolean;
  readonly #snapshots: SnapshotTable;
  /** Undefined where not all of a snapshot is in the directory of its number. */
  readonly directoryOf?: (key: string) => string | undefined;
  #unknown: EbbtideError | undefined;

  private constructor(name: string, root: string | undefined, snapshots: SnapshotTable | undefined) {
    this.name = name;
    this.root = root;
    this.isKnown = snapshots !== undefined;
    this.#snapshots = snapshots ?? new SnapshotTable();
    if (this.isByNumber) this.directoryOf = (key) => this.#directoryOf(key);
  }

  /**
   * Never fails because of the directory's content: what cannot be read is reported, and the snapshots are
   * without bytes.
   */
  static async open(
    name: string,
    root: string | undefined,
    complain: Complain,
    signal?: AbortSignal,
  ): Promise<ForeignSnapshotter> {
    if (root === undefined) {
      complain('it has no directory here, so its snapshots are counted without bytes');
      return new ForeignSnapshotter(name, root, undefined);
    }
    try {
      const snapshots = await readSnapshots(metadataIn(root), complain, signal);
      if (snapshots.size > 0 && !BY_NUMBER.has(name))
        complain('its layout is unknown here: snapshots have the sizes in its metadata, if any');
      return new ForeignSnapshotter(name, root, snapshots);
    } catch (error) {
      throwIfAborted(signal);
      complain(
        `its metadata cannot be read, so its snapshots are counted without bytes: ${messageOf(error)}`,
      );
      return new ForeignSnapshotter(name, root, undefined);
    }
  }

  /** By name; made anew. */
  get all(): ReadonlyMap<string, SnapshotInfo> {
    return new Map([...this.#snapshots].map((one) => [one.name, one]));
  }

  /** Numbers of the directories of snapshots. */
  get numbers(): ReadonlySet<string> {
    this.#numbers ??= new Set(Array.from(this.#snapshots.ids(), String));
    return this.#numbers;
  }
  #numbers: Set<string> | undefined;

  /** Whether all of a snapshot is in the directory of its number. */
  get isByNumber(): boolean {
    return BY_NUMBER.has(this.name);
  }

  has(key: string): boolean {
    return this.#snapshots.find(key) !== undefined;
  }

  async stat(key: string): Promise<SnapshotInfo> {
    return this.#snapshots.at(this.#place(key));
  }

  /** As computed at the commit; for an active snapshot, its current usage. */
  async usage(key: string): Promise<Usage> {
    const place = this.#place(key);
    const path = this.#snapshots.kindAt(place) === 'committed' ? undefined : this.pathOf(key);
    return path === undefined ? this.#snapshots.usageAt(place) : diskUsage(path);
  }

  #directoryOf(key: string): string | undefined {
    const place = this.#snapshots.find(key);
    return place === undefined ? undefined : `${this.#snapshots.idAt(place)}`;
  }

  /** The directory of a snapshot that has one of its own. */
  pathOf(key: string): string | undefined {
    const directory = this.directoryOf?.(key);
    return directory === undefined ? undefined : join(this.root ?? '', SNAPSHOTS, directory);
  }

  /** NotFound: nothing but the names of its snapshots is known, from the records. */
  checkKnown(): void {
    if (this.isKnown) return;
    // One for all of them: there may be a hundred thousand, and an error is dear to make.
    this.#unknown ??= notFound(`the snapshots of ${this.name} are not known here`, {
      object: this.name,
      remedy: 'du, why and orphans count them by their records',
    });
    throw this.#unknown;
  }

  async walk(fn: (info: SnapshotInfo) => Promise<void> | void): Promise<void> {
    for (const info of this.#snapshots) await fn(info);
  }

  async inspect(fn: (problem: SnapshotProblem) => Promise<void> | void): Promise<void> {
    for (const { name, parent } of this.#snapshots) {
      const path = this.pathOf(name);
      if (path !== undefined && !this.hasDirectory(name))
        await fn({ kind: 'directory', name, path, found: 'no directory' });
      if (parent !== '' && this.#kindOf(parent) !== 'committed')
        await fn({ kind: 'parent', name, path: path ?? '', found: `its parent ${parent} is not committed` });
    }
  }

  /** In the native snapshotter a view of a parent has none. */
  hasDirectory(key: string): boolean {
    const path = this.pathOf(key);
    if (path === undefined || (this.name === 'native' && this.#kindOf(key) === 'view')) return true;
    try {
      return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
    } catch (error) {
      throw fsError('look at', path, error);
    }
  }

  async close(): Promise<void> {}

  async mounts(key: string): Promise<Mount[]> {
    throw this.#refusal(`a mount of ${key}`);
  }
  async update(info: SnapshotInfo): Promise<SnapshotInfo> {
    throw this.#refusal(`a change of ${info.name}`);
  }
  async prepare(key: string): Promise<Mount[]> {
    throw this.#refusal(`making ${key}`);
  }
  async view(key: string): Promise<Mount[]> {
    throw this.#refusal(`making ${key}`);
  }
  async commit(name: string): Promise<void> {
    throw this.#refusal(`making ${name}`);
  }
  async remove(key: string): Promise<void> {
    throw this.#refusal(`removing ${key}`);
  }

  #refusal(what: string): EbbtideError {
    return refusal(what, this.root ?? this.name);
  }

  #kindOf(key: string): SnapshotKind | undefined {
    const place = this.#snapshots.find(key);
    return place === undefined ? undefined : this.#snapshots.kindAt(place);
  }

  #place(key: string): number {
    this.checkKnown();
    const place = this.#snapshots.find(key);
    if (place === undefined)
      throw notFound(`snapshotter ${this.name} has no snapshot "${key}"`, { object: key });
    return place;
  }
}
