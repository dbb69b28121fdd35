/**
 * One owner per directory: a lock on a file in it, held by the open file, so that the kernel releases it when the
 * process ends in whatever way. Called when a snapshotter is opened; excludes this process too.
 */

import { type FileHandle, open } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { unavailable } from '../errors.js';
import { type FileIdentity, identityOf } from '../system/file-identity.js';
import type { HeldDirectory } from '../system/held-directory.js';
import { lockHolder } from '../system/lock-holder.js';
import { fsError } from '../system/system-errors.js';

/** What is used of `fs-native-extensions`, which has no types of its own. */
interface LockModule {
  tryLock(fd: number): boolean;
  unlock(fd: number): void;
}

const isLockModule = (module: unknown): module is LockModule =>
  typeof module === 'object' && module !== null && 'tryLock' in module && 'unlock' in module;

function lockModule(): LockModule {
  const module: unknown = createRequire(import.meta.url)('fs-native-extensions');
  if (!isLockModule(module)) throw new Error('fs-native-extensions has no tryLock');
  return module;
}

export class FileLock {
  readonly #handle: FileHandle;
  readonly #identity: FileIdentity;
  readonly #module: LockModule;

  private constructor(handle: FileHandle, module: LockModule) {
    this.#handle = handle;
    this.#identity = identityOf(handle.fd);
    this.#module = module;
  }

  /** Makes the lock file when missing (0600). Unavailable at once when somebody holds it; `owned` names what. */
  static async acquire(path: string, owned: string): Promise<FileLock> {
    const module = lockModule();
    let handle: FileHandle;
    try {
      handle = await open(path, 'a+', 0o600);
      // Who can read a file can lock it. Whose it is not keeps what it has.
      await handle.chmod(0o600).catch(() => undefined);
    } catch (error) {
      throw fsError('open the lock file', path, error);
    }
    try {
      if (module.tryLock(handle.fd)) return new FileLock(handle, module);
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

  /** Unavailable unless the file in the directory is still the one that is locked. */
  verify(directory: HeldDirectory, name: string): void {
    directory.verifyFile(name, this.#identity);
  }

  async release(): Promise<void> {
    this.#module.unlock(this.#handle.fd);
    await this.#handle.close();
  }
}
