/** A directory of a layer's target that was walked: the nodes of the tree that layer-tree.ts builds. */
import type { Place } from './beneath.js';
import type { FinalMetadata } from './metadata.js';
import type { BytePath } from './paths.js';

/** Marks the name of an entry of this layer that is not a directory. */
export const placed = Symbol('placed');

export class DirNode {
  /** Relative to the root of the layer; '' is the root. */
  readonly path: BytePath;
  readonly parent: DirNode | undefined;
  readonly children = new Map<BytePath, DirNode | typeof placed>();
  /** It exists in the upper directory. */
  inUpper: boolean;
  /** The lower directories that show through, nearest first. */
  lowers: readonly Place[];
  /** An entry of this layer names it. */
  placed = false;
  /** Created in this run: its upper directory has only what `children` lists. */
  fresh = false;
  /** The layer is written before its parent is there, which may have something at this place (detached.ts). */
  unknownBelow = false;
  /** It was when the directory was made, which then merges with one of the parent. */
  mayMerge = false;
  /** Made for what is in it, before an entry named it. */
  implied = false;
  /** Names of what the parent may have and the layer hides. */
  hidden: BytePath[] | undefined;
  /** Set when the layer is complete, because writing into a directory changes its times. */
  final: FinalMetadata | undefined;

  constructor(path: BytePath, parent: DirNode | undefined, inUpper: boolean, lowers: readonly Place[]) {
    this.path = path;
    this.parent = parent;
    this.inUpper = inUpper;
    this.lowers = lowers;
  }

  /** Whether the layer has an entry at or below it. */
  hasPlaced(): boolean {
    return this.#some((node) => node === placed || node.placed);
  }

  /** Whether a symlink of the parent, here or further down, would have been followed. */
  hasAssumed(): boolean {
    return this.#some((node) => node !== placed && node.implied && node.mayMerge);
  }

  #some(is: (node: DirNode | typeof placed) => boolean): boolean {
    const open: (DirNode | typeof placed)[] = [this];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (is(node)) return true;
      if (node !== placed) open.push(...node.children.values());
    }
    return false;
  }
}
