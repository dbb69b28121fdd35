/**
 * System calls that Node lacks on Linux: mounts, device nodes, extended attributes, times in nanoseconds,
 * openat2. Used by the backends. Calls are synchronous and short (a mount may wait for its device), except
 * those that return a promise. A link at the last component of a path is never followed; a path given as
 * bytes is used as it is, for names that are not UTF-8.
 *
 * Where the addon (native/host/sys.cc) does not load, mounts and devices are made by the system's own tools and
 * there are no extended attributes (`xattrSupported` is false and the calls fail with ENOTSUP).
 *
 * Errors are like Node's own: `code` ("EPERM"), `errno`, `syscall`, `path`.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, lutimesSync, openSync, readSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { addonError, loadAddon } from '../system/addon.js';
import { errnoName, errnoText } from '../system/errno-names.js';
import { MountFlag, mountFlagNames, parseMountOptions } from './mount-options.js';

export { MountFlag, parseMountOptions } from './mount-options.js';

export type SysPath = string | Uint8Array;

/** What native/host/sys.cc exports. A number is an errno, 0 for success. */
interface Addon {
  mount(
    source: SysPath,
    target: SysPath,
    type: string,
    flags: number,
    data: SysPath,
    directory: SysPath,
  ): number;
  umount(target: SysPath, flags: number): number;
  mknod(path: SysPath, mode: number, major: number, minor: number): number;
  lsetxattr(path: SysPath, name: string, value: Uint8Array): number;
  lgetxattr(path: SysPath, name: string): Buffer | number;
  llistxattr(path: SysPath): Buffer | number;
  lremovexattr(path: SysPath, name: string): number;
  /** Seconds and nanoseconds of each. */
  utimes(path: SysPath, ...times: readonly number[]): number;
  /** A descriptor, or an errno below 0. */
  openBeneath(directory: number, path: SysPath, flags: number): number;
  makeFiles(directory: number, list: Uint8Array): Promise<Uint32Array> | number;
  /** native/host/file_steps.cc. */
  fileSteps(list: Uint8Array): Promise<Uint32Array> | number;
  /** native/host/look_at.cc. */
  lookAt(
    root: number,
    directory: SysPath,
    names: Uint8Array,
    contentMax: number,
    budget: number,
  ): Promise<Buffer | number> | number;
  /** native/host/usage.cc. */
  usageOf?(directory: number, attribute: string): Promise<Buffer | number> | number;
  /** Takes NUL-terminated paths; returns index and errno of the first that is not a directory, or nothing. */
  firstNoDirectory(paths: Uint8Array): Promise<Uint32Array> | number;
  uniqueMountId?(descriptor: number): bigint | number;
  /** Returns an errno. */
  syncFileSystem(directory: SysPath): Promise<number> | number;
  /** The count, or an errno below 0. */
  readNow?(descriptor: number, bytes: Uint8Array, position: number): number;
}

const addon = loadAddon('ebbtide_sys') as Addon | undefined;

const ENOTSUP = 95;
const EAGAIN = 11;
const ENOTDIR = 20;
const ENODATA = 61;
const NANOS = 1_000_000_000n;

/** Whether the four xattr functions work here (the file system may still refuse). */
export const xattrSupported: boolean = addon !== undefined;

/** Why the addon is not used; empty when it is. */
export const fallbackReason = (): string => addonError('ebbtide_sys');

/** What is not possible without the addon, and why it is missing; undefined when it is loaded. */
export const lacking = (): string | undefined =>
  addon === undefined
    ? 'no extended attributes (capabilities, security labels and the marks of overlays in layers), times in microseconds, ' +
      `no names of a daemon's callers, whose connections are accepted one at a time: ${fallbackReason()}`
    : undefined;

/**
 * mount(2).
 * @param flags see `MountFlag` and `parseMountOptions`
 * @param data the file system's own options, comma-separated; at most 4095 bytes
 * @param directory that relative paths in `source`, `target` and `data` start from, if not the process's own:
 *   overlay mounts of many layers fit only with short relative paths. The process's is not changed.
 */
export function mount(
  source: SysPath,
  target: SysPath,
  type: string,
  flags: number,
  data: SysPath = '',
  directory: SysPath = '',
): void {
  if (addon !== undefined) check(addon.mount(source, target, type, flags, data, directory), 'mount', target);
  else mountWithTool(source, target, type, flags, String(data), String(directory));
}

/** Mounts one entry of a mount table, with its options as words; a read-only bind takes two calls. */
export function mountWithOptions(
  type: string,
  source: SysPath,
  target: SysPath,
  options: readonly string[],
  directory: SysPath = '',
): void {
  const { flags, data, propagation } = parseMountOptions(options);
  mount(source, target, type, flags, data, directory);
  try {
    if (flags & MountFlag.bind && flags & MountFlag.rdonly) {
      mount(source, target, '', flags | MountFlag.remount, data, directory);
    }
    if (propagation !== 0) mount('', target, '', propagation, '', directory);
  } catch (error) {
    umount(target, UmountFlag.detach);
    throw error;
  }
}

export const UmountFlag = { force: 1, detach: 2, expire: 4, nofollow: 8 } as const;

/** umount2(2). */
export function umount(target: SysPath, flags = 0): void {
  if (addon !== undefined) check(addon.umount(target, flags), 'umount', target);
  else {
    const args = [...(flags & UmountFlag.force ? ['-f'] : []), ...(flags & UmountFlag.detach ? ['-l'] : [])];
    runTool('umount', [...args, '--', String(target)], target);
  }
}

/** The letters of mknod(1). */
const NODE_LETTERS = new Map([
  [constants.S_IFIFO, 'p'],
  [constants.S_IFCHR, 'c'],
  [constants.S_IFBLK, 'b'],
]);

/** mknod(2). @param mode type and permission bits, as in `st_mode`; the process's umask does not apply */
export function mknod(path: SysPath, mode: number, major = 0, minor = 0): void {
  if (addon !== undefined) {
    check(addon.mknod(path, mode, major, minor), 'mknod', path);
    return;
  }
  const letter = NODE_LETTERS.get(mode & constants.S_IFMT);
  if (letter === undefined) throw systemError(ENOTSUP, 'mknod', path);
  const permissions = (mode & 0o7777).toString(8);
  const numbers = letter === 'p' ? [] : [String(major), String(minor)];
  // The tool is another process and does not share our descriptors.
  const named = String(path).replace(/^\/proc\/self\//, `/proc/${process.pid}/`);
  runTool('mknod', ['-m', permissions, '--', named, letter, ...numbers], path);
}

export function lsetxattr(path: SysPath, name: string, value: Uint8Array): void {
  check(addon?.lsetxattr(path, name, value) ?? ENOTSUP, 'lsetxattr', path);
}

/** Undefined when the file has no such attribute. */
export function lgetxattr(path: SysPath, name: string): Buffer | undefined {
  const value = addon?.lgetxattr(path, name) ?? ENOTSUP;
  if (value === ENODATA) return undefined;
  return bytesOf(value, 'lgetxattr', path);
}

/** Names of the file's attributes, sorted. */
export function llistxattr(path: SysPath): string[] {
  const names = bytesOf(addon?.llistxattr(path) ?? ENOTSUP, 'llistxattr', path);
  return names.toString('utf8').split('\0').slice(0, -1).sort();
}

export function lremovexattr(path: SysPath, name: string): void {
  check(addon?.lremovexattr(path, name) ?? ENOTSUP, 'lremovexattr', path);
}

/**
 * Sets access and modification time of the path itself, in nanoseconds since 1970. Without the addon
 * microseconds.
 */
export function utimes(path: SysPath, atimeNs: bigint, mtimeNs: bigint): void {
  if (addon !== undefined) {
    check(addon.utimes(path, ...secondsOf(atimeNs), ...secondsOf(mtimeNs)), 'utimensat', path);
    return;
  }
  const seconds = (ns: bigint): number => Number(ns / NANOS) + Number(ns % NANOS) / 1e9;
  lutimesSync(typeof path === 'string' ? path : Buffer.from(path), seconds(atimeNs), seconds(mtimeNs));
}

/** Whole seconds since 1970, before it too, and the nanoseconds after them. */
function secondsOf(ns: bigint): [number, number] {
  const rest = ((ns % NANOS) + NANOS) % NANOS;
  return [Number((ns - rest) / NANOS), Number(rest)];
}

// ------------------------------------------------------------------------------------- below an open directory

/** Flags of open(2) that Node does not name. */
const O_PATH = 0o10000000;
const O_CLOEXEC = 0o2000000;

/** Opens a directory only to reach what is in it. */
export const DIRECTORY_ONLY = O_PATH | constants.O_DIRECTORY | O_CLOEXEC;
/** As `DIRECTORY_ONLY`, for anything; a symlink is opened itself. */
export const PLACE_ONLY = O_PATH | constants.O_NOFOLLOW | O_CLOEXEC;

/**
 * Opens `path` below an open directory, without following any symlink: ELOOP or ENOTDIR if there is one. The
 * caller closes the descriptor.
 * @param path names separated by single slashes; not empty, none of them `..`
 */
export function openBeneath(directory: number, path: string | Buffer, flags: number): number {
  if (addon === undefined) return openStepwise(directory, path, flags);
  const fd = addon.openBeneath(directory, path, flags);
  if (fd < 0) throw systemError(-fd, 'openat2', path);
  return fd;
}

function openStepwise(directory: number, path: string | Buffer, flags: number): number {
  const names = path.toString('latin1').split('/');
  let at = directory;
  try {
    for (const [i, name] of names.entries()) {
      const below = Buffer.from(`/proc/self/fd/${at}/${name}`, typeof path === 'string' ? 'utf8' : 'latin1');
      const mode = i < names.length - 1 ? DIRECTORY_ONLY : flags;
      const next = openSync(below, mode | constants.O_NOFOLLOW | O_CLOEXEC);
      if (at !== directory) closeSync(at);
      at = next;
    }
    return at;
  } catch (error) {
    if (at !== directory) closeSync(at);
    throw error;
  }
}

const fdinfo = Buffer.alloc(512);

/** Identifies the mount that a file was opened through; differs if something is mounted between two files. */
export function mountOf(fd: number): string {
  const path = `/proc/self/fdinfo/${fd}`;
  const info = openSync(path, 'r');
  try {
    const text = fdinfo.toString('latin1', 0, readSync(info, fdinfo));
    const id = /^mnt_id:\s*(\d+)$/m.exec(text)?.[1];
    if (id === undefined) throw systemError(ENOTSUP, 'mnt_id', path);
    return id;
  } finally {
    closeSync(info);
  }
}

/**
 * As `mountOf`, but no later mount has it until the machine restarts. Before Linux 6.8 it is `mountOf`'s, which a later mount may
 * have when this one is gone.
 */
export function uniqueMountOf(fd: number): string {
  const id = addon?.uniqueMountId?.(fd);
  return typeof id === 'bigint' ? `unique ${id}` : mountOf(fd);
}

/** Whether `makeFiles` works here. */
export const makeFilesSupported: boolean = addon !== undefined;

/**
 * Creates the files of a packed list (format in native/host/files.cc) below an open directory; returns the outcome
 * of each.
 */
export async function makeFiles(directory: number, list: Uint8Array): Promise<Uint32Array> {
  const outcomes = await (addon?.makeFiles(directory, list) ?? ENOTSUP);
  if (typeof outcomes === 'number') throw systemError(outcomes, 'makeFiles', '');
  return outcomes;
}

/** Whether `fileSteps` works here. */
export const fileStepsSupported: boolean = addon?.fileSteps !== undefined;

/** Runs the steps of a packed list (file-steps.ts); returns the errno of each, up to the first that ended it. */
export async function fileSteps(list: Uint8Array): Promise<Uint32Array> {
  const outcomes = await (addon?.fileSteps(list) ?? ENOTSUP);
  if (typeof outcomes === 'number') throw systemError(outcomes, 'fileSteps', '');
  return outcomes;
}

/** Whether `lookAt` works here. */
export const lookAtSupported: boolean = addon?.lookAt !== undefined;

/**
 * What stands under names (each with a NUL at its end) in a directory below an open one, as native/host/look_at.cc packs it.
 * Contents of files of at most `contentMax` bytes come along, `budget` bytes of contents and attributes in all.
 */
export async function lookAt(
  root: number,
  directory: SysPath,
  names: Uint8Array,
  contentMax: number,
  budget: number,
): Promise<Buffer> {
  const seen = await (addon?.lookAt(root, directory, names, contentMax, budget) ?? ENOTSUP);
  if (typeof seen === 'number') throw systemError(seen, 'lookAt', directory);
  return seen;
}

/** Whether `usageOf` works here. */
export const usageOfSupported: boolean = addon?.usageOf !== undefined;

/**
 * What the next entries of a directory, which is open for reading, take on disk, as native/host/usage.cc packs it; empty at the end. One
 * reader at a time.
 */
export async function usageOf(directory: number, attribute: string, path: SysPath): Promise<Buffer> {
  const usage = await (addon?.usageOf?.(directory, attribute) ?? ENOTSUP);
  return bytesOf(usage, 'getdents', path);
}

/** The first of the paths, in their order, that does not lead to a directory, and why. One call for all of them. */
export async function firstNoDirectory(
  paths: readonly string[],
): Promise<{ path: string; error: NodeJS.ErrnoException } | undefined> {
  if (addon === undefined) return firstNoDirectoryOneByOne(paths);
  const found = await addon.firstNoDirectory(Buffer.from(paths.map((path) => `${path}\0`).join('')));
  const [index = -1, errno] = typeof found === 'number' ? [0, found] : found;
  const path = paths[index];
  if (path === undefined || errno === undefined) return undefined;
  return { path, error: systemError(errno, 'stat', path) };
}

async function firstNoDirectoryOneByOne(paths: readonly string[]) {
  for (const path of paths) {
    try {
      if (!(await stat(path)).isDirectory()) return { path, error: systemError(ENOTDIR, 'stat', path) };
    } catch (error) {
      return { path, error: error as NodeJS.ErrnoException };
    }
  }
  return undefined;
}

/** syncfs(2): flushes the file system of a directory to disk. Fails if something could not be written. */
export async function syncFileSystem(directory: string): Promise<void> {
  if (addon === undefined) runTool('sync', ['-f', '--', directory], directory);
  else check(await addon.syncFileSystem(directory), 'syncfs', directory);
}

/**
 * What can be read of a file at once, without waiting for the disk: the count, 0 at the end; `later`: the disk is needed; `never`: not
 * of this file, or not on this host.
 */
export function readNow(descriptor: number, into: Uint8Array, position: number): number | 'later' | 'never' {
  const count = addon?.readNow?.(descriptor, into, position) ?? -ENOTSUP;
  if (count >= 0) return count;
  return count === -EAGAIN ? 'later' : 'never';
}

// ------------------------------------------------------------------------------------------------------- errors

/** The error of a system call that ended with this errno. */
export function errorOf(errno: number, syscall: string, path: SysPath): NodeJS.ErrnoException {
  return systemError(errno, syscall, path);
}

function check(errno: number, syscall: string, path: SysPath): void {
  if (errno !== 0) throw systemError(errno, syscall, path);
}

function bytesOf(value: Buffer | number, syscall: string, path: SysPath): Buffer {
  if (typeof value === 'number') throw systemError(value, syscall, path);
  return value;
}

function systemError(errno: number, syscall: string, path: SysPath, note = ''): NodeJS.ErrnoException {
  const code = errnoName(errno);
  const name = typeof path === 'string' ? path : Buffer.from(path).toString('utf8');
  const error: NodeJS.ErrnoException = new Error(`${errnoText(errno)}, ${syscall} '${name}'${note}`);
  return Object.assign(error, { errno: -errno, code, syscall, path: name });
}

// -------------------------------------------------------------------------------------------- without the addon

function mountWithTool(
  source: SysPath,
  target: SysPath,
  type: string,
  flags: number,
  data: string,
  directory: string,
): void {
  const options = [...mountFlagNames(flags), ...(data === '' ? [] : [data])];
  const args = [
    ...(type === '' ? [] : ['-t', type]),
    ...(options.length === 0 ? [] : ['-o', options.join(',')]),
  ];
  const paths = source === '' ? [String(target)] : [String(source), String(target)];
  runTool('mount', ['-i', ...args, '--', ...paths], target, directory);
}

/** Messages of mount(8), umount(8) and mknod(1) in the C locale, and the errno they stand for. */
const messages: readonly [RegExp, number][] = [
  [/permission denied|must be superuser|not permitted/i, 1],
  [/no such file|does not exist|not found/i, 2],
  [/busy/i, 16],
  [/file exists/i, 17],
  [/unknown filesystem/i, 19],
  [/not a directory/i, 20],
];
const EINVAL = 22;

function runTool(tool: string, args: string[], path: SysPath, directory = ''): void {
  const { error, status, stderr } = spawnSync(tool, args, {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
    stdio: ['ignore', 'ignore', 'pipe'],
    ...(directory === '' ? {} : { cwd: directory }),
  });
  if (error !== undefined) throw error;
  if (status === 0) return;
  const errno = messages.find(([pattern]) => pattern.test(stderr))?.[1] ?? EINVAL;
  throw systemError(errno, tool, path, ` (${stderr.trim()})`);
}

/** The calls as one object, for code that prefers a prefix: `sys.mount(…)`. */
export const sys = {
  xattrSupported,
  mount,
  mountWithOptions,
  umount,
  mknod,
  lsetxattr,
  lgetxattr,
  llistxattr,
  lremovexattr,
  utimes,
} as const;
