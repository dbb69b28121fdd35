/**
 * The directory in which mounts are activated: `<directory>/<activation>/<number>` is the mount point of one mount. Called by
 * the mount manager (stores/mounts/manager.ts). Which activations there should be, its records say; this knows what is mounted.
 *
 * Everything is reached through the descriptor of the directory, and nothing outside of it is ever unmounted: a name is
 * taken for an activation only if it has the form of one, and mounts are told apart by the kernel's ids. Directories are removed
 * when they are empty, never with what is in them. Calls are synchronous: between two of them nothing else of this process
 * happens. A mount is in the mount namespace of this process, and ends with it, or with the machine.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { EbbtideError, failedPrecondition, invalidArgument, notImplemented } from '../errors.js';
import { descriptorPath } from '../held-paths.js';
import { HeldDirectory } from '../system/held-directory.js';
import { errnoOf, fsError, isAbsent } from '../system/system-errors.js';
import type { Mount } from './contract.js';
import { mountOne } from './mounts.js';
import {
  DIRECTORY_ONLY,
  lacking,
  MountFlag,
  mountOf,
  openBeneath,
  sys,
  UmountFlag,
  uniqueMountOf,
} from './sys.js';

/** A name that is never used again: a record that is older or newer than the directory cannot mean another activation's. */
const ACTIVATION = /^[0-9a-f]{16}$/;
const NUMBER = /^\d{1,3}$/;
/** Types that are mounted here. */
const mountable: ReadonlySet<string> = new Set(['bind', 'overlay']);
/** Mounts upon one another on one mount point, and below it, that are unmounted before giving up. */
const UNMOUNTS_MAX = 10_000;

export class MountPoints {
  /** Of the directory; absolute. */
  readonly path: string;
  /** What the directory is in: it is made there, wherever the name of it leads by then. */
  readonly #above: HeldDirectory;
  #held: HeldDirectory | undefined;

  private constructor(path: string, above: HeldDirectory) {
    this.path = path;
    this.#above = above;
    if (existsSync(join(above.at, basename(path)))) this.#held = above.child(basename(path));
  }

  /** Creates nothing before the first activation. Undefined when this user may not look into the directory. */
  static open(path: string): MountPoints | undefined {
    let above: HeldDirectory | undefined;
    try {
      above = HeldDirectory.open(dirname(path));
      return new MountPoints(path, above);
    } catch (error) {
      above?.release();
      if (errnoOf((error as Error).cause) === 'EACCES') return undefined;
      throw error;
    }
  }

  /** Where the mount with this number, from 1, is mounted. */
  pathOf(activation: string, number: number): string {
    return join(this.path, activation, String(number));
  }

  /** The activations that have a directory. */
  list(): string[] {
    const held = this.#held;
    if (held === undefined) return [];
    held.verify();
    try {
      return readdirSync(held.at).filter((name) => ACTIVATION.test(name));
    } catch (error) {
      throw fsError('list', this.path, error);
    }
  }

  /** Creates the directory of an activation. */
  create(activation: string): void {
    const missing = lacking();
    if (missing !== undefined)
      throw notImplemented(`mounts cannot be activated without the addon: ${missing}`);
    try {
      this.#above.verify();
      this.#held ??= this.#make();
      this.#held.verify();
      mkdirSync(this.#at(activation), { mode: 0o700 });
    } catch (error) {
      throw error instanceof EbbtideError
        ? error
        : fsError('make a directory for mounts in', this.path, error);
    }
  }

  /**
   * Mounts one mount of an activation, in number order; returns the kernel's id of it. NotImplemented names what cannot be mounted.
   * What is left if it fails goes with `remove`.
   */
  mount(activation: string, number: number, mount: Mount): string {
    checkMountable(mount);
    const point = join(this.#at(activation), String(number));
    this.#open().verify();
    try {
      mkdirSync(point, { mode: 0o700 });
      mountOne(mount, point);
      // Of a shared mount that was bound here a part that is unmounted would also go where it comes from.
      makePrivate(point);
      return mountAt(point, uniqueMountOf);
    } catch (error) {
      if (error instanceof EbbtideError) throw error;
      throw fsError(`mount ${mount.type} ${mount.source} on`, this.pathOf(activation, number), error);
    }
  }

  /** Whether the mount of this number is there, and is the one with this id. */
  isMounted(activation: string, number: number, id: string): boolean {
    if (this.#held === undefined || !ACTIVATION.test(activation)) return false;
    try {
      return mountAt(join(this.#at(activation), String(number)), uniqueMountOf) === id;
    } catch (error) {
      if (isAbsent(error)) return false;
      throw fsError('look at', this.pathOf(activation, number), error);
    }
  }

  /**
   * Makes a directory inside a mount of the activation, without following a link. NotImplemented when it is there with another
   * mode, as containerd says.
   * @param below names with slashes between them
   */
  makeDirectory(
    activation: string,
    number: number,
    below: string,
    { mode, owner }: { mode: number; owner?: readonly [uid: number, gid: number] | undefined },
  ): void {
    const path = join(this.pathOf(activation, number), below);
    const root = openSync(join(this.#at(activation), String(number)), DIRECTORY_ONLY);
    let parent: number | undefined;
    try {
      parent = openBeneath(root, dirname(below), DIRECTORY_ONLY);
      const at = join(descriptorPath(parent), basename(below));
      const there = lstatSync(at, { throwIfNoEntry: false });
      if (there === undefined) {
        mkdirSync(at, { mode });
        chmodSync(at, mode);
        if (owner !== undefined) chownSync(at, ...owner);
      } else if (!there.isDirectory()) {
        throw failedPrecondition(`${path} is not a directory`, { object: path });
      } else if ((there.mode & 0o777) !== mode) {
        throw notImplemented(`the mode of ${path} is not changed to ${mode.toString(8)}`, { object: path });
      }
    } catch (error) {
      throw error instanceof EbbtideError ? error : fsError('make the directory', path, error);
    } finally {
      if (parent !== undefined) closeSync(parent);
      closeSync(root);
    }
  }

  /**
   * Unmounts everything of an activation, the last mount first, and removes its directory. Nothing happens when there is none.
   * Unavailable while a process uses a mount: what is left is removed by the next call.
   */
  remove(activation: string): void {
    if (this.#held === undefined || !ACTIVATION.test(activation)) return;
    this.#held.verify();
    const at = this.#at(activation);
    try {
      const numbers = readdirSync(at).filter((name) => NUMBER.test(name));
      for (const name of numbers.sort((a, b) => Number(b) - Number(a))) this.#clear(join(at, name));
      rmdirSync(at);
    } catch (error) {
      if (!isAbsent(error)) throw fsError('unmount', join(this.path, activation), error);
    }
  }

  close(): void {
    this.#held?.release();
    this.#held = undefined;
    this.#above.release();
  }

  #make(): HeldDirectory {
    const name = basename(this.path);
    mkdirSync(join(this.#above.at, name), { mode: 0o700 });
    return this.#above.child(name);
  }

  #open(): HeldDirectory {
    if (this.#held === undefined)
      throw failedPrecondition(`${this.path} is not there`, { object: this.path });
    return this.#held;
  }

  #at(activation: string): string {
    if (!ACTIVATION.test(activation)) {
      throw invalidArgument(`"${activation}" is no name of an activation`, { object: activation });
    }
    return join(this.#open().at, activation);
  }

  /** Unmounts what is on a mount point, and removes it. */
  #clear(point: string): void {
    const ours = mountOfAll(this.#open());
    for (let i = 0; i < UNMOUNTS_MAX; i++) {
      const id = mountAt(point);
      if (id === ours) break;
      makePrivate(point);
      for (const below of mountsBelow(id)) unmountBeneath(point, below);
      sys.umount(point, UmountFlag.nofollow);
    }
    rmdirSync(point);
  }
}

/** NotImplemented names the type, or what is asked for besides. */
export function checkMountable({ type, source, target = '' }: Mount): void {
  const remedy = 'mount it yourself: bind and overlay are activated here';
  if (!mountable.has(type))
    throw notImplemented(`mounts of type "${type}" are not activated`, { object: source, remedy });
  if (target !== '')
    throw notImplemented(`a mount with a target ("${target}") is not activated`, { object: source, remedy });
}

/** The id of the mount that a directory is in; of a mount point that of the topmost mount. */
function mountAt(path: string, idOf = mountOf): string {
  const fd = openSync(path, DIRECTORY_ONLY | constants.O_NOFOLLOW);
  try {
    return idOf(fd);
  } finally {
    closeSync(fd);
  }
}

/** What is not mounted below is in this mount. A path through a descriptor is a link itself. */
const mountOfAll = (held: HeldDirectory): string => mountAt(`${held.at}/.`);

const makePrivate = (point: string): void => sys.mount('', point, '', MountFlag.private | MountFlag.rec);

/** Paths from a mount to the mounts below it, the deepest and last first. */
function mountsBelow(id: string): string[] {
  const all = mountTable();
  const top = all.get(id)?.point;
  if (top === undefined) return [];
  const isBelow = (mount: Mounted | undefined): boolean => {
    // A chain of parents is never longer than the table.
    for (let at = mount, left = all.size; at !== undefined && left > 0; at = all.get(at.parent), left--) {
      if (at.parent === id) return true;
    }
    return false;
  };
  const below = [...all.values()].filter((mount) => isBelow(mount) && mount.point.startsWith(`${top}/`));
  return below.map(({ point }) => point.slice(top.length + 1)).reverse();
}

/** Without a link in the path: a container that changes the tree must not lead elsewhere. */
function unmountBeneath(point: string, below: string): void {
  const root = openSync(point, DIRECTORY_ONLY | constants.O_NOFOLLOW);
  let parent: number | undefined;
  try {
    parent = openBeneath(root, dirname(below), DIRECTORY_ONLY);
    // Open descriptors of the mounts above: those do not keep this one busy.
    sys.umount(join(descriptorPath(parent), basename(below)), UmountFlag.nofollow);
  } finally {
    if (parent !== undefined) closeSync(parent);
    closeSync(root);
  }
}

interface Mounted {
  readonly parent: string;
  readonly point: string;
}

/** The mounts of this process's mount namespace by their ids, in their order. */
function mountTable(): Map<string, Mounted> {
  const table = new Map<string, Mounted>();
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [id = '', parent = '', , , point = ''] = line.split(' ');
    if (id !== '') table.set(id, { parent, point: unescaped(point) });
  }
  return table;
}

/** Spaces and the like are octal there. */
export const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

// ----------------------------------------------------------------------------------------------------- where mounts live

/** This boot and mount namespace: a mount made in another one cannot be seen, or has gone. */
export const mountPlace = (): string => `${bootId()}/${readlinkSync('/proc/self/ns/mnt')}`;

/** Whether mounts of another place may be there still: a process lives in that mount namespace. */
export function isPlaceAlive(place: string): boolean {
  const [boot, namespace] = [place.slice(0, place.indexOf('/')), place.slice(place.indexOf('/') + 1)];
  if (boot !== bootId()) return false;
  return readdirSync('/proc').some((pid) => /^\d+$/.test(pid) && namespaceOf(pid) === namespace);
}

function namespaceOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch {
    return undefined; // It has ended.
  }
}

const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
