/**
 * The target of a layer as the layer sees it: upper directory over lower ones, walked one component at a time.
 * This is where safety lives. A path handed to the file system is always <a directory of ours> / <names of real
 * directories> / <one name>, never a name that a symlink could lead elsewhere: symlinks inside the layer are read
 * and resolved here, against the layer's own root, and `..` never climbs above it.
 *
 * A directory, once seen, is remembered until an entry removes it through this tree; nothing else may change the
 * target meanwhile (it is an unfinished snapshot of the caller). Memory: one node for each directory and entry.
 */

import type { Stats } from 'node:fs';
import { chmod, lstat, mkdir, readdir, readlink } from 'node:fs/promises';
import { invalidArgument } from '../../errors.js';
import { errnoOf, isAbsent } from '../fs-errors.js';
import { copyMetadata, type FinalMetadata, getXattr, isRoot, setXattr } from './metadata.js';
import { type BytePath, fsPath, joinPath, showPath } from './paths.js';
import { removeTree } from './remove.js';
import type { Target } from './target.js';

/** Marks a name that an entry of this layer put there and that is no directory. */
const placed = Symbol('placed');

export class DirNode {
  /** Relative to the root of the layer; '' is the root. */
  readonly path: BytePath;
  readonly parent: DirNode | undefined;
  readonly children = new Map<BytePath, DirNode | typeof placed>();
  /** It stands in the upper directory. */
  inUpper: boolean;
  /** The lower directories that show through, nearest first. */
  lowers: readonly BytePath[];
  /** An entry of this layer names it. */
  placed = false;
  /** What it gets when the layer is done: writing into a directory changes its times. */
  final: FinalMetadata | undefined;

  constructor(path: BytePath, parent: DirNode | undefined, inUpper: boolean, lowers: readonly BytePath[]) {
    this.path = path;
    this.parent = parent;
    this.inUpper = inUpper;
    this.lowers = lowers;
  }

  /** Whether the layer has put anything at or below it. */
  holdsPlaced(): boolean {
    const open: DirNode[] = [this];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (node.placed) return true;
      for (const child of node.children.values()) {
        if (child === placed) return true;
        open.push(child);
      }
    }
    return false;
  }
}

export type Found =
  | { kind: 'none' /** A whiteout of the upper directory stands there. */; whiteout: boolean }
  | { kind: 'directory'; node: DirNode }
  | { kind: 'symlink'; inUpper: boolean; path: BytePath; stats: Stats }
  | { kind: 'other'; inUpper: boolean; path: BytePath; stats: Stats };

const MAX_SYMLINKS = 255;

export class LayerTree {
  readonly target: Target;
  readonly root: DirNode;

  constructor(target: Target) {
    this.target = target;
    this.root = new DirNode('', undefined, true, target.lowers);
  }

  /** The path of a name in the upper directory. */
  upperPath(dir: DirNode, name?: BytePath): BytePath {
    const path = name === undefined ? dir.path : joinPath(dir.path, name);
    return path === '' ? this.target.upper : `${this.target.upper}/${path}`;
  }

  /** What stands under a name; symlinks are not followed. */
  async lookup(dir: DirNode, name: BytePath): Promise<Found> {
    const known = dir.children.get(name);
    if (known instanceof DirNode) return { kind: 'directory', node: known };
    if (dir.inUpper) {
      const path = this.upperPath(dir, name);
      const stats = await lstatOrNone(path);
      if (stats !== undefined) {
        if (this.target.overlay !== undefined && isWhiteout(stats)) return { kind: 'none', whiteout: true };
        if (!stats.isDirectory()) return { kind: kindOf(stats), inUpper: true, path, stats };
        const lowers = (await this.#isOpaque(path)) ? [] : await this.#lowerDirectories(dir.lowers, name);
        return { kind: 'directory', node: this.#remember(dir, name, true, lowers) };
      }
    }
    return this.#lookupBelow(dir, name);
  }

  async #lookupBelow(dir: DirNode, name: BytePath): Promise<Found> {
    for (const [i, lower] of dir.lowers.entries()) {
      const path = `${lower}/${name}`;
      const stats = await lstatOrNone(path);
      if (stats === undefined) continue;
      if (isWhiteout(stats)) break;
      if (!stats.isDirectory()) return { kind: kindOf(stats), inUpper: false, path, stats };
      const lowers = await this.#lowerDirectories(dir.lowers.slice(i), name);
      return { kind: 'directory', node: this.#remember(dir, name, false, lowers) };
    }
    return { kind: 'none', whiteout: false };
  }

  /** Whether a lower directory shows anything under this name. */
  async hasBelow(dir: DirNode, name: BytePath): Promise<boolean> {
    for (const lower of dir.lowers) {
      const stats = await lstatOrNone(`${lower}/${name}`);
      if (stats !== undefined) return !isWhiteout(stats);
    }
    return false;
  }

  /** All names in the lower directories, hidden ones included. */
  async namesBelow(dir: DirNode): Promise<Set<BytePath>> {
    const names = new Set<BytePath>();
    for (const lower of dir.lowers) {
      for (const name of await readdir(fsPath(lower), { encoding: 'latin1' })) names.add(name);
    }
    return names;
  }

  /** The directories that merge under a name: down to the first that is opaque, or to anything else. */
  async #lowerDirectories(lowers: readonly BytePath[], name: BytePath): Promise<BytePath[]> {
    const merged: BytePath[] = [];
    for (const lower of lowers) {
      const path = `${lower}/${name}`;
      const stats = await lstatOrNone(path);
      if (stats === undefined) continue;
      if (!stats.isDirectory()) break;
      merged.push(path);
      if (await this.#isOpaque(path)) break;
    }
    return merged;
  }

  async #isOpaque(path: BytePath): Promise<boolean> {
    const { overlay } = this.target;
    return overlay !== undefined && (await getXattr(path, `${overlay}opaque`))?.toString('latin1') === 'y';
  }

  #remember(dir: DirNode, name: BytePath, inUpper: boolean, lowers: readonly BytePath[]): DirNode {
    const node = new DirNode(joinPath(dir.path, name), dir, inUpper, lowers);
    // An entry of this layer that is a directory has its node already; this one was there before.
    dir.children.set(name, node);
    return node;
  }

  /**
   * The directory that these components lead to, symlinks followed inside the root. A missing one is made when
   * `create` is set, else the answer is undefined. A component that is no directory: InvalidArgument with
   * `create`, else undefined.
   */
  async resolve(components: readonly BytePath[], create: true, entry: BytePath): Promise<DirNode>;
  async resolve(
    components: readonly BytePath[],
    create: boolean,
    entry: BytePath,
  ): Promise<DirNode | undefined>;
  async resolve(
    components: readonly BytePath[],
    create: boolean,
    entry: BytePath,
  ): Promise<DirNode | undefined> {
    // A stack, next component last: what a symlink stands for is put on top of it.
    const ahead = [...components].reverse();
    let links = 0;
    let at = this.root;
    for (let name = ahead.pop(); name !== undefined; name = ahead.pop()) {
      if (name === '' || name === '.') continue;
      if (name === '..') {
        at = at.parent ?? this.root;
        continue;
      }
      const found = await this.lookup(at, name);
      if (found.kind === 'directory') at = found.node;
      else if (found.kind === 'symlink') {
        if (++links > MAX_SYMLINKS) throw badPath(entry, 'goes through too many symlinks');
        const destination = await readlink(fsPath(found.path), { encoding: 'latin1' });
        if (destination.startsWith('/')) at = this.root;
        ahead.push(...destination.split('/').reverse());
      } else if (found.kind === 'other') {
        // A whiteout below what this layer made a file: image builders write such, and it hides nothing.
        if (!create) return undefined;
        throw badPath(entry, `has a parent "${showPath(name)}" that is no directory`);
      } else if (create) at = await this.makeDirectory(at, name, found.whiteout);
      else return undefined;
    }
    return at;
  }

  /** Readies a directory for a change in it: it stands in the upper directory and its times are kept. */
  async open(node: DirNode): Promise<void> {
    if (!node.inUpper) await this.#copyUp(node);
    if (node.final !== undefined) return;
    const path = this.upperPath(node);
    const stats = await lstat(fsPath(path), { bigint: true });
    const mode = Number(stats.mode & 0o7777n);
    node.final = { mtime: stats.mtimeNs, atime: stats.atimeNs };
    if (!isRoot && (mode & 0o700) !== 0o700) {
      node.final.mode = mode;
      await chmod(fsPath(path), 0o700);
    }
  }

  /** Brings a lower directory, with those above it, into the upper one. */
  async #copyUp(node: DirNode): Promise<void> {
    const missing: DirNode[] = [];
    for (let at: DirNode | undefined = node; at !== undefined && !at.inUpper; at = at.parent)
      missing.push(at);
    for (const dir of missing.reverse()) {
      await this.open(dir.parent!);
      const path = this.upperPath(dir);
      await mkdir(fsPath(path), 0o700);
      dir.final = await copyMetadata(dir.lowers[0]!, path);
      dir.inUpper = true;
    }
  }

  /**
   * A new, empty directory where none shows. `hidden`: something of the upper directory hid a lower one there
   * (a whiteout, a file), so that the new one must not let it shine through.
   */
  async makeDirectory(parent: DirNode, name: BytePath, hidden: boolean): Promise<DirNode> {
    await this.open(parent);
    const path = this.upperPath(parent, name);
    if (hidden) await removeTree(path);
    await mkdir(fsPath(path), 0o700);
    const { overlay } = this.target;
    if (overlay !== undefined && hidden && (await this.hasBelow(parent, name))) await this.#setOpaque(path);
    const node = new DirNode(joinPath(parent.path, name), parent, true, []);
    node.final = { mode: 0o755 };
    parent.children.set(name, node);
    return node;
  }

  async #setOpaque(path: BytePath): Promise<void> {
    await setXattr(path, `${this.target.overlay}opaque`, Buffer.from('y'));
  }

  /** Cuts a directory off from what lies below it. */
  async hideBelow(node: DirNode): Promise<void> {
    if (node.lowers.length === 0) return;
    await this.open(node);
    await this.#setOpaque(this.upperPath(node));
    const open: DirNode[] = [node];
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      at.lowers = [];
      for (const [name, child] of at.children) {
        if (!(child instanceof DirNode)) continue;
        if (child.inUpper) open.push(child);
        else at.children.delete(name);
      }
    }
  }

  /** Takes away what stands under a name in the upper directory; answers whether anything did. */
  async clear(parent: DirNode, name: BytePath, found: Found): Promise<boolean> {
    const there =
      found.kind === 'none'
        ? found.whiteout
        : found.kind === 'directory'
          ? found.node.inUpper
          : found.inUpper;
    if (there) {
      await this.open(parent);
      await removeTree(this.upperPath(parent, name));
    }
    parent.children.delete(name);
    return there;
  }

  /** Notes that an entry of this layer stands here, and is no directory. */
  place(parent: DirNode, name: BytePath): void {
    parent.children.set(name, placed);
  }

  isPlaced(parent: DirNode, name: BytePath): boolean {
    const child = parent.children.get(name);
    return child instanceof DirNode ? child.holdsPlaced() : child === placed;
  }
}

export const badPath = (entry: BytePath, what: string) =>
  invalidArgument(`archive entry "${showPath(entry)}" ${what}`, {
    object: showPath(entry),
    remedy: 'the archive is hostile or damaged: do not use it',
  });

/** Overlay's mark for "nothing here, whatever lies below". */
export const isWhiteout = (stats: Stats): boolean => stats.isCharacterDevice() && stats.rdev === 0;

const kindOf = (stats: Stats): 'symlink' | 'other' => (stats.isSymbolicLink() ? 'symlink' : 'other');

export async function lstatOrNone(path: BytePath): Promise<Stats | undefined> {
  try {
    return await lstat(fsPath(path));
  } catch (error) {
    if (isAbsent(error) || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}
