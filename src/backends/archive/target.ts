/**
 * Maps a snapshot's mounts to directories, so that layers can be written and read without mount(2): a bind is
 * its source; an overlay is its upper directory over the lower ones, nearest first. Called by apply and diff.
 */
import { failedPrecondition, notImplemented, present } from '../../errors.js';
import type { Mount } from '../contract.js';
import { type BytePath, toBytePath } from './paths.js';

/** Extended attributes that overlays use; a layer must not contain them. */
export const OVERLAY_XATTRS = ['trusted.overlay.', 'user.overlay.'] as const;

export type OverlayPrefix = (typeof OVERLAY_XATTRS)[number];

export interface Target {
  /** Directory that is written to. */
  upper: BytePath;
  /** Directories below it, nearest first; empty for a bind. */
  lowers: readonly BytePath[];
  /** Prefix of overlay's own attributes; undefined for a bind, where a deletion leaves no mark. */
  overlay: OverlayPrefix | undefined;
  /** The layer is written before what will be below it is there (detached.ts). */
  detached: boolean;
  /** The overlay's scratch directory, where the kernel keeps the index of an overlay mounted with `index=on`. */
  work: BytePath | undefined;
}

/** FailedPrecondition for a read-only mount, NotImplemented for a type that is neither bind nor overlay. */
export function writableTarget(mounts: readonly Mount[]): Target {
  const { mount, layers, upper, overlay, work } = describe(mounts);
  if (upper === undefined) {
    throw failedPrecondition(`cannot write to the read-only mount of ${mount.source}`, {
      object: mount.source,
      remedy: 'use the mounts of an active snapshot',
    });
  }
  return { upper, lowers: layers, overlay, detached: false, work };
}

/**
 * Of a snapshot without a parent that gets one later, in an overlay: deletions leave the marks of overlays that need no user namespace.
 */
export const detachedTarget = (mounts: readonly Mount[]): Target => ({
  ...writableTarget(mounts),
  ...{ overlay: 'trusted.overlay.', detached: true },
});

/**
 * The bind mount that stands for an overlay of an upper directory alone: so clients of containerd 2.2 say that a snapshot gets its
 * parent later. Undefined: other mounts.
 */
export function bindOfDetached([mount, ...more]: readonly Mount[]): Mount[] | undefined {
  if (mount?.type !== 'overlay' || more.length > 0 || optionOf(mount, 'lowerdir') !== undefined)
    return undefined;
  const source = optionOf(mount, 'upperdir');
  return source === undefined
    ? undefined
    : [{ ...mount, type: 'bind', source, options: withoutDirectories(mount) }];
}

const withoutDirectories = ({ options }: Mount): string[] =>
  options.filter((option) => !/^(upper|work)dir=/.test(option));

/** All directories of the mounts, nearest first. */
export function readableTarget(mounts: readonly Mount[]): Target {
  const { layers, upper, overlay, work } = describe(mounts);
  const [first, ...rest] = upper === undefined ? layers : [upper, ...layers];
  return { upper: present(first, 'a directory of the mount'), lowers: rest, overlay, detached: false, work };
}

interface Description {
  mount: Mount;
  upper: BytePath | undefined;
  layers: BytePath[];
  overlay: OverlayPrefix | undefined;
  work: BytePath | undefined;
}

function describe(mounts: readonly Mount[]): Description {
  const [mount, ...more] = mounts;
  if (mount === undefined || more.length > 0) {
    throw notImplemented(`a layer needs exactly one mount, not ${mounts.length}`);
  }
  if (mount.type === 'bind') {
    const source = toBytePath(mount.source);
    return mount.options.includes('ro')
      ? { mount, upper: undefined, layers: [source], overlay: undefined, work: undefined }
      : { mount, upper: source, layers: [], overlay: undefined, work: undefined };
  }
  if (mount.type === 'overlay') return describeOverlay(mount);
  throw notImplemented(`cannot write a layer to a mount of type "${mount.type}"`, {
    object: mount.source,
    remedy: 'use a snapshotter that mounts by bind or overlay',
  });
}

function describeOverlay(mount: Mount): Description {
  const layers = optionOf(mount, 'lowerdir')?.split(/(?<!\\):/) ?? [];
  const upper = optionOf(mount, 'upperdir');
  const work = optionOf(mount, 'workdir');
  if (layers.length === 0)
    throw failedPrecondition('an overlay mount without lowerdir', { object: mount.source });
  if (layers.includes('') || mount.options.some((option) => /^(lowerdir|datadir)\+=/.test(option))) {
    throw notImplemented('layers of data only, or given one by one, are not supported', {
      object: mount.source,
      remedy: 'give all layers in one lowerdir',
    });
  }
  return {
    mount,
    upper: upper === undefined || mount.options.includes('ro') ? undefined : toBytePath(upper),
    layers: layers.map((dir) => toBytePath(dir.replaceAll('\\:', ':'))),
    overlay: mount.options.includes('userxattr') ? 'user.overlay.' : 'trusted.overlay.',
    work: work === undefined ? undefined : toBytePath(work),
  };
}

function optionOf(mount: Mount, name: string): string | undefined {
  return mount.options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
}
