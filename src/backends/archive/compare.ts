/**
 * A layer's archive compared with the directory that it was unpacked into: names, types, sizes of files, permission bits. Finds what an
 * unclean stop leaves (files of no bytes, files that are missing) without a record made before. Reads only; called by a check.
 */
import { createHash } from 'node:crypto';
import type { Stats } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { isAbsent } from '../../system/system-errors.js';
import { eachLimit } from '../files.js';
import { ChunkReader, tap } from './chunks.js';
import { decompress } from './compression/compression.js';
import { tooMuch, withDefaults } from './limits.js';
import { type BytePath, fsPath, joinPath, showPath, splitEntryName, toBytePath } from './paths.js';
import { type EntryType, readTar } from './tar/tar-reader.js';
import { whiteoutOf } from './whiteouts.js';

/** What an entry makes. */
interface Expected {
  type: Exclude<EntryType, 'link'>;
  /** Bytes; undefined where the archive does not say it: a hard link to a file of a layer below. */
  size: number | undefined;
  /** Permission bits; undefined for symbolic links, and for hard links as above. */
  mode: number | undefined;
}

export interface Difference {
  what: 'missing' | 'type' | 'size' | 'mode';
  path: string;
  expected: string;
  found: string;
}

export interface Comparison {
  /** Of the archive, uncompressed. */
  digest: string;
  /** Entries that were looked for. */
  entries: number;
  differences: Difference[];
}

export interface CompareOptions {
  /** Called with the compressed bytes read so far. */
  progress?: ((bytes: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

const LOOKS = 16;

/**
 * What `expected`, the digest of the uncompressed archive, is not, is compared with nothing. InvalidArgument for an archive
 * that is damaged or hostile.
 */
export async function compareLayer(
  directory: string,
  stream: AsyncIterable<Uint8Array>,
  expected: string,
  options: CompareOptions = {},
): Promise<Comparison> {
  const { digest, entries } = await readExpected(stream, options);
  if (digest !== expected) return { digest, entries: 0, differences: [] };
  const differences: Difference[] = [];
  const looker = new Looker(toBytePath(directory), entries);
  await eachLimit([...entries], LOOKS, async ([path, entry]) => {
    options.signal?.throwIfAborted();
    const found = await looker.compare(path, entry);
    if (found !== undefined) differences.push(found);
  });
  return { digest, entries: entries.size, differences };
}

async function readExpected(
  stream: AsyncIterable<Uint8Array>,
  { progress, signal }: CompareOptions,
): Promise<{ digest: string; entries: Map<BytePath, Expected> }> {
  const limits = withDefaults(undefined);
  const { chunks } = await decompress(stream, { limits, name: 'layer', signal, onRead: progress });
  const hash = createHash('sha256');
  const reader = new ChunkReader(tap(chunks, (chunk) => hash.update(chunk)));
  const entries = new Map<BytePath, Expected>();
  try {
    for await (const { name, type, size, mode, linkname } of readTar(reader)) {
      const parts = splitEntryName(name);
      if (type === 'unknown' || parts.length === 0 || whiteoutOf(parts, name).kind !== 'none') continue;
      if (entries.size >= limits.maxEntries)
        throw tooMuch(`has more than ${limits.maxEntries} entries`, 'layer', 'maxEntries');
      const path = parts.join('/');
      const before = entries.get(path);
      // What was in a directory that something else takes the place of.
      if (before?.type === 'directory' && type !== 'directory')
        for (const inner of entries.keys()) if (inner.startsWith(`${path}/`)) entries.delete(inner);
      entries.set(
        path,
        type === 'link' ? linked(entries.get(splitEntryName(linkname).join('/'))) : made(type, size, mode),
      );
    }
    // What follows the end mark belongs to the digest.
    await reader.drain();
  } finally {
    await reader.close();
  }
  return { digest: `sha256:${hash.digest('hex')}`, entries };
}

const made = (type: Expected['type'], size: number, mode: number): Expected => ({
  type,
  size: type === 'file' ? size : undefined,
  mode: type === 'symlink' ? undefined : mode & 0o7777,
});

const linked = (target: Expected | undefined): Expected =>
  target ?? { type: 'file', size: undefined, mode: undefined };

class Looker {
  readonly #root: BytePath;
  /** Whether a path is a directory and not a link: by what is in the way nothing is reached outside of the root. */
  readonly #directories = new Map<BytePath, Promise<'directory' | 'absent' | 'other'>>();

  readonly #entries: ReadonlyMap<BytePath, Expected>;

  constructor(root: BytePath, entries: ReadonlyMap<BytePath, Expected>) {
    this.#root = root;
    this.#entries = entries;
  }

  async compare(path: BytePath, { type, size, mode }: Expected): Promise<Difference | undefined> {
    const above = await this.#kindOf(parentOf(path));
    // One line for a directory that is missing and what was in it, and none for what is below a link.
    if (above === 'other' || (above === 'absent' && this.#isIn(parentOf(path)))) return undefined;
    const difference = (what: Difference['what'], expected: string, found: string): Difference => ({
      what,
      path: showPath(path),
      expected,
      found,
    });
    const stats = above === 'absent' ? undefined : await this.#look(path);
    if (stats === undefined) return difference('missing', type, 'nothing');
    const found = typeOf(stats);
    if (found !== type) return difference('type', type, found);
    if (size !== undefined && stats.size !== size)
      return difference('size', `${size} bytes`, `${stats.size} bytes`);
    const bits = stats.mode & 0o7777;
    if (mode !== undefined && bits !== mode) return difference('mode', octal(mode), octal(bits));
    return undefined;
  }

  /** Whether the archive has an entry of a directory, or of one above it. */
  #isIn(directory: BytePath): boolean {
    for (let path = directory; path !== ''; path = parentOf(path)) if (this.#entries.has(path)) return true;
    return false;
  }

  #kindOf(path: BytePath): Promise<'directory' | 'absent' | 'other'> {
    let known = this.#directories.get(path);
    if (known === undefined) {
      known = this.#directoryAt(path);
      this.#directories.set(path, known);
    }
    return known;
  }

  async #directoryAt(path: BytePath): Promise<'directory' | 'absent' | 'other'> {
    if (path !== '') {
      const above = await this.#kindOf(parentOf(path));
      if (above !== 'directory') return above;
    }
    const stats = await this.#look(path);
    if (stats === undefined) return 'absent';
    return stats.isDirectory() ? 'directory' : 'other';
  }

  async #look(path: BytePath): Promise<Stats | undefined> {
    try {
      return await lstat(fsPath(joinPath(this.#root, path)));
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw error;
    }
  }
}

const parentOf = (path: BytePath): BytePath => path.slice(0, Math.max(0, path.lastIndexOf('/')));
const octal = (mode: number): string => `mode ${mode.toString(8).padStart(4, '0')}`;

function typeOf(stats: Stats): string {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isFIFO()) return 'fifo';
  if (stats.isCharacterDevice()) return 'char';
  return stats.isBlockDevice() ? 'block' : 'socket';
}
