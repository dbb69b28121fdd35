/**
 * Copies a directory tree with everything a container can see of it: owner, mode, times, links, devices, extended
 * attributes. Called by the native snapshotter to build a child. Asynchronous and iterative: a deep tree costs no
 * stack, a big file no memory; on file systems that can, file contents are shared (reflinks) instead of copied.
 *
 * The source must not change meanwhile (it is a committed snapshot). A failed copy leaves a part behind for the
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
  symlink,
} from 'node:fs/promises';
import { EbbtideError } from '../errors.js';
import { errnoOf, messageOf } from '../system/system-errors.js';
import { BLOCK_BYTES } from './disk-usage.js';
import { eachLimit, entryName, SLASH } from './files.js';
import { diskError } from './fs-errors.js';
import type { BackendLog } from './log.js';
import { sys } from './sys.js';

const PARALLEL = 6;
const PIECE_BYTES = 128 * 1024;
const PERMISSIONS = 0o7777n;

/** Copies `source` (a directory) to `target`, which must not exist. */
export async function copyTree(source: string, target: string, log: BackendLog): Promise<void> {
  await new TreeCopy(log).run(Buffer.from(source), Buffer.from(target));
}

interface Entry {
  from: Buffer;
  to: Buffer;
  stats: BigIntStats;
}

class TreeCopy {
  readonly #log: BackendLog;
  /** First copy of each file that has several names, by device and inode. */
  readonly #linked = new Map<string, Promise<Buffer>>();
  readonly #directories: Entry[] = [];
  readonly #lostAttributes = new Set<string>();

  constructor(log: BackendLog) {
    this.#log = log;
  }

  async run(source: Buffer, target: Buffer): Promise<void> {
    await this.#copy(source, target);
    for (let next = 0; next < this.#directories.length; next++) {
      const { from, to } = this.#directories[next]!;
      const entries = await readdir(from, { encoding: 'buffer', withFileTypes: true });
      await eachLimit(entries, PARALLEL, (entry) => {
        const name = entryName(entry);
        return this.#copy(Buffer.concat([from, SLASH, name]), Buffer.concat([to, SLASH, name]));
      });
    }
    // Last, because making an entry changes its directory's times, and its mode may forbid making any.
    for (const directory of this.#directories.reverse()) await this.#dress(directory);
  }

  async #copy(from: Buffer, to: Buffer): Promise<void> {
    try {
      const entry = { from, to, stats: await lstat(from, { bigint: true }) };
      if (entry.stats.isDirectory()) {
        await mkdir(to, 0o700);
        this.#directories.push(entry);
      } else if (entry.stats.nlink > 1n) await this.#copyLinked(entry);
      else await this.#copyOne(entry);
    } catch (error) {
      if (error instanceof EbbtideError) throw error;
      throw diskError('copy', from.toString(), error);
    }
  }

  async #copyLinked(entry: Entry): Promise<void> {
    const inode = `${entry.stats.dev}:${entry.stats.ino}`;
    const first = this.#linked.get(inode);
    if (first !== undefined) return link(await first, entry.to);
    const copied = this.#copyOne(entry).then(() => entry.to);
    this.#linked.set(inode, copied);
    await copied;
  }

  async #copyOne(entry: Entry): Promise<void> {
    const { from, to, stats } = entry;
    if (stats.isFile()) await copyContents(entry);
    else if (stats.isSymbolicLink()) await symlink(await readlink(from, { encoding: 'buffer' }), to);
    else sys.mknod(to, Number(stats.mode), major(stats.rdev), minor(stats.rdev));
    await this.#dress(entry);
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
    this.#log('warn', `cannot copy extended attribute ${name} of ${from}`, { error: messageOf(error) });
  }
}

async function copyContents({ from, to, stats }: Entry): Promise<void> {
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
