/**
 * One owner per directory: a lock on a file in it, tied to the open file, so that the kernel releases it
 * however the process ends. Called when a snapshotter is opened; excludes this process too.
 */

import { type FileHandle, open } from 'node:fs/promises';
import { unavailable } from '../errors.js';
import { type FileIdentity, identityOf } from '../system/file-identity.js';
import type { HeldDirectory } from '../system/held-directory.js';
import { tryOwn } from '../system/lmdb/readers.js';
import { lockHolder } from '../system/lock-holder.js';
import { fsError } from '../system/system-errors.js';

export class FileLock {
  readonly #handle: FileHandle;
  readonly #identity: FileIdentity;

  private constructor(handle: FileHandle, path: string) {
    this.#handle = handle;
    this.#identity = identityOf(handle.fd, path);
  }

  /**
   * Creates the lock file if it is missing (0600). Unavailable immediately when another open file holds the
   * lock; `owned` names what is in use.
   */
  static async acquire(path: string, owned: string): Promise<FileLock> {
    let handle: FileHandle;
    try {
      handle = await open(path, 'a+', 0o600);
      // A process that can read the file can lock it. A file of another user keeps its mode.
      await handle.chmod(0o600).catch(() => undefined);
    } catch (error) {
      throw fsError('open the lock file', path, error);
    }
    try {
      if (tryOwn(handle.fd)) return new FileLock(handle, path);
    } catch (error) {
      await handle.close();
      throw fsError('lock', path, error);
    }
    await handle.close();
    throw unavailable(`${owned} is in use by ${lockHolder(path)}`, {
      object: owned,
      remedy: 'wait for it or stop it, or name another root directory',
    });
  }

  get fd(): number {
    return this.#handle.fd;
  }

  /** Unavailable unless the file in the directory is still the one that is locked. */
  verify(directory: HeldDirectory, name: string): void {
    directory.verifyFile(name, this.#identity);
  }

  async release(): Promise<void> {
    await this.#handle.close();
  }
}
