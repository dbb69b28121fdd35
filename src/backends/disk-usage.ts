/**
 * Disk usage of a tree, as `du` counts: allocated blocks, including directories; a file with several names
 * counts once. Called by the snapshotters for the usage of a snapshot. The tree may be in use: what
 * disappears during the count is left out, and nothing outside it is counted (held-tree.ts).
 */
import { constants, type Stats } from 'node:fs';
import { lstat, open, readdir } from 'node:fs/promises';
import { endianness } from 'node:os';
import { errnoOf } from '../system/system-errors.js';
import type { Usage } from './contract.js';
import { eachLimit, entryName } from './files.js';
import { below, HeldTree, isReplaced } from './held-tree.js';
import { usageOf, usageOfSupported } from './sys.js';

const PARALLEL = 8;
export const BLOCK_BYTES = 512;
const TOP = Buffer.alloc(0);
const LITTLE = endianness() === 'LE';
/** Numbers before those of the files with several names, and of each of these. */
const HEAD_NUMBERS = 3;
const LINKED_NUMBERS = 3;
const IS_DIRECTORY = 'd'.charCodeAt(0);

/** What is noticed on the way. */
export interface Noticed {
  /** Called for each entry; makes the count slower. */
  see?: ((path: Buffer, stats: Stats) => void) | undefined;
  /** Files with content that have an extended attribute; without the addon there are none. */
  marked?: { attribute: string; found: (path: Buffer) => void } | undefined;
}

/** Inodes and bytes of the tree, including its top; zero when it does not exist. */
export async function diskUsage(tree: string, noticed: Noticed = {}): Promise<Usage> {
  const path = Buffer.from(tree);
  const count = new Count(path, noticed);
  const top = await orUnreachable(lstat(path));
  if (top === null) return count.usage;
  count.add(TOP, top);
  if (!top.isDirectory()) return count.usage;
  const held = await orUnreachable(Promise.resolve(path).then((at) => new HeldTree(at)));
  const isPacked = usageOfSupported && noticed.see === undefined;
  try {
    for (let next = count.directories.pop(); next !== undefined; next = count.directories.pop()) {
      const directory = next;
      await orUnreachable(
        held?.inside(directory, (prefix) =>
          isPacked ? count.packed(directory, prefix) : count.eachIn(directory, prefix),
        ),
      );
    }
  } finally {
    held?.close();
  }
  return count.usage;
}

class Count {
  readonly usage: Usage = { inodes: 0, size: 0 };
  /** That are counted, and what is in them is not. */
  readonly directories: Buffer[] = [];
  readonly #tree: Buffer;
  readonly #noticed: Noticed;
  /** Files with several names. */
  readonly #linked = new Set<string>();

  constructor(tree: Buffer, noticed: Noticed) {
    this.#tree = tree;
    this.#noticed = noticed;
  }

  /** `name`: below the tree. */
  add(name: Buffer, stats: Stats): void {
    this.#noticed.see?.(below(this.#tree, name), stats);
    if (stats.isDirectory()) this.directories.push(name);
    else if (stats.nlink > 1 && this.#isCounted(stats.dev, stats.ino)) return;
    this.usage.inodes++;
    this.usage.size += stats.blocks * BLOCK_BYTES;
  }

  #isCounted(device: number | bigint, inode: number | bigint): boolean {
    const before = this.#linked.size;
    return this.#linked.add(`${device}:${inode}`).size === before;
  }

  /** One by one. */
  async eachIn(directory: Buffer, prefix: Buffer): Promise<void> {
    const entries = await orUnreachable(readdir(prefix, { encoding: 'buffer', withFileTypes: true }));
    await eachLimit(entries ?? [], PARALLEL, async (entry) => {
      const name = entryName(entry);
      const stats = await orUnreachable(lstat(Buffer.concat([prefix, name])));
      if (stats !== null) this.add(below(directory, name), stats);
    });
  }

  /** Many in a call. */
  async packed(directory: Buffer, prefix: Buffer): Promise<void> {
    const handle = await open(prefix, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      for (;;) {
        const bytes = await usageOf(handle.fd, this.#noticed.marked?.attribute ?? '', prefix);
        if (bytes.length === 0) return;
        this.#unpack(directory, bytes);
      }
    } finally {
      await handle.close();
    }
  }

  /** As native/host/usage.cc packs it. */
  #unpack(directory: Buffer, bytes: Buffer): void {
    const number = (i: number): bigint =>
      LITTLE ? bytes.readBigUInt64LE(i * 8) : bytes.readBigUInt64BE(i * 8);
    this.usage.inodes += Number(number(0));
    this.usage.size += Number(number(1)) * BLOCK_BYTES;
    const namesAt = HEAD_NUMBERS + Number(number(2)) * LINKED_NUMBERS;
    for (let i = HEAD_NUMBERS; i < namesAt; i += LINKED_NUMBERS) {
      if (this.#isCounted(number(i), number(i + 1))) continue;
      this.usage.inodes++;
      this.usage.size += Number(number(i + 2)) * BLOCK_BYTES;
    }
    for (let at = namesAt * 8; at < bytes.length; ) {
      const end = bytes.indexOf(0, at);
      const name = below(directory, Buffer.from(bytes.subarray(at + 1, end)));
      if (bytes[at] === IS_DIRECTORY) this.directories.push(name);
      else this.#noticed.marked?.found(below(this.#tree, name));
      at = end + 1;
    }
  }
}

/**
 * `null` for what is gone, and for what is deeper than the limit of a path (a hostile tree must not block a
 * commit).
 */
async function orUnreachable<T>(work: Promise<T> | undefined): Promise<T | null> {
  try {
    return (await work) ?? null;
  } catch (error) {
    if (isReplaced(error) || errnoOf(error) === 'ENAMETOOLONG') return null;
    throw error;
  }
}
