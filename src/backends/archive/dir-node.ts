/** A directory of a layer's target as far as it was walked: one node for each, in the tree that layer-tree.ts grows. */
import type { Place } from './beneath.js';
import type { FinalMetadata } from './metadata.js';
import type { BytePath } from './paths.js';

/** Marks a name that an entry of this layer put there and that is not a directory. */
export const placed = Symbol('placed');

export class DirNode {
  /** Relative to the root of the layer; '' is the root. */
  readonly path: BytePath;
  readonly parent: DirNode | undefined;
  readonly children = new Map<BytePath, DirNode | typeof placed>();
  /** It stands in the upper directory. */
  inUpper: boolean;
  /** The lower directories that show through, nearest first. */
  lowers: readonly Place[];
  /** An entry of this layer names it. */
  placed = false;
  /** Made in this run: its upper directory holds nothing but what `children` names. */
  fresh = false;
  /** What it gets when the layer is done: writing into a directory changes its times. */
  final: FinalMetadata | undefined;

  constructor(path: BytePath, parent: DirNode | undefined, inUpper: boolean, lowers: readonly Place[]) {
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
