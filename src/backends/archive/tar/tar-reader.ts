/**
 * Reads a tar archive as a stream of entries: ustar, pax, GNU (long names, sparse files in all four forms),
 * base-256 numbers. Written for this package because the bytes of names and of extended attributes must be
 * preserved (`security.capability` is binary). Constant memory: an entry's content is read in chunks as they
 * arrive.
 *
 * Called by apply (layers) and images (archives). One entry at a time; advancing skips what was not read.
 */
import { type EbbtideError, invalidArgument } from '../../../errors.js';
import type { ChunkReader } from '../chunks.js';
import { type BytePath, showPath } from '../paths.js';
import {
  BLOCK,
  decodeHeader,
  decodePax,
  isZero,
  malformed,
  paxNumber,
  paxOwner,
  paxTime,
  type RawHeader,
  TypeFlag,
} from './tar-header.js';
import { gnuSparseMap, paxSparseMap, type Segment, type SparseFile } from './tar-sparse.js';

export type EntryType = 'file' | 'link' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo';

export interface TarEntry {
  readonly name: BytePath;
  /** `unknown`: labels, volumes, dumps of GNU tar, access lists of Solaris; `typeflag` has the type byte. */
  readonly type: EntryType | 'unknown';
  readonly typeflag: string;
  /** Permission bits with set-id and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Size of the extracted file, including holes; 0 for everything but files. */
  readonly size: number;
  /** Nanoseconds since 1970. */
  readonly mtime: bigint;
  readonly atime: bigint | undefined;
  readonly linkname: BytePath;
  readonly major: number;
  readonly minor: number;
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** The segments of a sparse file; undefined means that the content is the whole file. */
  readonly segments: readonly Segment[] | undefined;
  /** The content, segments back to back. Chunks are views that are valid until the next one is requested. */
  body(): AsyncIterable<Buffer>;
}

/** Limit on the names and pax headers of one entry in total. */
const MAX_META_BYTES = 2 ** 20;
const XATTR_PREFIX = 'SCHILY.xattr.';

const types: Readonly<Record<string, EntryType>> = {
  [TypeFlag.file]: 'file',
  [TypeFlag.oldFile]: 'file',
  [TypeFlag.contiguous]: 'file',
  [TypeFlag.gnuSparse]: 'file',
  [TypeFlag.link]: 'link',
  [TypeFlag.symlink]: 'symlink',
  [TypeFlag.char]: 'char',
  [TypeFlag.block]: 'block',
  [TypeFlag.directory]: 'directory',
  [TypeFlag.fifo]: 'fifo',
};

/**
 * Entries of the archive in order. Ends at the end-of-archive mark or at the end of the stream: an archive
 * without the last padding, or without the mark, lacks no content.
 */
export async function* readTar(source: ChunkReader): AsyncGenerator<TarEntry, void, void> {
  const meta = new EntryMeta();
  for (let first = true; ; first = false) {
    const header = await nextHeader(source, first);
    if (header === undefined) return meta.finishAll();
    if (await meta.take(header, source)) continue;
    const entry = await meta.finish(header, source);
    yield entry.entry;
    await entry.skipRest();
  }
}

async function nextHeader(source: ChunkReader, first: boolean): Promise<RawHeader | undefined> {
  const block = await source.exactly(BLOCK);
  if (isZero(block)) {
    if (isZero(await source.exactly(BLOCK))) return undefined;
    throw malformed('an entry follows the end mark');
  }
  try {
    if (block.length === BLOCK) return decodeHeader(block);
  } catch (error) {
    throw (first && foreignFormat(block)) || error;
  }
  throw (first && foreignFormat(block)) || malformed('it ends inside a header');
}

/** Archives and compressions that may be confused with a layer, by their first bytes. */
const foreign: readonly [string, string][] = [
  ['gzip', '\x1f\x8b'],
  ['zstd', '(\xb5/\xfd'],
  ['xz', '\xfd7zXZ\0'],
  ['bzip2', 'BZh'],
  ['lzma', ']\0\0'],
  ['lzip', 'LZIP'],
  ['lz4', '\x04"M\x18'],
  ['compress', '\x1f\x9d'],
  ['7-Zip', "7z\xbc\xaf'\x1c"],
  ['ZIP', 'PK\x03\x04'],
  ['squashfs', 'hsqs'],
  ['cpio', '07070'],
];

/** An error that names the format of bytes that are not a tar header. */
function foreignFormat(block: Buffer): EbbtideError | undefined {
  const start = block.toString('latin1', 0, 8);
  const format = foreign.find(([, magic]) => start.startsWith(magic))?.[0];
  if (format === undefined) return undefined;
  const isTwice = format === 'gzip' || format === 'zstd';
  const what = isTwice
    ? `compressed twice: the inner data is in the format ${format}, not a tar`
    : `in the format ${format}, not a tar, nor a tar in gzip or zstd`;
  return invalidArgument(`the archive is ${what}`, {
    object: format,
    remedy: 'convert it to tar, tar+gzip or tar+zstd',
  });
}

interface OpenEntry {
  entry: TarEntry;
  skipRest(): Promise<void>;
}

/** Long names and pax records before an entry. They apply to the next entry only. */
class EntryMeta {
  #pax = new Map<string, Buffer>();
  #longName: BytePath | undefined;
  #longLink: BytePath | undefined;
  #bytes = 0;

  /** Consumes a header that only describes the next entry; returns false when it is an entry itself. */
  async take(header: RawHeader, source: ChunkReader): Promise<boolean> {
    switch (header.typeflag) {
      case TypeFlag.pax:
        this.#pax = decodePax(await this.#content(header, source));
        return true;
      case TypeFlag.paxGlobal:
        // Global records describe the archive (git stores a commit there), not files; containerd ignores them
        // too.
        await this.#content(header, source);
        this.#bytes -= header.size;
        return true;
      case TypeFlag.gnuLongName:
        this.#longName = untilNul(await this.#content(header, source));
        return true;
      case TypeFlag.gnuLongLink:
        this.#longLink = untilNul(await this.#content(header, source));
        return true;
      default:
        return false;
    }
  }

  /** Called at the end of the archive. */
  finishAll(): void {
    if (this.#bytes > 0) throw malformed('it ends before the entry that its last records describe');
  }

  async finish(header: RawHeader, source: ChunkReader): Promise<OpenEntry> {
    const pax = this.#pax;
    let name = paxPath(pax.get('path')) ?? this.#longName ?? header.name;
    const linkname = paxPath(pax.get('linkpath')) ?? this.#longLink ?? header.linkname;
    this.#pax = new Map();
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#bytes = 0;

    const size = optional(pax, 'size', paxNumber) ?? header.size;
    const type = entryType(header.typeflag, name, size);
    const stored = type === 'file' || type === 'unknown' ? size : 0;
    const body = new Body(source, stored, name);
    let sparse: SparseFile | undefined;
    if (type === 'file') {
      sparse =
        header.typeflag === TypeFlag.gnuSparse
          ? await gnuSparseMap(header.block, source)
          : await paxSparseMap(pax, (size) => body.exactly(size));
      if (sparse !== undefined) {
        name = sparse.name ?? name;
        body.checkFits(sparse.segments);
      }
    }
    const entry: TarEntry = {
      name,
      type,
      typeflag: header.typeflag,
      mode: header.mode,
      uid: optional(pax, 'uid', paxOwner) ?? header.uid,
      gid: optional(pax, 'gid', paxOwner) ?? header.gid,
      size: sparse?.size ?? stored,
      mtime: optional(pax, 'mtime', paxTime) ?? header.mtime,
      atime: optional(pax, 'atime', paxTime),
      linkname,
      major: header.major,
      minor: header.minor,
      xattrs: xattrsOf(pax),
      segments: sparse?.segments,
      body: () => body.chunks(),
    };
    return { entry, skipRest: () => body.skipRest() };
  }

  async #content(header: RawHeader, source: ChunkReader): Promise<Buffer> {
    this.#bytes += header.size;
    if (this.#bytes > MAX_META_BYTES)
      throw malformed(`an entry's names and records exceed ${MAX_META_BYTES} bytes`);
    const padded = Math.ceil(header.size / BLOCK) * BLOCK;
    const data = await source.exactly(padded);
    if (data.length < padded) throw malformed('it ends inside a header');
    return data.subarray(0, header.size);
  }
}

/** The content of one entry: the rest of it and of its padding. */
class Body {
  readonly #source: ChunkReader;
  readonly #name: BytePath;
  #left: number;
  #padding: number;

  constructor(source: ChunkReader, size: number, name: BytePath) {
    this.#source = source;
    this.#name = name;
    this.#left = size;
    this.#padding = (BLOCK - (size % BLOCK)) % BLOCK;
  }

  checkFits(segments: readonly Segment[]): void {
    let sum = 0;
    for (const segment of segments) sum += segment.size;
    if (sum !== this.#left)
      throw malformed(`the sparse map of "${showPath(this.#name)}" does not fit its content`);
  }

  async *chunks(): AsyncGenerator<Buffer, void, void> {
    while (this.#left > 0) {
      const part = await this.#source.some(this.#left);
      if (part === undefined) throw this.#truncated();
      this.#left -= part.length;
      yield part;
    }
  }

  async exactly(size: number): Promise<Buffer> {
    if (size > this.#left) throw this.#truncated();
    const part = await this.#source.exactly(size);
    if (part.length < size) throw this.#truncated();
    this.#left -= size;
    return part;
  }

  async skipRest(): Promise<void> {
    const [left, padding] = [this.#left, this.#padding];
    this.#left = 0;
    this.#padding = 0;
    if ((await this.#source.skip(left + padding)) < left) throw this.#truncated();
  }

  #truncated() {
    return malformed(`it ends inside "${showPath(this.#name)}"`);
  }
}

/**
 * Old writers mark directories with a slash after the name instead of a type; an entry with content is a file
 * anyway.
 */
function entryType(typeflag: string, name: BytePath, size: number): TarEntry['type'] {
  const type = types[typeflag] ?? 'unknown';
  return type === 'file' && name.endsWith('/') && size === 0 ? 'directory' : type;
}

function untilNul(data: Buffer): BytePath {
  const end = data.indexOf(0);
  return data.toString('latin1', 0, end < 0 ? data.length : end);
}

/** An empty record cancels an earlier one, so it counts as absent. */
const paxPath = (value: Buffer | undefined): BytePath | undefined =>
  value === undefined || value.length === 0 ? undefined : value.toString('latin1');

function optional<T>(
  pax: ReadonlyMap<string, Buffer>,
  key: string,
  parse: (value: Buffer, field: string) => T,
): T | undefined {
  const value = pax.get(key);
  return value === undefined || value.length === 0 ? undefined : parse(value, key);
}

function xattrsOf(pax: ReadonlyMap<string, Buffer>): ReadonlyMap<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  for (const [key, value] of pax) {
    if (!key.startsWith(XATTR_PREFIX)) continue;
    // The file system would use the part before a NUL as the name.
    if (key.includes('\0')) throw malformed('an extended attribute has a NUL in its name');
    xattrs.set(key.slice(XATTR_PREFIX.length), value);
  }
  return xattrs;
}
