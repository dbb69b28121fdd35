/**
 * Deletions in a layer: `.wh.<name>` hides what is below under that name, `.wh..wh..opq` everything below in
 * its directory. They never hide what the same layer contains, wherever in the archive it is.
 */
import { namesIn, under } from './beneath.js';
import { needsBelow } from './detached.js';
import { badPath, DirNode, type LayerTree, mayBeBelow } from './layer-tree.js';
import type { BytePath } from './paths.js';
import { removeTree } from './remove.js';

export const WHITEOUT_PREFIX = '.wh.';
const OPAQUE_MARK = '.wh..wh..opq';
/** AUFS's own files: not part of a layer, except the files that have several names. */
const AUFS_PREFIX = '.wh..wh.';
/** Where AUFS kept those; entries are hard links to them. */
export const LINKED_FILES = '.wh..wh.plnk';

export type Whiteout =
  | { kind: 'none' }
  | { kind: 'opaque' }
  | { kind: 'ignored' }
  /** A file that other entries link to and that is not part of the tree. */
  | { kind: 'linked' }
  | { kind: 'delete'; name: BytePath };

/** The whiteout of an entry's components; InvalidArgument for one without a name. */
export function whiteoutOf(components: readonly BytePath[], entry: BytePath): Whiteout {
  for (const [i, component] of components.entries()) {
    if (!component.startsWith(WHITEOUT_PREFIX)) continue;
    const last = i === components.length - 1;
    if (component === OPAQUE_MARK && last) return { kind: 'opaque' };
    if (component === LINKED_FILES && i === 0 && !last) return { kind: 'linked' };
    if (component.startsWith(AUFS_PREFIX)) return { kind: 'ignored' };
    if (!last) throw badPath(entry, 'is inside a whiteout');
    const name = component.slice(WHITEOUT_PREFIX.length);
    if (name === '' || name === '.' || name === '..') throw badPath(entry, 'is a whiteout without a name');
    return { kind: 'delete', name };
  }
  return { kind: 'none' };
}

/** Hides what is below under a name. */
export async function applyDelete(tree: LayerTree, dir: DirNode, name: BytePath): Promise<void> {
  const found = await tree.lookup(dir, name);
  if (tree.isPlaced(dir, name)) {
    if (found.kind === 'directory') await applyOpaque(tree, found.node);
    return;
  }
  if (found.kind === 'none' && !mayBeBelow(dir, found)) return;
  await tree.clear(dir, name, found);
  if (!(await tree.hasBelow(dir, name))) return;
  await tree.open(dir);
  await tree.whiteout(dir, name);
}

/** Hides everything below in a directory; entries of this layer stay. */
export async function applyOpaque(tree: LayerTree, top: DirNode): Promise<void> {
  // The kernel merges the roots of all layers, whatever their marks.
  if (top === tree.root && top.unknownBelow) throw needsBelow('', 'hides all of it');
  const atRoot = top === tree.root ? await tree.namesBelow(top) : undefined;
  if (atRoot === undefined) await tree.hideBelow(top);
  if (!top.inUpper) return;
  await clearUpper(tree, top);
  for (const name of atRoot ?? []) {
    if (tree.isPlaced(top, name)) {
      const child = top.children.get(name);
      if (child instanceof DirNode) await tree.hideBelow(child);
      continue;
    }
    tree.forget(top, name);
    if (await tree.hasBelow(top, name)) await tree.whiteout(top, name);
  }
}

/** Removes from the upper directory what this layer has not placed there. */
async function clearUpper(tree: LayerTree, top: DirNode): Promise<void> {
  const open = [top];
  for (let dir = open.pop(); dir !== undefined; dir = open.pop()) {
    await tree.open(dir);
    const place = tree.upper(dir);
    for (const name of await namesIn(place)) {
      const child = dir.children.get(name);
      if (tree.isPlaced(dir, name)) {
        if (child instanceof DirNode) open.push(child);
        continue;
      }
      await removeTree(under(place, name));
      tree.forget(dir, name);
    }
  }
}
