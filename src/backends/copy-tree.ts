/**
 * Copies a directory tree with everything a container can see of it: owner, mode, times, links, devices, extended
 * attributes. Called by the native snapshotter to build a child, and by backups. Asynchronous and iterative: a deep tree costs
 * no stack, a big file no memory; on file systems that can, file contents are shared (reflinks) instead of copied.
 *
 * The source must not change meanwhile (it is a committed snapshot), unless the copy is told that it does: then what vanishes
 * is left out, and since who changes it is a container, which may put a symlink where a directory or a file was, everything
 * is opened below the tree without following one. A failed copy leaves a part behind for the caller to remove.
 */
import { type BigIntStats, closeSync, constants, openSync } from 'node:fs';
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
import { descriptorPath, forgetDescriptor, nameDescriptor, shown } from '../held-paths.js';
import { errnoOf, messageOf } from '../system/system-errors.js';
import { BLOCK_BYTES } from './disk-usage.js';
import { eachLimit, entryName, SLASH } from './files.js';
import { diskError } from './fs-errors.js';
import { NO_LINK } from './link-errors.js';
import type { BackendLog } from './log.js';
import { DIRECTORY_ONLY, openBeneath, sys } from './sys.js';

const PARALLEL = 6;
const PIECE_BYTES = 128 * 1024;
const PERMISSIONS = 0o7777n;

/** Failures that say that an entry has gone, or is another one, since it was looked at. */
const CHANGED: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'EISDIR', 'ESTALE']);

export interface TreeCopyOptions {
  log: BackendLog;
  /** Files get another name on the same file system instead of a copy, where they can. */
  links?: boolean;
  /** Others write to the source meanwhile. */
  changes?: boolean;
  signal?: AbortSignal | undefined;
}

export interface TreeCopyReport {
  /** Files, and whatever else is no directory. */
  files: number;
  /** Bytes of files that were copied (or share their blocks), and files that got another name instead. */
  copiedBytes: number;
  linkedFiles: number;
}

/** Copies `source` (a directory) to `target`, which must not exist. */
export async function copyTree(
  source: string,
  target: string,
  options: TreeCopyOptions,
): Promise<TreeCopyReport> {
  const root = options.changes ? openSync(source, DIRECTORY_ONLY | constants.O_NOFOLLOW) : undefined;
  if (root !== undefined) nameDescriptor(root, shown(source));
  try {
    return await new TreeCopy(options, root).run(Buffer.from(source), Buffer.from(target));
  } finally {
    if (root !== undefined) close(root);
  }
}

function close(fd: number): void {
  forgetDescriptor(fd);
  closeSync(fd);
}

interface Entry {
  from: Buffer;
  to: Buffer;
  /** Path below the source; empty for the source itself. */
  below: Buffer;
  stats: BigIntStats;
}

class TreeCopy {
  readonly #options: TreeCopyOptions;
  /** For messages. */
  #source = '';
  /** Of a source that changes. */
  readonly #root: number | undefined;
  readonly #report: TreeCopyReport = { files: 0, copiedBytes: 0, linkedFiles: 0 };
  /** First copy of each file that has several names, by device and inode. */
  readonly #linked = new Map<string, Promise<Buffer>>();
  readonly #directories: Entry[] = [];
  readonly #lostAttributes = new Set<string>();

  constructor(options: TreeCopyOptions, root: number | undefined) {
    this.#options = options;
    this.#root = root;
  }

  async run(source: Buffer, target: Buffer): Promise<TreeCopyReport> {
    this.#source = shown(source.toString());
    await this.#copy(source, target, Buffer.alloc(0));
    for (let next = 0; next < this.#directories.length; next++) {
      throwIfAborted(this.#options.signal);
      const directory = this.#directories[next]!;
      await this.#within(directory, (from) => this.#copyEntries(from, directory));
    }
    // Last, because making an entry changes its directory's times, and its mode may forbid making any.
    for (const directory of this.#directories.reverse()) {
      await this.#within(directory, (from) => this.#dress({ ...directory, from }));
    }
    return this.#report;
  }

  /** Runs `work` with a path that leads to the directory, whatever its names lead to by now. */
  async #within(directory: Entry, work: (from: Buffer) => Promise<void>): Promise<void> {
    const root = this.#root;
    if (root === undefined) return work(directory.from);
    const { below } = directory;
    let fd: number | undefined;
    try {
      fd = below.length === 0 ? undefined : openBeneath(root, below, DIRECTORY_ONLY);
      if (fd !== undefined) nameDescriptor(fd, `${this.#source}/${below}`);
      // The path alone would be a link.
      await work(Buffer.from(`${descriptorPath(fd ?? root)}/.`));
    } catch (error) {
      this.#passOver(error);
    } finally {
      if (fd !== undefined) close(fd);
    }
  }

  async #copyEntries(from: Buffer, { to, below }: Entry): Promise<void> {
    const entries = await readdir(from, { encoding: 'buffer', withFileTypes: true });
    await eachLimit(entries, PARALLEL, (entry) => {
      const name = entryName(entry);
      const path = below.length === 0 ? name : Buffer.concat([below, SLASH, name]);
      return this.#copy(Buffer.concat([from, SLASH, name]), Buffer.concat([to, SLASH, name]), path);
    });
  }

  async #copy(from: Buffer, to: Buffer, below: Buffer): Promise<void> {
    try {
      const entry = { from, to, below, stats: await lstat(from, { bigint: true }) };
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
      if (this.#root !== undefined && CHANGED.has(errnoOf(error) ?? '')) {
        await rm(to, { force: true });
        return;
      }
      if (error instanceof EbbtideError) throw error;
      throw diskError('copy', from.toString(), error);
    }
  }

  /** Throws unless an entry of a source that changes has gone. */
  #passOver(error: unknown): void {
    const cause = error instanceof EbbtideError ? error.cause : error;
    if (this.#root === undefined || !CHANGED.has(errnoOf(cause) ?? '')) throw error;
  }

  /** False: it cannot have another name there, or no more of them. */
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
    const first = this.#linked.get(inode);
    // Its first name may have gone before it was copied.
    const there = await first?.catch(() => undefined);
    if (there !== undefined) return link(there, entry.to);
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
    if (stats.isFile()) await this.#copyFile(entry);
    else if (stats.isSymbolicLink()) await symlink(await readlink(from, { encoding: 'buffer' }), to);
    else sys.mknod(to, Number(stats.mode), major(stats.rdev), minor(stats.rdev));
    await this.#dress(entry);
  }

  async #copyFile(entry: Entry): Promise<void> {
    this.#report.copiedBytes += Number(entry.stats.size);
    if (this.#root === undefined) return copyContents(entry);
    const handle = await open(entry.from, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stats = await handle.stat({ bigint: true });
      if (!stats.isFile()) throw Object.assign(new Error('it is no file any more'), { code: 'ENXIO' });
      nameDescriptor(handle.fd, `${this.#source}/${entry.below}`);
      await copyContents({ ...entry, stats, from: Buffer.from(descriptorPath(handle.fd)) });
    } finally {
      forgetDescriptor(handle.fd);
      await handle.close();
    }
  }

  /** Owner first, since changing it clears bits of the mode and capabilities; times last. */
  async #dress({ from, to, stats }: Entry): Promise<void> {
    await this.#own(to, stats);
    if (!stats.isSymbolicLink()) await chmod(to, Number(stats.mode & PERMISSIONS));
    this.#copyAttributes(from, to);
    sys.utimes(to, stats.atimeNs, stats.mtimeNs);
  }

  async #own(to: Buffer, stats: BigIntStats): Promise<void> {
    try {
      await lchown(to, Number(stats.uid), Number(stats.gid));
    } catch (error) {
      // An ordinary user cannot give files away; what he copies is his.
      if (errnoOf(error) !== 'EPERM' || process.geteuid?.() === 0) throw error;
    }
  }

  #copyAttributes(from: Buffer, to: Buffer): void {
    if (!sys.xattrSupported) return;
    let names: string[];
    try {
      names = sys.llistxattr(from);
    } catch (error) {
      this.#lost('*', from, error);
      return;
    }
    for (const name of names) {
      try {
        const value = sys.lgetxattr(from, name);
        if (value !== undefined) sys.lsetxattr(to, name, value);
      } catch (error) {
        this.#lost(name, from, error);
      }
    }
  }

  /** Said once for each attribute name, not for each file. */
  #lost(name: string, from: Buffer, error: unknown): void {
    if (this.#lostAttributes.has(name)) return;
    this.#lostAttributes.add(name);
    this.#options.log('warn', `cannot copy extended attribute ${name} of ${from}`, {
      error: messageOf(error),
    });
  }
}

async function copyContents({ from, to, stats }: Omit<Entry, 'below'>): Promise<void> {
  if (stats.blocks * BigInt(BLOCK_BYTES) >= stats.size) {
    return copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  }
  try {
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
  } catch (error) {
    if (!['ENOTSUP', 'EOPNOTSUPP', 'ENOTTY', 'EINVAL', 'EXDEV', 'ENOSYS'].includes(errnoOf(error) ?? ''))
      throw error;
    await copySparse(from, to);
  }
}

/** An ordinary copy would fill the holes of a sparse file. */
async function copySparse(from: Buffer, to: Buffer): Promise<void> {
  let source: FileHandle | undefined;
  let target: FileHandle | undefined;
  try {
    source = await open(from, 'r');
    target = await open(to, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o600);
    const piece = Buffer.allocUnsafe(PIECE_BYTES);
    const zeros = Buffer.alloc(PIECE_BYTES);
    let position = 0;
    for (;;) {
      const { bytesRead } = await source.read(piece, 0, PIECE_BYTES, position);
      if (bytesRead === 0) break;
      const bytes = piece.subarray(0, bytesRead);
      if (!bytes.equals(zeros.subarray(0, bytesRead))) await writeAll(target, bytes, position);
      position += bytesRead;
    }
    await target.truncate(position);
  } finally {
    await source?.close();
    await target?.close();
  }
}

async function writeAll(target: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await target.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

/** Linux splits device numbers 12/20 bits, in the order of its stat call. */
export const major = (device: bigint): number =>
  Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n));
export const minor = (device: bigint): number => Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n));
