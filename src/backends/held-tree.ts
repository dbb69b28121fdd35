/**
 * A directory tree that others, such as a container with a mount, may change while it is read. Its
 * directories are opened step by step from the top, never through a symlink, and calls use one name in an
 * open directory: whatever replaces a directory, nothing outside the tree is reached. Called by code that
 * measures and copies snapshots; archive/beneath.ts does the same for layers.
 */
import { closeSync, openSync } from 'node:fs';
import { descriptorPath, forgetDescriptor, nameDescriptor, shown } from '../held-paths.js';
import { errnoOf } from '../system/system-errors.js';
import { SLASH } from './files.js';
import { DIRECTORY_ONLY, openBeneath } from './sys.js';

const TOP = Buffer.from('.');

/** A directory disappeared or was replaced since it was last seen. */
export const isReplaced = (error: unknown): boolean =>
  ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errnoOf(error) ?? '');

export class HeldTree {
  readonly #fd: number;
  /** For messages. */
  readonly #name: Buffer;

  /** @param path a directory */
  constructor(path: Buffer) {
    this.#fd = openSync(path, DIRECTORY_ONLY);
    this.#name = Buffer.from(shown(path.toString()));
  }

  /**
   * Calls `fn` with a prefix for the names in a directory; valid until `fn` has ended. Errors show names.
   * @param directory names below the top, with slashes between them; empty: the top
   */
  async inside<T>(directory: Buffer, fn: (prefix: Buffer) => Promise<T> | T): Promise<T> {
    const fd = openBeneath(this.#fd, directory.length === 0 ? TOP : directory, DIRECTORY_ONLY);
    nameDescriptor(fd, below(this.#name, directory).toString());
    try {
      return await fn(Buffer.from(`${descriptorPath(fd)}/`));
    } catch (error) {
      // The descriptor's number may soon belong to another directory.
      if (error instanceof Error) error.message = shown(error.message);
      throw error;
    } finally {
      forgetDescriptor(fd);
      closeSync(fd);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** A name in a directory, which may be empty. */
export const below = (directory: Buffer, name: Buffer): Buffer => {
  if (directory.length === 0) return name;
  return name.length === 0 ? directory : Buffer.concat([directory, SLASH, name]);
};
