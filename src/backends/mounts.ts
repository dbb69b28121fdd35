/**
 * Mounts what a snapshotter returns while a tree is in use. Called by layer apply and diff, the command line
 * and tests. Needs root; mounts are those of this process's mount namespace.
 */
import { mkdir, mkdtemp, rm, rmdir } from 'node:fs/promises';
import { isAbsolute, join, normalize, resolve } from 'node:path';
import { failedPrecondition, invalidArgument, notImplemented } from '../errors.js';
import { errnoOf, fsError, isFull, messageOf } from '../system/system-errors.js';
import { temporaryDirectory } from '../system/temporary-directory.js';
import type { Mount } from './contract.js';
import { needsUserXattr } from './snapshotters/user-xattr.js';
import { sys, UmountFlag } from './sys.js';

/** The kernel's limit on lower directories. */
const MAX_LAYERS = 500;
/** The kernel accepts one page of options, including a NUL. */
const OPTIONS_BYTES = 4095;

/**
 * Mounts the chain on a temporary directory, passes that to `fn`, and always unmounts again. A mount with a
 * `target` is mounted at that path below the directory. FailedPrecondition without the right to mount;
 * InvalidArgument for an empty chain, a target that leads outside, or more layers than the kernel's limit.
 */
export async function withMounts<T>(
  mounts: readonly Mount[],
  fn: (directory: string) => Promise<T> | T,
): Promise<T> {
  if (mounts.length === 0) throw invalidArgument('there is nothing to mount');
  const directory = await temporaryDirectory('mount');
  const mounted: string[] = [];
  try {
    for (const mount of mounts) {
      const target = targetOf(mount, directory);
      if (target !== directory) await mkdir(target, { recursive: true });
      mountOne(mount, target);
      mounted.push(target);
    }
    return await fn(directory);
  } finally {
    for (const target of mounted.reverse()) unmount(target);
    await removeMountPoint(directory, mounts);
  }
}

/**
 * Mounts the chain on an existing directory, permanently. Throws as `withMounts`; on failure the earlier
 * mounts are unmounted again.
 */
export function mountAt(mounts: readonly Mount[], directory: string): void {
  if (mounts.length === 0) throw invalidArgument('there is nothing to mount');
  const mounted: string[] = [];
  try {
    for (const mount of mounts) {
      const target = targetOf(mount, resolve(directory));
      mountOne(mount, target);
      mounted.push(target);
    }
  } catch (error) {
    for (const target of mounted.reverse()) unmount(target);
    throw error;
  }
}

/**
 * Unmounts the topmost mount of a directory. FailedPrecondition if there is none, Unavailable while it is in
 * use.
 */
export function unmountAt(directory: string): void {
  try {
    sys.umount(resolve(directory), UmountFlag.nofollow);
  } catch (error) {
    if (errnoOf(error) !== 'EINVAL') throw fsError('unmount', directory, error);
    throw failedPrecondition(`nothing is mounted on ${directory}`, { object: directory });
  }
}

function targetOf(mount: Mount, directory: string): string {
  if (mount.target === undefined || mount.target === '') return directory;
  const path = normalize(mount.target);
  if (isAbsolute(path) || path === '..' || path.startsWith('../')) {
    throw invalidArgument(`mount target "${mount.target}" leads out of the directory`, {
      object: mount.target,
    });
  }
  return join(directory, path);
}

/** Mounts one mount on a directory. NotImplemented: mapped ids. */
export function mountOne(mount: Mount, target: string): void {
  const mapped = mount.options.find((option) => option.startsWith('uidmap=') || option.startsWith('gidmap='));
  if (mapped !== undefined) {
    throw notImplemented(`cannot mount with mapped ids (${mapped})`, { object: mount.source });
  }
  const { options, base } = compact(mount.options);
  if (mount.type === 'overlay') checkOverlay(options);
  try {
    sys.mountWithOptions(mount.type, mount.source, target, options, base);
  } catch (error) {
    throw fsError(`mount ${mount.type} ${mount.source} on`, target, error);
  }
}

/** InvalidArgument for an overlay that the kernel would refuse, without saying why. */
function checkOverlay(options: readonly string[]): void {
  const remedy = 'use fewer layers: squash some of the image';
  const layers = options.find((option) => option.startsWith('lowerdir='))?.split(/(?<!\\):/).length ?? 0;
  if (layers > MAX_LAYERS) {
    throw invalidArgument(`an overlay of ${layers} lower layers: the kernel takes ${MAX_LAYERS}`, { remedy });
  }
  const bytes = Buffer.byteLength(options.join(','));
  if (bytes > OPTIONS_BYTES) {
    throw invalidArgument(
      `the options of an overlay of ${layers} lower layers take ${bytes} bytes, the kernel takes ${OPTIONS_BYTES}`,
      { remedy },
    );
  }
}

/**
 * Writes the paths of a long overlay relative to their common directory, `base`, which many layers need; ''
 * if the options fit as they are.
 */
export function compact(options: readonly string[]): { options: string[]; base: string } {
  const unchanged = { options: [...options], base: '' };
  if (Buffer.byteLength(options.join(',')) <= OPTIONS_BYTES) return unchanged;
  const lower = options.find((option) => option.startsWith('lowerdir='));
  if (lower === undefined) return unchanged;
  const base = sharedDirectory(lower.slice('lowerdir='.length).split(':'));
  if (base === '/') return unchanged;
  const shortened = options.map((option) => {
    const [name, value] = split(option);
    if (name !== 'lowerdir' && name !== 'upperdir' && name !== 'workdir') return option;
    const paths = value
      .split(':')
      .map((path) => (path.startsWith(`${base}/`) ? path.slice(base.length + 1) : path));
    return `${name}=${paths.join(':')}`;
  });
  return { options: shortened, base };
}

function split(option: string): [string, string] {
  const equals = option.indexOf('=');
  return equals < 0 ? [option, ''] : [option.slice(0, equals), option.slice(equals + 1)];
}

/** The deepest common parent of these absolute paths. */
function sharedDirectory(paths: readonly string[]): string {
  const [first = '/', ...rest] = paths;
  let shared = first.split('/').slice(0, -1);
  for (const path of rest) {
    const parts = path.split('/');
    let same = 0;
    while (same < shared.length && shared[same] === parts[same]) same++;
    shared = shared.slice(0, same);
  }
  return shared.join('/') || '/';
}

/** A mount that is still in use disappears from the tree at once and ends with its last user. */
function unmount(target: string): void {
  try {
    sys.umount(target);
  } catch (error) {
    if (errnoOf(error) === 'EBUSY') sys.umount(target, UmountFlag.detach);
    else throw fsError('unmount', target, error);
  }
}

/** Never recursive: if something were still mounted, that would delete the snapshot. */
async function removeMountPoint(directory: string, mounts: readonly Mount[]): Promise<void> {
  if (mounts.every((mount) => !mount.target)) return rmdir(directory);
  for (const mount of [...mounts].reverse()) {
    for (
      let path = mount.target ? join(directory, normalize(mount.target)) : directory;
      path.length > directory.length;
    ) {
      await rmdir(path).catch(() => undefined);
      path = join(path, '..');
    }
  }
  await rmdir(directory);
}

let mountable: Promise<{ ok: boolean; reason?: string }> | undefined;

/** Whether this process may mount: tested once with a bind mount. */
export function canMount(): Promise<{ ok: boolean; reason?: string }> {
  mountable ??= tryMount();
  return mountable;
}

async function tryMount(): Promise<{ ok: boolean; reason?: string }> {
  const directory = await temporaryDirectory('mount');
  try {
    await withMounts([{ type: 'bind', source: directory, options: ['bind', 'ro'] }], () => undefined);
    return { ok: true };
  } catch (error) {
    return { ok: false, reason: messageOf(error) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/**
 * Whether overlays can be mounted on directories in `directory`: a file system may not support being the
 * upper one.
 */
export async function canMountOverlays(directory: string): Promise<{ ok: boolean; reason?: string }> {
  let probe: string | undefined;
  try {
    const made = await mkdtemp(join(directory, '.overlay-'));
    probe = made;
    const path = (name: string): string => join(made, name);
    for (const name of ['lower', 'upper', 'work']) await mkdir(path(name));
    const options = [
      `workdir=${path('work')}`,
      `upperdir=${path('upper')}`,
      `lowerdir=${path('lower')}`,
      ...((await needsUserXattr(directory)) ? ['userxattr'] : []),
    ];
    await withMounts([{ type: 'overlay', source: 'overlay', options }], () => undefined);
    return { ok: true };
  } catch (error) {
    if (isFull(error)) return { ok: false, reason: 'the disk has no room for the test' };
    return { ok: false, reason: messageOf(error) };
  } finally {
    if (probe !== undefined) await rm(probe, { recursive: true, force: true });
  }
}

/** FailedPrecondition with the reason, for operations that need to mount. */
export async function assertCanMount(): Promise<void> {
  const { ok, reason } = await canMount();
  if (!ok) throw failedPrecondition(`cannot mount: ${reason}`, { remedy: 'run as root' });
}
