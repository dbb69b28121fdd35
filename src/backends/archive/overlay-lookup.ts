/**
 * Look-up in the layers of an overlay, by the marks that the kernel leaves in them: whiteouts, opaque
 * directories, redirects of renamed directories (`redirect_dir`), files whose content stayed below
 * (`metacopy`). Follows the kernel's ovl_lookup. Called by layer-tree.ts; an upper directory may have been
 * mounted by others, with any options.
 *
 * Marks that do not change what a name shows are ignored: origin, impure, nlink, protattr, uuid. For
 * `index=on` see overlay-index.ts.
 */
import type { Stats } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { failedPrecondition } from '../../errors.js';
import { errnoOf, isAbsent } from '../../system/system-errors.js';
import { type Place, placePath, under, within } from './beneath.js';
import { getXattr } from './metadata.js';
import { type BytePath, fsPath, showPath } from './paths.js';
import type { OverlayPrefix } from './target.js';

/** The part of an entry's status that look-ups use. */
export type Kind = Pick<
  Stats,
  'isDirectory' | 'isFile' | 'isSymbolicLink' | 'isCharacterDevice' | 'size' | 'rdev'
>;

/** Looks at a place: `look`, or a cache of it. */
export type Look = (
  place: Place,
  overlay: OverlayPrefix | undefined,
) => Sight | undefined | Promise<Sight | undefined>;

/** The entry at a place. Marks are read only in layers of overlays. */
export interface Sight {
  place: Place;
  stats: Kind;
  /** The name shows nothing, whatever is below. */
  whiteout: boolean;
  /** A directory that does not merge with what is below. */
  opaque: boolean;
  /** Where to look below: a name beside this one, or a path from the roots of the layers. */
  redirect: BytePath | undefined;
  /** A file whose content is below. */
  metacopy: boolean;
}

/**
 * The layers of an overlay, nearest first, and the prefix of its marks; for a plain directory no prefix and
 * no layers.
 */
export interface Layers {
  readonly roots: readonly Place[];
  readonly overlay: OverlayPrefix | undefined;
  readonly look: Look;
}

/** A directory on the way is a file or a symlink by now. */
const notADirectory = new Set(['ENOTDIR', 'ELOOP']);

/** Undefined if there is nothing. */
export async function look(place: Place, overlay: OverlayPrefix | undefined): Promise<Sight | undefined> {
  try {
    return await within(place, async (path) => {
      const stats = await lstat(fsPath(path));
      if (overlay === undefined) return plain(place, stats);
      const mark = (name: string): Promise<Buffer | undefined> => getXattr(path, `${overlay}${name}`);
      const sight = await marked(plain(place, stats), overlay, mark);
      return sight.whiteout && stats.isFile()
        ? { ...sight, whiteout: await isMarkedFor(path, overlay) }
        : sight;
    });
  } catch (error) {
    if (isAbsent(error) || notADirectory.has(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

const plain = (place: Place, stats: Kind): Sight => ({
  place,
  stats,
  whiteout: false,
  opaque: false,
  redirect: undefined,
  metacopy: false,
});

/** With the marks that `mark` reads. A file that is a whiteout is one only in a directory that is marked for it. */
async function marked(
  sight: Sight,
  overlay: OverlayPrefix,
  mark: (name: string) => Buffer | undefined | Promise<Buffer | undefined>,
): Promise<Sight> {
  const { stats, place } = sight;
  if (isWhiteout(stats)) return { ...sight, whiteout: true };
  if (stats.isDirectory()) {
    if ((await mark('opaque'))?.toString('latin1') === 'y') return { ...sight, opaque: true };
    return { ...sight, redirect: redirectOf(await mark('redirect'), place, overlay) };
  }
  if (!stats.isFile()) return sight;
  if (stats.size === 0) return { ...sight, whiteout: (await mark('whiteout')) !== undefined };
  if ((await mark('metacopy')) === undefined) return sight;
  return { ...sight, metacopy: true, redirect: redirectOf(await mark('redirect'), place, overlay) };
}

/** As `look`, of what is known of a place. */
export function sightOf(
  place: Place,
  stats: Kind,
  xattrs: ReadonlyMap<string, Buffer>,
  overlay: OverlayPrefix | undefined,
): Sight | Promise<Sight | undefined> {
  if (overlay === undefined || (xattrs.size === 0 && !isWhiteout(stats))) return plain(place, stats);
  // Whether it is one depends on its directory.
  if (xattrs.has(`${overlay}whiteout`)) return look(place, overlay);
  return marked(plain(place, stats), overlay, (name) => xattrs.get(`${overlay}${name}`));
}

/** Overlay's mark for "nothing here, whatever lies below". */
export const isWhiteout = (stats: Kind): boolean => stats.isCharacterDevice() && stats.rdev === 0;

/** Its other form, for layers that cannot have devices: an empty file, in a directory that is marked for it. */
async function isMarkedFor(path: BytePath, overlay: OverlayPrefix): Promise<boolean> {
  const directory = path.slice(0, path.lastIndexOf('/') + 1);
  return (await getXattr(`${directory}.`, `${overlay}opaque`))?.toString('latin1') === 'x';
}

function redirectOf(value: Buffer | undefined, place: Place, overlay: OverlayPrefix): BytePath | undefined {
  if (value === undefined) return undefined;
  const redirect = value.toString('latin1');
  const names = redirect.startsWith('/') ? redirect.slice(1).split('/') : [redirect];
  if (names.some((name) => /^\.{0,2}$|[/\0]/.test(name))) {
    throw unreadable(place, 'has a redirect to an invalid path', 'the snapshot is damaged: do not use it');
  }
  // The kernel does not follow what ordinary users can write.
  if (overlay === 'user.overlay.')
    throw unreadable(place, 'has a redirect, which an overlay with userxattr refuses');
  return redirect;
}

const unreadable = (place: Place, what: string, remedy?: string) =>
  failedPrecondition(`${showPath(placePath(place))} ${what}`, {
    object: showPath(placePath(place)),
    remedy: remedy ?? 'mount the overlay with the options it was written with, and use the mounted tree',
  });

export interface Below {
  /** Directories that merge, nearest first. */
  directories: Place[];
  /** What shows if no directory does. */
  other: Sight | undefined;
  /** The place of the content, if the nearest copy of the file has none. */
  data: Place | undefined;
}

/**
 * Looks up a name in directories that merge, nearest first. `wanted` is a name, or a path from the roots of
 * the layers. `above`: the upper layer's entry of that name, if any.
 */
export async function searchBelow(
  layers: Layers,
  directories: readonly Place[],
  wanted: BytePath,
  above: 'nothing' | 'directory' | 'metacopy',
): Promise<Below> {
  const found: Below = { directories: [], other: undefined, data: undefined };
  let isDirectory = above === 'directory';
  let name = wanted;
  let stack = name.startsWith('/') ? layers.roots : directories;
  for (let i = 0, layer = stack[0]; layer !== undefined; layer = stack[++i]) {
    const step = await searchOne(layers, layer, name, isDirectory);
    if (step.sight?.stats.isDirectory()) {
      if (above === 'metacopy' || found.other !== undefined) break;
      isDirectory = true;
      found.directories.push(step.sight.place);
    } else if (step.sight !== undefined) {
      found.other ??= step.sight;
      if (!step.sight.metacopy) found.data = step.sight.place;
    }
    if (step.stop) break;
    name = step.name;
    if (name.startsWith('/') && stack !== layers.roots) {
      const { root: own } = layer;
      i = layers.roots.findIndex(({ root }) => root === own);
      stack = layers.roots;
    }
  }
  return found;
}

interface Step {
  sight: Sight | undefined;
  /** The lower layers are not searched. */
  stop: boolean;
  /** The name to look up in them. */
  name: BytePath;
}

/** Looks up a name or a path in the directory of one layer. */
async function searchOne(layers: Layers, base: Place, wanted: BytePath, isDirectory: boolean): Promise<Step> {
  const absolute = wanted.startsWith('/');
  const names = absolute ? wanted.slice(1).split('/') : [wanted];
  const step: Step = { sight: undefined, stop: false, name: wanted };
  let place = base;
  for (const [i, name] of names.entries()) {
    const last = i === names.length - 1;
    place = under(place, name);
    const sight = await layers.look(place, layers.overlay);
    if (sight === undefined) return step;
    const directory = sight.stats.isDirectory();
    if (sight.whiteout || (!directory && (isDirectory || !last))) return { ...step, stop: true };
    if (last) step.sight = sight;
    if (sight.opaque || (!directory && !sight.metacopy)) step.stop = true;
    else if (sight.redirect !== undefined) {
      // A path from the roots continues below, even if a directory on the way to it was opaque.
      if (sight.redirect.startsWith('/')) step.stop = false;
      const before = absolute && !sight.redirect.startsWith('/') ? ['', ...names.slice(0, i)] : [];
      step.name = [...before, sight.redirect, ...names.slice(i + 1)].join('/');
    }
  }
  return step;
}

/** The place of a metacopy file's content; FailedPrecondition when no layer has it. */
export function dataOf(sight: Sight, below: Below): Place | undefined {
  if (!sight.metacopy) return undefined;
  if (below.data !== undefined) return below.data;
  throw unreadable(sight.place, 'has only metadata, and no layer below has its content');
}
