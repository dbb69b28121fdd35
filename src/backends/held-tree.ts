/**
 * A directory tree that others may change while it is read, a container with a mount for one. Its directories are opened step by step
 * from the top, never through a symlink, and calls go to one name in an open directory: whatever is put in the place of a
 * directory meanwhile, nothing outside the tree is reached. Called by what measures and copies snapshots; archive/beneath.ts
 * is the same for layers.
 */
import { closeSync, openSync } from 'node:fs';
import { descriptorPath, forgetDescriptor, nameDescriptor, shown } from '../held-paths.js';
import { errnoOf } from '../system/system-errors.js';
import { SLASH } from './files.js';
import { DIRECTORY_ONLY, openBeneath } from './sys.js';

const TOP = Buffer.from('.');

/** What became of a directory between two looks at it: gone, or something else is in its place. */
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
   * Calls `fn` with what the names in a directory are to be put behind; good until `fn` has ended. Errors show names.
   * @param directory names below the top, with slashes between them; empty: the top
   */
  async inside<T>(directory: Buffer, fn: (prefix: Buffer) => Promise<T> | T): Promise<T> {
    const fd = openBeneath(this.#fd, directory.length === 0 ? TOP : directory, DIRECTORY_ONLY);
    nameDescriptor(fd, below(this.#name, directory).toString());
    try {
      return await fn(Buffer.from(`${descriptorPath(fd)}/`));
    } catch (error) {
      // The number may soon be that of another directory.
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
