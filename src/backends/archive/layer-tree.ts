/**
 * The target of a layer as the layer sees it: the upper directory over the lower ones, walked one component
 * at a time. Safety depends on this file: calls use one name in a directory that was opened step by step
 * (beneath.ts), never through a symlink. Symlinks inside the layer are read and resolved here, against the
 * layer's own root, and `..` never climbs above it.
 *
 * A directory that was seen once is kept until an entry removes it through this tree. Concurrent changes (the
 * target is the caller's unfinished snapshot, or one that a container runs on) may make an entry fail, or put
 * it into a directory that was moved; they never lead outside. Memory: one node for each directory and entry.
 */

import { lstat, mkdir, readlink } from 'node:fs/promises';
import { invalidArgument, present } from '../../errors.js';
import { chmodPlace, inside, namesIn, type Place, Root, within } from './beneath.js';
import { needsBelow } from './detached.js';
import { DirNode, placed } from './dir-node.js';
import type { KnownLayers } from './known-layers.js';
import { copyMetadata, isRoot, makeWhiteout, setXattr } from './metadata.js';
import {
  dataOf,
  type Kind,
  type Layers,
  type Look,
  look,
  type Sight,
  searchBelow,
} from './overlay-lookup.js';
import { type BytePath, fsPath, joinPath, showPath } from './paths.js';
import { removeTree } from './remove.js';
import type { Target } from './target.js';

export { DirNode } from './dir-node.js';

export type Found =
  | { kind: 'none' /** A whiteout of the upper directory stands there. */; whiteout: boolean }
  | { kind: 'directory'; node: DirNode }
  | ({ kind: 'symlink' } & FoundFile)
  | ({ kind: 'other' } & FoundFile);

interface FoundFile {
  inUpper: boolean;
  place: Place;
  stats: Kind;
  /** The place of a file's content, if it is not `place`. */
  data: Place | undefined;
}

/** Limit on the symlinks followed for one entry, as in Linux. */
const MAX_SYMLINKS = 40;

/** Files that are still being written into the tree. */
export interface Pending {
  flush(): Promise<void>;
}

export class LayerTree {
  readonly target: Target;
  readonly root: DirNode;
  /** Awaited before anything that may concern these files is looked up or removed. */
  pending: Pending | undefined;
  readonly #upper: Place;
  readonly #layers: Layers;
  readonly #look: Look;
  /** Directories that this tree has to close. */
  readonly #own: Root[];

  /**
   * `known`: cached look-ups in the lower layers; the caller closes it, after the tree. `lookAt`: looks at all others.
   */
  constructor(target: Target, known?: KnownLayers, lookAt: Look = look) {
    this.target = target;
    this.#look = lookAt;
    this.#upper = { root: new Root(target.upper), path: '' };
    const roots = target.lowers.map((path) => known?.root(path) ?? new Root(path));
    this.#own = known === undefined ? [this.#upper.root, ...roots] : [this.#upper.root];
    this.#layers = {
      roots: roots.map((root) => ({ root, path: '' })),
      overlay: target.overlay,
      look: known === undefined ? lookAt : (place, overlay) => known.look(place, overlay),
    };
    this.root = new DirNode('', undefined, true, this.#layers.roots);
    this.root.unknownBelow = target.detached;
    this.root.mayMerge = target.detached;
  }

  /** REQUIRES: no call under way. */
  close(): void {
    for (const root of this.#own) root.close();
  }

  /** A directory, or a name in it, in the upper layer. */
  upper(dir: DirNode, name?: BytePath): Place {
    const path = name === undefined ? dir.path : joinPath(dir.path, name);
    return { root: this.#upper.root, path };
  }

  /** The directories that merge into this one, nearest first. */
  placesOf(dir: DirNode): Place[] {
    return dir.inUpper ? [this.upper(dir), ...dir.lowers] : [...dir.lowers];
  }

  /** The nearest of them, whose metadata it has. */
  placeOf(dir: DirNode): Place {
    return dir.inUpper ? this.upper(dir) : present(dir.lowers[0], 'a layer with the directory');
  }

  /** The entry of a name; symlinks are not followed. */
  async lookup(dir: DirNode, name: BytePath): Promise<Found> {
    const known = dir.children.get(name);
    if (known instanceof DirNode) return { kind: 'directory', node: known };
    if (known === placed) await this.pending?.flush();
    const inUpper = dir.inUpper && !this.isVacant(dir, name);
    const above = inUpper ? await this.#look(this.upper(dir, name), this.target.overlay) : undefined;
    if (above === undefined) return this.#lookupBelow(dir, name);
    if (above.whiteout) return { kind: 'none', whiteout: true };
    if (!above.stats.isDirectory()) {
      const below = above.metacopy ? await this.#below(dir, above.redirect ?? name, 'metacopy') : undefined;
      return foundFile(above, true, below && dataOf(above, below));
    }
    if (above.opaque) return this.#remember(dir, name, true, []);
    const { directories } = await this.#below(dir, above.redirect ?? name, 'directory');
    return this.#remember(dir, name, true, directories);
  }

  async #lookupBelow(dir: DirNode, name: BytePath): Promise<Found> {
    const below = await this.#below(dir, name, 'nothing');
    const { other, directories } = below;
    if (other !== undefined) return foundFile(other, false, dataOf(other, below));
    if (directories.length === 0) return { kind: 'none', whiteout: false };
    return this.#remember(dir, name, false, directories);
  }

  #below(dir: DirNode, wanted: BytePath, above: Parameters<typeof searchBelow>[3]) {
    return searchBelow(this.#layers, dir.lowers, wanted, above);
  }

  /** Whether a lower directory shows anything under this name, or may. */
  async hasBelow(dir: DirNode, name: BytePath): Promise<boolean> {
    if (dir.unknownBelow) return true;
    const { other, directories } = await this.#below(dir, name, 'nothing');
    return other !== undefined || directories.length > 0;
  }

  /** All names in the lower directories, including hidden ones. */
  async namesBelow(dir: DirNode): Promise<Set<BytePath>> {
    const names = new Set<BytePath>();
    for (const lower of dir.lowers) for (const name of await namesIn(lower)) names.add(name);
    return names;
  }

  #remember(dir: DirNode, name: BytePath, inUpper: boolean, lowers: readonly Place[]): Found {
    const node = new DirNode(joinPath(dir.path, name), dir, inUpper, lowers);
    // A directory of this layer has a node already; this one existed before.
    dir.children.set(name, node);
    return { kind: 'directory', node };
  }

  /**
   * Resolves components to a directory, following symlinks inside the root. With `create` a missing directory
   * is created, with `unknown` where there may be one below; otherwise the result is undefined. A component that is not a
   * directory: InvalidArgument with `create`, else undefined.
   */
  async resolve(components: readonly BytePath[], create: true, entry: BytePath): Promise<DirNode>;
  async resolve(
    components: readonly BytePath[],
    create: boolean | 'unknown',
    entry: BytePath,
  ): Promise<DirNode | undefined>;
  async resolve(
    components: readonly BytePath[],
    create: boolean | 'unknown',
    entry: BytePath,
  ): Promise<DirNode | undefined> {
    // A stack, next component last: the target of a symlink is pushed onto it.
    const ahead = [...components].reverse();
    let links = 0;
    let at = this.root;
    for (let name = ahead.pop(); name !== undefined; name = ahead.pop()) {
      if (name === '' || name === '.') continue;
      if (name === '..') {
        at = at.parent ?? this.root;
        continue;
      }
      const known = at.children.get(name);
      const found: Found =
        known instanceof DirNode ? { kind: 'directory', node: known } : await this.lookup(at, name);
      if (found.kind === 'directory') at = found.node;
      else if (found.kind === 'symlink') {
        if (++links > MAX_SYMLINKS) throw badPath(entry, 'goes through too many symlinks');
        const destination = await within(found.place, (p) => readlink(fsPath(p), { encoding: 'latin1' }));
        if (destination.startsWith('/')) at = this.root;
        ahead.push(...destination.split('/').reverse());
      } else if (found.kind === 'none' && makes(create, at, found)) {
        at = await this.makeDirectory(at, name, found.whiteout);
        at.implied = true;
      } else if (create !== true) {
        // Also for a whiteout below a path that this layer made a file: image builders write such, and it hides
        // nothing.
        return undefined;
      } else throw badPath(entry, `has a parent "${showPath(name)}" that is not a directory`);
    }
    return at;
  }

  /** Prepares a directory for a change: copies it up and records its times. */
  async open(node: DirNode): Promise<void> {
    if (!node.inUpper) await this.#copyUp(node);
    if (node.final !== undefined) return;
    await within(this.upper(node), async (path) => {
      const stats = await lstat(fsPath(path), { bigint: true });
      const mode = Number(stats.mode & 0o7777n);
      node.final = { mtime: stats.mtimeNs, atime: stats.atimeNs };
      if (!isRoot && (mode & 0o700) !== 0o700) {
        node.final.mode = mode;
        await chmodPlace(path, 0o700);
      }
    });
  }

  /** Copies a lower directory and its parents up into the upper one. */
  async #copyUp(node: DirNode): Promise<void> {
    const missing: DirNode[] = [];
    for (let at: DirNode | undefined = node; at !== undefined && !at.inUpper; at = at.parent)
      missing.push(at);
    for (const dir of missing.reverse()) {
      await this.open(present(dir.parent, 'the parent'));
      const lower = this.placeOf(dir);
      const place = this.upper(dir);
      await makeOne(place);
      dir.final = await inside(lower, (from) => inside(place, (to) => copyMetadata(from, to)));
      dir.inUpper = true;
      dir.fresh = true;
    }
  }

  /**
   * Creates an empty directory where none shows. `hidden`: something in the upper directory (a whiteout, a
   * file) hid a lower directory, which must not show through the new one.
   */
  async makeDirectory(parent: DirNode, name: BytePath, hidden: boolean): Promise<DirNode> {
    await this.open(parent);
    const place = this.upper(parent, name);
    if (hidden) await removeTree(place);
    await makeOne(place);
    const { overlay } = this.target;
    if (overlay !== undefined && hidden && (await this.hasBelow(parent, name))) await this.#setOpaque(place);
    const node = new DirNode(joinPath(parent.path, name), parent, true, []);
    node.fresh = true;
    node.unknownBelow = parent.unknownBelow && !hidden;
    node.mayMerge = node.unknownBelow;
    node.final = { mode: 0o755 };
    parent.children.set(name, node);
    return node;
  }

  async #setOpaque(place: Place): Promise<void> {
    await setXattr(place, `${this.target.overlay}opaque`, Buffer.from('y'));
  }

  /** Makes a directory opaque. */
  async hideBelow(node: DirNode): Promise<void> {
    if (node.lowers.length === 0 && !node.unknownBelow) return;
    await this.open(node);
    await this.#setOpaque(this.upper(node));
    const open: DirNode[] = [node];
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      at.lowers = [];
      at.unknownBelow = false;
      for (const [name, child] of at.children) {
        if (!(child instanceof DirNode)) continue;
        if (child.inUpper) open.push(child);
        else at.children.delete(name);
      }
    }
  }

  /** Removes a name from the upper directory; returns whether it existed. */
  async clear(parent: DirNode, name: BytePath, found: Found): Promise<boolean> {
    const there =
      found.kind === 'none'
        ? found.whiteout
        : found.kind === 'directory'
          ? found.node.inUpper
          : found.inUpper;
    if (there) {
      await this.open(parent);
      await this.pending?.flush();
      await removeTree(this.upper(parent, name));
    }
    this.forget(parent, name);
    return there;
  }

  /** What was removed. */
  forget(dir: DirNode, name: BytePath): void {
    const child = dir.children.get(name);
    if (child instanceof DirNode && child.hasAssumed())
      throw needsBelow(child.path, 'removes, or replaces, a directory');
    dir.children.delete(name);
  }

  /** Whether the upper directory is known to lack this name, without a look-up. */
  isVacant(dir: DirNode, name: BytePath): boolean {
    return dir.fresh && !dir.children.has(name);
  }

  /** Creates overlay's whiteout for this name. */
  async whiteout(dir: DirNode, name: BytePath): Promise<void> {
    dir.fresh = false;
    await makeWhiteout(this.upper(dir, name));
    if (dir.unknownBelow) {
      dir.hidden ??= [];
      dir.hidden.push(name);
    }
  }

  /** Records that this name is an entry of this layer that is not a directory. */
  place(parent: DirNode, name: BytePath): void {
    parent.children.set(name, placed);
  }

  isPlaced(parent: DirNode, name: BytePath): boolean {
    const child = parent.children.get(name);
    return child instanceof DirNode ? child.hasPlaced() : child === placed;
  }
}

const makes = (create: boolean | 'unknown', dir: DirNode, found: { whiteout: boolean }): boolean =>
  create === 'unknown' ? mayBeBelow(dir, found) : create;

/** Whether the parent may have a directory under a name that the layer has not got. */
export const mayBeBelow = ({ unknownBelow }: DirNode, { whiteout }: { whiteout: boolean }): boolean =>
  unknownBelow && !whiteout;

export const badPath = (entry: BytePath, what: string) =>
  invalidArgument(`archive entry "${showPath(entry)}" ${what}`, {
    object: showPath(entry),
    remedy: 'the archive is hostile or damaged: do not use it',
  });

const makeOne = (place: Place): Promise<void> =>
  within(place, async (path) => {
    await mkdir(fsPath(path), 0o700);
  });

function foundFile({ place, stats }: Sight, inUpper: boolean, data: Place | undefined): Found {
  return { kind: stats.isSymbolicLink() ? 'symlink' : 'other', inUpper, place, stats, data };
}
