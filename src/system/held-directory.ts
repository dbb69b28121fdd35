/**
 * A directory that stays the one that was opened. What is below it is reached through a descriptor, so a file
 * system mounted over it, a rename, or another directory in its place never leads a later open elsewhere.
 * Called by the engine, the backends and the daemon for their directories.
 *
 * `verify` checks that the name still leads here: before directories are walked, before something new is
 * created, and before a path is given to another program that opens it by name. Any thread of the process may
 * use `at`; other processes may not.
 */
import { closeSync, constants, existsSync, fchmodSync, fstatSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { type EbbtideError, failedPrecondition, unavailable } from '../errors.js';
import { descriptorPath, forgetDescriptor, nameDescriptor } from '../held-paths.js';
import {
  type FileIdentity,
  identityAt,
  identityOf,
  identityText,
  isSame,
  isSameDevice,
  placeOf,
} from './file-identity.js';
import { errnoOf, fsError, OPEN_AGAIN } from './system-errors.js';

export class HeldDirectory {
  /** The name it was opened by; absolute. For messages and for mounts. */
  readonly path: string;
  readonly #at: string;
  readonly #fd: number;
  readonly #identity: FileIdentity;
  /** Subdirectories that must stay what they were when they were first seen. */
  readonly #entries = new Map<string, HeldDirectory>();
  /** Subdirectories that were removed since. Paths through their descriptors may still be in use. */
  readonly #removed: HeldDirectory[] = [];
  #isReleased = false;

  private constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
    this.#identity = identityOf(fd, path);
    const through = descriptorPath(fd);
    const hasProc = existsSync(through);
    this.#at = hasProc ? through : path;
    if (hasProc) nameDescriptor(fd, path);
  }

  /**
   * @param path absolute
   * @param below the same directory, as reached through an open one
   * @throws the errors of opening a directory
   */
  static open(path: string, below = path): HeldDirectory {
    let fd: number | undefined;
    try {
      fd = openSync(below, constants.O_RDONLY | constants.O_DIRECTORY);
      return new HeldDirectory(path, fd);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      throw fsError('use the directory', path, error);
    }
  }

  /**
   * The path through which to open what is below. Without /proc it is the name itself, and `verify` is the
   * only protection. FailedPrecondition once released: the descriptor's number may belong to another file by
   * then.
   */
  get at(): string {
    if (this.#isReleased) throw closed(this.path);
    return this.#at;
  }

  /** A subdirectory, opened as a HeldDirectory of its own. */
  child(name: string): HeldDirectory {
    return HeldDirectory.open(join(this.path, name), join(this.at, name));
  }

  /** The path through which to open what is below an entry: its own descriptor, once `verify` has seen it. */
  entry(name: string): string {
    return this.#entries.get(name)?.at ?? join(this.at, name);
  }

  /** Whether `verify` has seen the entry. */
  holds(name: string): boolean {
    return this.#entries.has(name);
  }

  /** A path below `path` as one below `at`. */
  through(path: string): string {
    return path.startsWith(`${this.path}/`) ? this.at + path.slice(this.path.length) : path;
  }

  /** Device and inode, for other processes of this machine. */
  get identity(): string {
    return identityText(this.#identity);
  }

  /** Whether the name still leads to this directory. */
  get isInPlace(): boolean {
    return placeOf(this.#identity, this.path) === 'same';
  }

  /**
   * @throws Unavailable unless the name still leads to this directory, and the named entries are the ones
   * that were there first (an entry that is missing, or was removed, passes). Takes some microseconds.
   */
  verify(...entries: readonly string[]): void {
    if (!this.isInPlace) throw replaced(this.path);
    for (const name of entries) this.#verifyEntry(name);
  }

  #verifyEntry(name: string): void {
    const path = join(this.path, name);
    const known = this.#entries.get(name);
    if (known !== undefined) {
      const place = placeOf(known.#identity, path);
      if (place === 'same') return;
      this.#forget(name, known);
      if (place === 'nothing') return;
    }
    const found = identityAt(path);
    if (found !== undefined) this.#hold(name, found);
  }

  #hold(name: string, found: FileIdentity): void {
    // A file system mounted there is not something that this store made.
    if (!isSameDevice(found, this.#identity)) throw replaced(join(this.path, name));
    const held = this.child(name);
    if (isSame(held.#identity, found)) this.#entries.set(name, held);
    else {
      held.release();
      throw replaced(held.path);
    }
  }

  /** An entry that was removed may be created again; one that was moved away still belongs to this store. */
  #forget(name: string, known: HeldDirectory): void {
    if (linksOf(known.#fd, known.path) > 0) throw replaced(known.path);
    this.#entries.delete(name);
    this.#removed.push(known);
  }

  /** @throws Unavailable unless an open file is still the one with this name */
  verifyFile(name: string, identity: FileIdentity): void {
    if (this.#isReleased) throw closed(this.path);
    if (placeOf(identity, name, { fd: this.#fd, at: this.#at }) === 'same') return;
    const path = join(this.path, name);
    throw unavailable(`${path} is not the file that was opened: it was removed or replaced`, {
      object: path,
      remedy: OPEN_AGAIN,
    });
  }

  /** Sets the mode regardless of the umask at creation. A directory of another user keeps its mode. */
  setMode(mode: number): void {
    try {
      if ((fstatSync(this.#fd).mode & 0o7777) !== mode) fchmodSync(this.#fd, mode);
    } catch (error) {
      const code = errnoOf(error);
      if (code !== 'EPERM' && code !== 'EROFS') throw fsError('set the mode of', this.path, error);
    }
  }

  /** Idempotent. */
  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    for (const held of [...this.#entries.values(), ...this.#removed]) held.release();
    forgetDescriptor(this.#fd);
    closeSync(this.#fd);
  }
}

function linksOf(fd: number, path: string): number {
  try {
    return fstatSync(fd).nlink;
  } catch (error) {
    throw fsError('look at', path, error);
  }
}

const closed = (path: string): EbbtideError => failedPrecondition(`${path} is closed`, { object: path });

/** Something was mounted over it, or it was renamed or replaced. */
const replaced = (path: string): EbbtideError =>
  unavailable(`the root has been replaced: ${path} is not the directory that was opened`, {
    object: path,
    remedy:
      'put the directory back (unmount, rename); for the new one, run the command again, or restart the daemon or the program',
  });
