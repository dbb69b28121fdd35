/**
 * Copies a directory tree with everything a container can see of it: owner, mode, times, links, devices,
 * extended attributes. Called by the native snapshotter to build a child, and by backups. Asynchronous and
 * iterative: a deep tree costs no stack, a large file no memory; file contents are shared (reflinks) instead
 * of copied where the file system can.
 *
 * The source should not change during the copy (it is a committed snapshot). If a container with an old mount
 * changes it all the same, the copy has the state before or after and nothing from outside the source
 * (held-tree.ts), or fails; with `changes`, what disappears is left out. A failed copy leaves a part for the
 * caller to remove.
 */
import type { BigIntStats } from 'node:fs';
import { constants } from 'node:fs';
import {
  chmod,
  copyFile,
  type FileHandle,
  lchown,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  rm,
  symlink,
} from 'node:fs/promises';
import { EbbtideError, throwIfAborted } from '../errors.js';
import { descriptorPath, shown } from '../held-paths.js';
import { errnoOf, messageOf } from '../system/system-errors.js';
import { copyOpen, copyPieces } from './copy-file.js';
import { BLOCK_BYTES } from './disk-usage.js';
import { eachLimit, entryName } from './files.js';
import { diskError, NO_LINK } from './fs-errors.js';
import { below, HeldTree, isReplaced } from './held-tree.js';
import type { BackendLog } from './log.js';
import { sys } from './sys.js';

const PARALLEL = 6;
const PERMISSIONS = 0o7777n;

export interface TreeCopyOptions {
  log: BackendLog;
  /** Files are hard-linked instead of copied, where that is possible. */
  links?: boolean;
  /** Others write to the source during the copy. */
  changes?: boolean;
  signal?: AbortSignal | undefined;
}

export interface TreeCopyReport {
  /** Files, and everything else that is not a directory. */
  files: number;
  /** Bytes of files that were copied (or share their blocks), and the number of files that were linked. */
  copiedBytes: number;
  linkedFiles: number;
}

/** Copies `source` (a directory) to `target`, which must not exist. */
export async function copyTree(
  source: string,
  target: string,
  options: TreeCopyOptions,
): Promise<TreeCopyReport> {
  const path = Buffer.from(source);
  let held: HeldTree;
  try {
    held = new HeldTree(path);
  } catch (error) {
    throw diskError('copy', source, error);
  }
  try {
    return await new TreeCopy(path, held, options).run(Buffer.from(target));
  } finally {
    held.close();
  }
}

interface Entry {
  /** Below the source. */
  name: Buffer;
  /** The path to read it, while its directory is open. */
  from: Buffer;
  to: Buffer;
  stats: BigIntStats;
}

const TOP = Buffer.alloc(0);
const ITSELF = Buffer.from('.');

class TreeCopy {
  readonly #source: Buffer;
  readonly #tree: HeldTree;
  readonly #options: TreeCopyOptions;
  readonly #report: TreeCopyReport = { files: 0, copiedBytes: 0, linkedFiles: 0 };
  /** First copy of each file that has several names, by device and inode. */
  readonly #linked = new Map<string, Promise<Buffer>>();
  readonly #directories: Entry[] = [];
  readonly #lostAttributes = new Set<string>();

  constructor(source: Buffer, tree: HeldTree, options: TreeCopyOptions) {
    this.#source = source;
    this.#tree = tree;
    this.#options = options;
  }

  async run(target: Buffer): Promise<TreeCopyReport> {
    await this.#tree.inside(TOP, (prefix) => this.#copy(TOP, Buffer.concat([prefix, ITSELF]), target));
    // Those that are found on the way come at its end.
    for (const { name: directory, to } of this.#directories) {
      throwIfAborted(this.#options.signal);
      await this.#with(directory, async (prefix) => {
        const entries = await readdir(prefix, { encoding: 'buffer', withFileTypes: true });
        await eachLimit(entries, PARALLEL, (entry) => {
          const name = entryName(entry);
          return this.#copy(below(directory, name), Buffer.concat([prefix, name]), below(to, name));
        });
      });
    }
    // Last, because creating an entry changes its directory's times, and its mode may forbid creating any.
    for (const directory of this.#directories.reverse()) {
      await this.#with(directory.name, (prefix) =>
        this.#setAttributes({ ...directory, from: Buffer.concat([prefix, ITSELF]) }),
      );
    }
    return this.#report;
  }

  async #with(directory: Buffer, fn: (prefix: Buffer) => Promise<void>): Promise<void> {
    try {
      await this.#tree.inside(directory, fn);
    } catch (error) {
      if (!this.#mayVanish(error)) throw this.#failed(directory, error);
    }
  }

  #mayVanish(error: unknown): boolean {
    return this.#options.changes === true && isReplaced(error);
  }

  #failed(name: Buffer, error: unknown): EbbtideError {
    if (error instanceof EbbtideError) return error;
    return diskError('copy', shown(below(this.#source, name).toString()), error);
  }

  async #copy(name: Buffer, from: Buffer, to: Buffer): Promise<void> {
    try {
      const entry = { name, from, to, stats: await lstat(from, { bigint: true }) };
      if (entry.stats.isDirectory()) {
        await mkdir(to, 0o700);
        this.#directories.push(entry);
        return;
      }
      if (!(this.#options.links && (await this.#link(entry)))) {
        if (entry.stats.nlink > 1n) await this.#copyLinked(entry);
        else await this.#copyOne(entry);
      }
      this.#report.files++;
    } catch (error) {
      if (!this.#mayVanish(error)) throw this.#failed(name, error);
      await rm(to, { force: true });
    }
  }

  /** Returns false if it cannot be linked there, or has too many links. */
  async #link({ from, to }: Entry): Promise<boolean> {
    try {
      await link(from, to);
      this.#report.linkedFiles++;
      return true;
    } catch (error) {
      if (!NO_LINK.has(errnoOf(error) ?? '')) throw error;
      return false;
    }
  }

  async #copyLinked(entry: Entry): Promise<void> {
    const inode = `${entry.stats.dev}:${entry.stats.ino}`;
    // Its first name may have disappeared before it was copied.
    const first = await this.#linked.get(inode)?.catch(() => undefined);
    if (first !== undefined) return link(first, entry.to);
    const copied = this.#copyOne(entry).then(() => entry.to);
    this.#linked.set(inode, copied);
    try {
      await copied;
    } catch (error) {
      this.#linked.delete(inode);
      throw error;
    }
  }

  async #copyOne(entry: Entry): Promise<void> {
    const { from, to, stats } = entry;
    if (stats.isFile()) {
      await copyContents(entry);
      this.#report.copiedBytes += Number(stats.size);
    } else if (stats.isSymbolicLink()) await symlink(await readlink(from, { encoding: 'buffer' }), to);
    else sys.mknod(to, Number(stats.mode), major(stats.rdev), minor(stats.rdev));
    await this.#setAttributes(entry);
  }

  /** Owner first, since changing it clears bits of the mode and capabilities; times last. */
  async #setAttributes({ name, from, to, stats }: Entry): Promise<void> {
    await this.#own(to, stats);
    if (!stats.isSymbolicLink()) await chmod(to, Number(stats.mode & PERMISSIONS));
    this.#copyAttributes(from, to, name);
    sys.utimes(to, stats.atimeNs, stats.mtimeNs);
  }

  async #own(to: Buffer, stats: BigIntStats): Promise<void> {
    try {
      await lchown(to, Number(stats.uid), Number(stats.gid));
    } catch (error) {
      // An ordinary user cannot change owners; the copies belong to that user.
      if (errnoOf(error) !== 'EPERM' || process.geteuid?.() === 0) throw error;
    }
  }

  #copyAttributes(from: Buffer, to: Buffer, of: Buffer): void {
    let names: string[];
    try {
      names = sys.llistxattr(from);
    } catch (error) {
      // There are none on a file system that does not know any.
      if (errnoOf(error) !== 'ENOTSUP') this.#lost('*', of, error);
      return;
    }
    for (const name of names) {
      try {
        const value = sys.lgetxattr(from, name);
        if (value !== undefined) sys.lsetxattr(to, name, value);
      } catch (error) {
        this.#lost(name, of, error);
      }
    }
  }

  /** Logged once for each attribute name, not for each file. */
  #lost(name: string, of: Buffer, error: unknown): void {
    if (this.#lostAttributes.has(name)) return;
    this.#lostAttributes.add(name);
    const path = shown(below(this.#source, of).toString());
    this.#options.log('warn', `cannot copy extended attribute ${name} of ${path}`, {
      error: messageOf(error),
    });
  }
}

/** Copies the file that `stats` describes. A link in its place is not followed, and a pipe does not block. */
async function copyContents({ from, to, stats }: Entry): Promise<void> {
  const source = await open(from, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const { dev, ino } = await source.stat({ bigint: true });
    if (dev !== stats.dev || ino !== stats.ino) throw replaced();
    await copyFrom(source, to, stats);
  } finally {
    await source.close();
  }
}

/** As if the file no longer existed. */
const replaced = (): Error =>
  Object.assign(new Error('ENOENT: it was replaced while it was copied'), { code: 'ENOENT' });

async function copyFrom(source: FileHandle, to: Buffer, stats: BigIntStats): Promise<void> {
  if (stats.blocks * BigInt(BLOCK_BYTES) >= stats.size) {
    return copyOpen(source, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  }
  try {
    const from = descriptorPath(source.fd);
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
  } catch (error) {
    if (!['ENOTSUP', 'EOPNOTSUPP', 'ENOTTY', 'EINVAL', 'EXDEV', 'ENOSYS'].includes(errnoOf(error) ?? ''))
      throw error;
    await copyPieces(source, to);
  }
}

/** Linux splits device numbers 12/20 bits, in the order of its stat call. */
export const major = (device: bigint): number =>
  Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n));
export const minor = (device: bigint): number => Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n));
