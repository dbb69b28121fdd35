/**
 * Creates small files of a layer, many at a time: each is added to a packed list with all its metadata, and a
 * list is processed in one native call (native/host/files.cc) on another thread, while the archive is read on.
 * Complete when `flush` resolves.
 *
 * Lists under way may finish in any order, so a name must not be in two of them; LayerTree flushes before it
 * looks up a name that was added here. Memory: a few lists of half a megabyte, which are used again.
 */
import { endianness } from 'node:os';
import { present } from '../../errors.js';
import { SpareBuffers } from '../../system/spare-buffers.js';
import { errorOf, makeFiles, makeFilesSupported } from '../sys.js';
import { type Place, placePath } from './beneath.js';
import { entryError } from './entries.js';
import { isForbidden, isOwnerSet, type Skipped, timesOf } from './metadata.js';
import { type BytePath, showPath } from './paths.js';
import type { TarEntry } from './tar/tar-reader.js';

/** Of the content, and of the attributes. Larger files are written separately. */
const LARGEST_BYTES = 64 * 1024;
const spare = new SpareBuffers(512 * 1024, 12);
const FILES_PER_LIST = 256;
const LISTS_UNDER_WAY = 3;

const NOTHING = Buffer.alloc(0);
const HEAD_BYTES = 56;
const OWNER_SKIPPED = 1 << 16;
const ATTRIBUTES_SKIPPED = 1 << 17;
const ERRNO = 0xffff;
const LITTLE = endianness() === 'LE';
const NANOS = 1_000_000_000n;

interface SmallFile {
  /** Name of the entry. */
  readonly name: BytePath;
  readonly place: Place;
}

interface List {
  readonly files: readonly SmallFile[];
  readonly buffer: Buffer;
  readonly outcomes: Promise<Uint32Array>;
}

export class SmallFiles {
  readonly #skipped: Skipped;
  readonly #underWay: List[] = [];
  #buffer: Buffer | undefined;
  #used = 0;
  #files: SmallFile[] = [];

  constructor(skipped: Skipped) {
    this.#skipped = skipped;
  }

  /** Whether the entry can be created here. */
  takes({ type, size, segments, xattrs }: TarEntry): boolean {
    if (!makeFilesSupported || type !== 'file' || segments !== undefined || size > LARGEST_BYTES)
      return false;
    let attributes = 0;
    for (const [key, value] of xattrs) attributes += key.length + value.length;
    return attributes <= LARGEST_BYTES;
  }

  /**
   * Adds a file with its content. REQUIRES: its directory exists and is writable, and nothing is at `place`.
   * Errors of earlier files are thrown here or by `flush`.
   */
  async add(place: Place, entry: TarEntry): Promise<void> {
    const slash = place.path.lastIndexOf('/');
    const directory = slash < 0 ? '.' : place.path.slice(0, slash);
    const name = place.path.slice(slash + 1);
    const attributes = packAttributes(entry, this.#skipped);
    const bytes = HEAD_BYTES + directory.length + name.length + attributes.length + entry.size;
    const buffer = await this.#roomFor(bytes);
    const start = this.#used;
    const at = start + HEAD_BYTES;
    const sizes = [directory.length, name.length, attributes.length, entry.size];
    writeHead(new DataView(buffer.buffer, buffer.byteOffset + start), sizes, entry, this.#skipped);
    buffer.write(directory, at, 'latin1');
    buffer.write(name, at + directory.length, 'latin1');
    attributes.copy(buffer, at + directory.length + name.length);
    let end = start + bytes - entry.size;
    for await (const chunk of entry.body()) end += chunk.copy(buffer, end);
    this.#used = end;
    this.#files.push({ name: entry.name, place });
    if (this.#files.length >= FILES_PER_LIST) await this.#send();
  }

  /** Resolves when all files exist. */
  async flush(): Promise<void> {
    await this.#send();
    while (this.#underWay.length > 0) await this.#finishOne();
  }

  /** As `flush`, without errors: nothing may be under way when the tree is closed. */
  async end(): Promise<void> {
    this.#files = [];
    this.#used = 0;
    const lists = this.#underWay.splice(0);
    await Promise.allSettled(lists.map(({ outcomes }) => outcomes));
    for (const { buffer } of lists) spare.giveBack(buffer);
    if (this.#buffer !== undefined) spare.giveBack(this.#buffer);
    this.#buffer = undefined;
  }

  /** The list, with room for this many more bytes, which are no more than it has; a full one is sent. */
  async #roomFor(bytes: number): Promise<Buffer> {
    if (this.#used + bytes > spare.bytes) await this.#send();
    this.#buffer ??= spare.take();
    return this.#buffer;
  }

  /** Sends the current list. */
  async #send(): Promise<void> {
    const [first] = this.#files;
    if (first === undefined) return;
    const buffer = present(this.#buffer, 'the list of its files');
    const outcomes = makeFiles(first.place.root.fd, buffer.subarray(0, this.#used));
    // Reported to the caller that awaits the list; until then an error must not be an unhandled rejection.
    outcomes.catch(() => undefined);
    this.#underWay.push({ files: this.#files, buffer, outcomes });
    this.#buffer = undefined;
    this.#files = [];
    this.#used = 0;
    while (this.#underWay.length >= LISTS_UNDER_WAY) await this.#finishOne();
  }

  async #finishOne(): Promise<void> {
    const list = this.#underWay.shift();
    if (list === undefined) return;
    const { files, buffer, outcomes } = list;
    const made = await outcomes;
    spare.giveBack(buffer);
    for (const [i, { name, place }] of files.entries()) {
      const outcome = present(made[i], `the outcome of ${name}`);
      const errno = outcome & ERRNO;
      if (outcome & OWNER_SKIPPED) this.#skipped.owners++;
      if (outcome & ATTRIBUTES_SKIPPED) this.#skipped.xattrs++;
      if (errno !== 0) throw entryError(name, errorOf(errno, 'make', showPath(placePath(place))));
    }
  }
}

/** As `Head` in native/host/files.cc. `sizes`: bytes of directory, name, attributes, content. */
function writeHead(head: DataView, sizes: readonly number[], entry: TarEntry, skipped: Skipped): void {
  const { atime, mtime } = timesOf(entry);
  const numbers = [...sizes, entry.mode, isOwnerSet(entry, skipped) ? 1 : 0, entry.uid, entry.gid];
  for (const [i, value] of numbers.entries()) head.setUint32(i * 4, value, LITTLE);
  head.setBigInt64(32, atime / NANOS, LITTLE);
  head.setBigInt64(40, mtime / NANOS, LITTLE);
  head.setUint32(48, Number(atime % NANOS), LITTLE);
  head.setUint32(52, Number(mtime % NANOS), LITTLE);
}

/** For each attribute that a layer may set: length of the name and of the value, name, value. */
function packAttributes({ xattrs }: TarEntry, skipped: Skipped): Buffer {
  if (xattrs.size === 0) return NOTHING;
  const parts: Uint8Array[] = [];
  for (const [key, value] of xattrs) {
    const name = Buffer.from(key);
    if (isForbidden(key)) skipped.xattrs++;
    else parts.push(new Uint8Array(Uint32Array.of(name.length, value.length).buffer), name, value);
  }
  return Buffer.concat(parts);
}
