/**
 * The overlay snapshotter: a snapshot has only what differs from its parent; the kernel stacks the layers
 * when it is mounted. Creating and removing snapshots works for ordinary users; mounting them needs root.
 *
 *   snapshots/<id>/fs     what the snapshot changed (0755), every kind
 *   snapshots/<id>/work   the kernel's scratch directory (0711), active snapshots only
 */
import { existsSync } from 'node:fs';
import { chmod, lchown, lstat, mkdir } from 'node:fs/promises';
import { release } from 'node:os';
import { join, resolve } from 'node:path';
import { Label, labelOf } from '../../model/labels.js';
import type { StringMap } from '../../model/records.js';
import { errnoOf, fsError } from '../../system/system-errors.js';
import { isRoot } from '../archive/metadata.js';
import { refuseIndexed, refuseMetacopy } from '../archive/overlay-index.js';
import { toBytePath } from '../archive/paths.js';
import type { OverlayPrefix } from '../archive/target.js';
import type { Mount } from '../contract.js';
import type { Noticed } from '../disk-usage.js';
import { makeRoot } from '../files.js';
import { NoEntryTypes, supportsEntryTypes } from './entry-types.js';
import { mappedRoot } from './id-map.js';
import type { StoredSnapshot } from './metastore-records.js';
import {
  type NewSnapshot,
  type RemovalMode,
  type SnapshotDriver,
  snapshotDirectory,
} from './snapshot-driver.js';
import { DirectorySnapshotter, type SnapshotterOptions } from './snapshotter.js';
import { isInUserNamespace, needsUserXattr } from './user-xattr.js';

/** How an overlayfs snapshotter is opened. */
export interface OverlayOptions extends SnapshotterOptions {
  /**
   * Removed snapshots keep their directories until `cleanup`; default true. False: deleted when `remove`
   * resolves.
   */
  asyncRemove?: boolean | undefined;
  /** Options added to every overlay mount, never to binds. */
  mountOptions?: readonly string[] | undefined;
  /** Shows the path of `fs` as a label; default false. */
  upperdirLabel?: boolean | undefined;
  /** Honours the labels with user and group id mappings; default false. */
  remapIds?: boolean | undefined;
  /** What the system supports; tested if absent. */
  system?: Partial<OverlaySystem> | undefined;
}

/**
 * These have to be off: with them the kernel keeps a renamed directory, a file whose owner or mode changed,
 * or a file with several names in a form that only the same mount shows completely.
 */
const SWITCHES = ['redirect_dir', 'metacopy', 'index'] as const;
/** An option of the kernel's overlay that the snapshotter sets. */
export type OverlaySwitch = (typeof SWITCHES)[number];

/** What of overlays the kernel supports. */
export interface OverlaySystem {
  /** The file system returns the types of directory entries. */
  entryTypes: boolean;
  /** Those of `index`, `redirect_dir` and `metacopy` that the kernel's overlay module supports. */
  switches: readonly OverlaySwitch[];
  /** Overlays must keep their marks in `user.` attributes. */
  userXattr: boolean;
}

/**
 * Opens (or creates, 0700) an overlay snapshotter in `root`; FailedPrecondition on file systems it cannot
 * work on.
 */
export async function openOverlayfs(
  directory: string,
  options: OverlayOptions = {},
): Promise<DirectorySnapshotter> {
  const root = resolve(directory);
  if (!options.readOnly) await makeRoot(root, 0o700);
  const system = await examine(root, options);
  if (!system.entryTypes) throw new NoEntryTypes(root);
  return DirectorySnapshotter.open(root, new OverlayDriver(root, options, system), options);
}

async function examine(
  root: string,
  { system: given = {}, readOnly = false }: OverlayOptions,
): Promise<OverlaySystem> {
  try {
    return {
      // Only before there are snapshots: a probe creates files, and a store must open on a full disk.
      entryTypes:
        given.entryTypes ?? (readOnly || existsSync(join(root, 'metadata.db')) || supportsEntryTypes(root)),
      switches: given.switches ?? SWITCHES.filter(isKnownSwitch),
      // Not tested there, because that creates files: recent kernels support it.
      userXattr: given.userXattr ?? (await (readOnly ? isInUserNamespace() : needsUserXattr(root))),
    };
  } catch (error) {
    throw fsError('use the directory', root, error);
  }
}

/**
 * The kernel lists what its module supports; before it is loaded, assume all, as in every kernel since 4.19.
 */
function isKnownSwitch(name: OverlaySwitch): boolean {
  const parameters = '/sys/module/overlay/parameters';
  if (existsSync(parameters)) return existsSync(`${parameters}/${name}`);
  const [major = 0, minor = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10));
  return major > 4 || (major === 4 && minor >= 19);
}

class OverlayDriver implements SnapshotDriver {
  readonly name = 'overlayfs';
  readonly removal: RemovalMode;
  /** Not where marks of deletions cannot be made; not with mapped ids, because a root has its parent's owner then. */
  readonly rebases: boolean;
  readonly #root: string;
  /** Appended to every overlay's options. */
  readonly #mountOptions: string[];
  readonly #keepsMetacopy: boolean;
  readonly #overlay: OverlayPrefix;
  readonly #upperdirLabel: boolean;
  readonly #remapIds: boolean;

  constructor(root: string, options: OverlayOptions, system: OverlaySystem) {
    this.#root = root;
    this.removal = (options.asyncRemove ?? true) ? 'deferred' : 'immediate';
    this.#upperdirLabel = options.upperdirLabel ?? false;
    this.#remapIds = options.remapIds ?? false;
    this.#mountOptions = [...(options.mountOptions ?? [])];
    const has = (name: string): boolean =>
      this.#mountOptions.some((option) => option === name || option.startsWith(`${name}=`));
    if (system.userXattr && !has('userxattr')) this.#mountOptions.push('userxattr');
    for (const name of SWITCHES) {
      // With `userxattr` the kernel has neither redirects nor metacopy, and rejects options about redirects.
      if (name !== 'index' && has('userxattr')) continue;
      if (system.switches.includes(name) && !has(name)) this.#mountOptions.push(`${name}=off`);
    }
    this.#keepsMetacopy = this.#mountOptions.includes('metacopy=on');
    this.#overlay = has('userxattr') ? 'user.overlay.' : 'trusted.overlay.';
    this.rebases = isRoot && this.#overlay === 'trusted.overlay.' && !this.#remapIds;
  }

  hasDirectory(): boolean {
    return true;
  }

  async build(
    directory: string,
    { kind, parent, labels }: NewSnapshot,
    contents: (id: number) => string,
  ): Promise<void> {
    const inherited = parent === undefined ? undefined : await lstat(contents(parent.id));
    const owner = this.#owner(inherited, labels);
    const fs = join(directory, 'fs');
    await mkdir(directory, 0o700);
    await mkdir(fs);
    await chmod(fs, 0o755);
    if (kind === 'active') {
      const work = join(directory, 'work');
      await mkdir(work);
      await chmod(work, 0o711);
    }
    if (owner !== undefined) await own(fs, owner);
  }

  /** The mapped root if ids are mapped, else the owner of the parent's root; undefined keeps the caller's. */
  #owner(inherited: Owner | undefined, labels: StringMap | undefined): Owner | undefined {
    const { users, groups } = this.#mappings(labels);
    if (users === undefined && groups === undefined) return inherited;
    return {
      uid: users === undefined ? (inherited?.uid ?? 0) : mappedRoot(users),
      gid: groups === undefined ? (inherited?.gid ?? 0) : mappedRoot(groups),
    };
  }

  #mappings(labels: StringMap | undefined): { users: string | undefined; groups: string | undefined } {
    if (!this.#remapIds) return { users: undefined, groups: undefined };
    return {
      users: labelOf(labels, Label.snapshotUidMapping),
      groups: labelOf(labels, Label.snapshotGidMapping),
    };
  }

  mounts(snapshot: StoredSnapshot, parents: readonly number[]): Mount[] {
    const { users, groups } = this.#mappings(snapshot.labels);
    const options: string[] = [];
    if (users !== undefined) options.push(`uidmap=${users}`);
    if (groups !== undefined) options.push(`gidmap=${groups}`);
    const [nearest] = parents;
    if (nearest === undefined) {
      const mode = snapshot.kind === 'view' ? 'ro' : 'rw';
      return [{ type: 'bind', source: this.contents(snapshot.id), options: [...options, mode, 'rbind'] }];
    }
    if (snapshot.kind === 'view' && parents.length === 1) {
      return [{ type: 'bind', source: this.contents(nearest), options: [...options, 'ro', 'rbind'] }];
    }
    if (snapshot.kind === 'active') {
      const work = join(snapshotDirectory(this.#root, snapshot.id), 'work');
      options.push(`workdir=${work}`, `upperdir=${this.contents(snapshot.id)}`);
    }
    options.push(`lowerdir=${parents.map((id) => this.contents(id)).join(':')}`, ...this.#mountOptions);
    return [{ type: 'overlay', source: 'overlay', options }];
  }

  needs({ id, kind }: StoredSnapshot, parents: readonly number[]): string[] {
    const layers = parents.map((parent) => this.contents(parent));
    if (kind === 'view' && layers.length > 0) return layers;
    const work = kind === 'active' ? [join(snapshotDirectory(this.#root, id), 'work')] : [];
    return [this.contents(id), ...work, ...layers];
  }

  contents(id: number): string {
    return join(snapshotDirectory(this.#root, id), 'fs');
  }

  /** Children are mounted without what another mount's options kept outside the layer. */
  async checkCommit(directory: string): Promise<Noticed['marked']> {
    await refuseIndexed({ work: toBytePath(join(directory, 'work')), overlay: this.#overlay });
    return this.#keepsMetacopy ? undefined : { attribute: `${this.#overlay}metacopy`, found: refuseMetacopy };
  }

  shownLabels(snapshot: StoredSnapshot): StringMap {
    return this.#upperdirLabel ? { [Label.overlayUpperdir]: this.contents(snapshot.id) } : {};
  }
}

interface Owner {
  uid: number;
  gid: number;
}

async function own(path: string, { uid, gid }: Owner): Promise<void> {
  const current = await lstat(path);
  if (current.uid === uid && current.gid === gid) return;
  try {
    await lchown(path, uid, gid);
  } catch (error) {
    if (errnoOf(error) === 'EPERM') throw fsError(`give to user ${uid}, group ${gid}`, path, error);
    throw error;
  }
}
