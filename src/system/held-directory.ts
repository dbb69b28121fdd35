/**
 * A directory that stays the one that was opened: what is below it is reached through a descriptor, so that a file system
 * mounted over it, a rename, or another directory in its place never leads a late open elsewhere. Called by the engine, the
 * backends and the daemon for their directories.
 *
 * `verify` says whether the name still leads here: before directories are walked, before something new is made, and before
 * a path is handed to somebody who opens it by its name. Any thread of the process may use `at`; other processes may not.
 */
import { closeSync, constants, existsSync, fchmodSync, fstatSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { type EbbtideError, failedPrecondition, unavailable } from '../errors.js';
import { descriptorPath, forgetDescriptor, nameDescriptor } from '../held-paths.js';
import { type FileIdentity, identityAt, identityOf, isSame, isSameDevice, placeOf } from './file-identity.js';
import { errnoOf, fsError, OPEN_AGAIN } from './system-errors.js';

export class HeldDirectory {
  /** As it was named; absolute. For messages, and for mounts. */
  readonly path: string;
  readonly #at: string;
  readonly #fd: number;
  readonly #identity: FileIdentity;
  /** Directories in it that must stay what they were when they were first seen. */
  readonly #entries = new Map<string, HeldDirectory>();
  /** Those that were removed since. Paths through their descriptors may still be in use. */
  readonly #removed: HeldDirectory[] = [];
  #isReleased = false;

  private constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
    this.#identity = identityOf(fd);
    const through = descriptorPath(fd);
    const hasProc = existsSync(through);
    this.#at = hasProc ? through : path;
    if (hasProc) nameDescriptor(fd, path);
  }

  /**
   * @param path absolute; `below`: the same directory as it is reached through one that is held
   * Errors as those of opening a directory.
   */
  static open(path: string, below = path): HeldDirectory {
    try {
      return new HeldDirectory(path, openSync(below, constants.O_RDONLY | constants.O_DIRECTORY));
    } catch (error) {
      throw fsError('use the directory', path, error);
    }
  }

  /**
   * Where to open what is below. Without /proc the name itself: then `verify` is all there is. FailedPrecondition once
   * released: the number may be another file's by then.
   */
  get at(): string {
    if (this.#isReleased) throw closed(this.path);
    return this.#at;
  }

  /** A directory in it, held for itself. */
  child(name: string): HeldDirectory {
    return HeldDirectory.open(join(this.path, name), join(this.at, name));
  }

  /** Where to open what is below an entry: through its own descriptor, once `verify` has seen it. */
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

  /** Whether the name leads to this directory still. */
  get isInPlace(): boolean {
    return placeOf(this.#identity, this.path) === 'same';
  }

  /**
   * Unavailable unless the name leads to this directory still, and its named entries are those that were there first (an
   * entry that is missing, or was removed, is none). Takes some microseconds.
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
      this.#letGo(name, known);
      if (place === 'nothing') return;
    }
    const found = identityAt(path);
    if (found !== undefined) this.#hold(name, found);
  }

  #hold(name: string, found: FileIdentity): void {
    // What another file system is mounted on is not what this store made.
    if (!isSameDevice(found, this.#identity)) throw replaced(join(this.path, name));
    const held = this.child(name);
    if (isSame(held.#identity, found)) this.#entries.set(name, held);
    else {
      held.release();
      throw replaced(held.path);
    }
  }

  /** What was removed may be made again; what was moved away is still this store's. */
  #letGo(name: string, known: HeldDirectory): void {
    if (fstatSync(known.#fd).nlink > 0) throw replaced(known.path);
    this.#entries.delete(name);
    this.#removed.push(known);
  }

  /** Unavailable unless a file that was opened is still the one with this name. */
  verifyFile(name: string, identity: FileIdentity): void {
    if (this.#isReleased) throw closed(this.path);
    if (placeOf(identity, name, { fd: this.#fd, at: this.#at }) === 'same') return;
    const path = join(this.path, name);
    throw unavailable(`${path} is not the file that was opened: it was removed or replaced`, {
      object: path,
      remedy: OPEN_AGAIN,
    });
  }

  /** Gives it this mode, whatever the umask was when it was made. Whose it is not keeps what it has. */
  setMode(mode: number): void {
    try {
      if ((fstatSync(this.#fd).mode & 0o7777) !== mode) fchmodSync(this.#fd, mode);
    } catch (error) {
      const code = errnoOf(error);
      if (code !== 'EPERM' && code !== 'EROFS') throw fsError('set the mode of', this.path, error);
    }
  }

  /** Again: no error. */
  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    for (const held of [...this.#entries.values(), ...this.#removed]) held.release();
    forgetDescriptor(this.#fd);
    closeSync(this.#fd);
  }
}

const closed = (path: string): EbbtideError => failedPrecondition(`${path} is closed`, { object: path });

/** Somebody mounted over it, renamed it, or put another one in its place. */
const replaced = (path: string): EbbtideError =>
  unavailable(`the root has been replaced: ${path} is another directory than the one that was opened`, {
    object: path,
    remedy:
      'put the directory back (unmount, rename); for the new one, run the command again, or restart the daemon or the program',
  });
