/**
 * Layers that are written before their parent is there, so that several of an image can be at once: what the parent may have at a
 * place is not known then. The layer hides, and merges with, whatever will be below; what it assumed of that is kept, and compared
 * with the parent before the snapshot is committed onto it (`fit`). The tree is then the one that a layer written onto the parent has, or
 * it does not fit, and the layer has to be written onto the parent.
 *
 * Called by apply.ts, and by images/layers/chain.ts. Memory: one row for each directory of the layer.
 */
import { type EbbtideError, invalidArgument, throwIfAborted } from '../../errors.js';
import { inside, type Place, Root } from './beneath.js';
import { DirNode } from './dir-node.js';
import type { KnownLayers } from './known-layers.js';
import { addXattrs, copyMetadata, setFinal } from './metadata.js';
import { type Layers, searchBelow } from './overlay-lookup.js';
import { type BytePath, showPath } from './paths.js';

/** The error of a layer that cannot be written without its parent. */
export const needsBelow = (entry: BytePath, what: string): EbbtideError =>
  invalidArgument(`archive entry "${showPath(entry)}" ${what} of a layer below, which is not there yet`, {
    object: showPath(entry),
    remedy: 'apply the layer to a snapshot on its parent',
  });

/** A directory that merges with one of the parent, if that has one there. */
interface Merging {
  /** Its index among all of them; undefined: it is the root. */
  parent: number | undefined;
  name: BytePath;
  path: BytePath;
  /** No entry names it. */
  isImplied: boolean;
  /** None had named it when it was made: a symlink of the parent would have been followed. */
  wasImplied: boolean;
  /** There is something of the layer in it. */
  isUsed: boolean;
  hidden: readonly BytePath[];
}

/** What a layer assumed of its parent. */
export class Assumptions {
  readonly #upper: BytePath;
  /** Parents before what is in them. */
  readonly #directories: readonly Merging[];

  /** Of a complete tree: its directory, and its root. */
  constructor(upper: BytePath, root: DirNode) {
    this.#upper = upper;
    this.#directories = mergingIn(root);
  }

  /** Directories. */
  get size(): number {
    return this.#directories.length;
  }

  /**
   * Gives directories what they have of the parent's, whose layers are `lowers`, nearest first. False: the layer does not fit, and
   * its snapshot is to be removed.
   */
  async fit(
    lowers: readonly BytePath[],
    known: KnownLayers,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const layers: Layers = {
      roots: lowers.map((path) => ({ root: known.root(path), path: '' })),
      overlay: 'trusted.overlay.',
      look: (place, overlay) => known.look(place, overlay),
    };
    const root = new Root(this.#upper);
    try {
      const below: (readonly Place[])[] = [];
      for (const directory of this.#directories) {
        throwIfAborted(signal);
        const places = await placesBelow(layers, directory, below);
        if (places === undefined) return false;
        below.push(places);
        const [nearest] = places;
        if (nearest !== undefined && directory.parent !== undefined) {
          await inherit(nearest, { root, path: directory.path }, directory.isImplied);
        }
        for (const name of directory.hidden) {
          const { other, directories } = await searchBelow(layers, places, name, 'nothing');
          // The kernel shows a mark that hides nothing where only one layer has the directory.
          if (other === undefined && directories.length === 0) return false;
        }
      }
      return true;
    } finally {
      root.close();
    }
  }
}

/** The directories that merge into one, nearest first; undefined: the layer is another one on this parent. */
async function placesBelow(
  layers: Layers,
  { parent, name, isImplied, wasImplied, isUsed }: Merging,
  below: readonly (readonly Place[])[],
): Promise<readonly Place[] | undefined> {
  if (parent === undefined) return layers.roots;
  const { other, directories } = await searchBelow(layers, below[parent] ?? [], name, 'nothing');
  if (other !== undefined) return wasImplied ? undefined : [];
  return directories.length === 0 && isImplied && !isUsed ? undefined : directories;
}

/** As a directory that is copied up, and then named by an entry unless it is implied. */
async function inherit(lower: Place, upper: Place, isImplied: boolean): Promise<void> {
  await inside(lower, (from) =>
    inside(upper, async (to) => {
      if (isImplied) await setFinal(to, await copyMetadata(from, to));
      else await addXattrs(from, to);
    }),
  );
}

function mergingIn(top: DirNode): Merging[] {
  const rows: Merging[] = [];
  const open: { node: DirNode; name: BytePath; parent: number | undefined }[] = [
    { node: top, name: '', parent: undefined },
  ];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { node, name, parent } = next;
    const { path, implied: wasImplied, placed, hidden = [] } = node;
    const at = rows.length;
    let isUsed = placed;
    for (const [child, found] of node.children) {
      // One that does not merge was made by an entry of the layer, as a file is, or has one in it.
      if (found instanceof DirNode && found.mayMerge) open.push({ node: found, name: child, parent: at });
      else isUsed = true;
    }
    rows.push({ parent, name, path, isImplied: !placed, wasImplied, isUsed, hidden });
  }
  for (const { parent, isUsed } of [...rows].reverse()) {
    const above = parent === undefined ? undefined : rows[parent];
    if (above !== undefined && isUsed) above.isUsed = true;
  }
  return rows;
}
