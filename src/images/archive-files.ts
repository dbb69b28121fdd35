/**
 * Regular files and links of an image archive, kept until the archive's list of images says which of them are
 * configs and layers: names are arbitrary (`sha256:<hex>`, `<hex>.tar.gz`, `<id>/layer.tar`) and the list may
 * come last. Large files are written to the content store as they arrive, small ones stay in memory. Used by
 * archive.ts and docker-archive.ts.
 */
import { showPath, splitEntryName, toBytePath } from '../backends/archive/paths.js';
import type { TarEntry } from '../backends/archive/tar/tar-reader.js';
import { invalidArgument } from '../errors.js';
import { isDigest } from '../model/digest.js';
import { readBlob } from '../stores/content/content-helpers.js';
import { ingestRef, type StoredBlob, writeBlob } from './content.js';
import type { ImageServices, LeasedContext, OnProgress } from './services.js';

/** Limit on the files and links of one archive. */
const MAX_FILES = 100_000;
/** Limit on the bytes of their names and link targets in total. */
const MAX_NAME_BYTES = 32 * 2 ** 20;
/** Files up to this size stay in memory, up to `MAX_SMALL_BYTES` in total. */
const SMALL_BYTES = 64 * 1024;
const MAX_SMALL_BYTES = 32 * 2 ** 20;
const MAX_LINK_HOPS = 16;

interface Link {
  /** Directory that the target is relative to; '' for the archive's root. */
  from: string;
  target: string;
}

type Kept = StoredBlob | Buffer | Link | 'sparse';

export class ArchiveFiles {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #progress: OnProgress | undefined;
  /** By path; of several files with one path the last counts, as in tar. */
  readonly #files = new Map<string, Kept>();
  #nameBytes = 0;
  #smallBytes = 0;
  #anonymous = 0;

  constructor(services: ImageServices, ctx: LeasedContext, progress: OnProgress | undefined) {
    this.#services = services;
    this.#ctx = ctx;
    this.#progress = progress;
  }

  /** Paths of all files and links. */
  names(): Iterable<string> {
    return this.#files.keys();
  }

  addLink(path: string, entry: TarEntry): void {
    // Symlinks are relative to their own directory, hard links to the root.
    const from = entry.type === 'symlink' ? path.slice(0, path.lastIndexOf('/') + 1) : '';
    this.#keep(path, { from, target: entry.linkname });
  }

  async addFile(path: string, entry: TarEntry): Promise<void> {
    if (entry.segments !== undefined) return this.#keep(path, 'sparse');
    const digest = digestOfPath(path);
    if (digest !== undefined)
      return this.#keep(path, await this.#take(path, entry.size, entry.body(), digest));
    if (entry.size > SMALL_BYTES || this.#smallBytes + entry.size > MAX_SMALL_BYTES)
      return this.#keep(path, await this.#take(path, entry.size, entry.body()));
    this.#smallBytes += entry.size;
    this.#keep(path, await wholeBody(entry));
  }

  /**
   * The blob of the file at a path, following links; undefined when the archive has no such file. Nothing on
   * the disk is read. InvalidArgument: the path or a link leads out of the archive, or the file is sparse.
   */
  async find(path: string, what: string): Promise<StoredBlob | undefined> {
    let at = splitEntryName(toBytePath(path), what).join('/');
    for (let hops = 0; hops < MAX_LINK_HOPS; hops++) {
      const kept = this.#files.get(at);
      if (kept === undefined) return undefined;
      if (kept === 'sparse')
        throw invalidArgument(`archive entry "${showPath(at)}" is a sparse file, not a ${what}`);
      if (Buffer.isBuffer(kept)) {
        const stored = await this.#take(at, kept.length, kept);
        this.#files.set(at, stored);
        return stored;
      }
      if (!('target' in kept)) return kept;
      at = splitEntryName(kept.from + kept.target, 'link').join('/');
    }
    return undefined;
  }

  /** The bytes of the file at a path; undefined as in `find`. InvalidArgument also when it is larger than `max` bytes. */
  async read(path: string, max: number): Promise<Buffer | undefined> {
    const found = await this.find(path, 'document');
    if (found === undefined) return undefined;
    if (found.size > max)
      throw invalidArgument(`archive entry "${showPath(path)}" is larger than ${max} bytes`);
    return readBlob(this.#services.content, this.#ctx, { digest: found.digest });
  }

  #keep(path: string, kept: Kept): void {
    this.#nameBytes += path.length + (typeof kept === 'object' && 'target' in kept ? kept.target.length : 0);
    this.#files.set(path, kept);
    if (this.#files.size > MAX_FILES) throw tooMany(`more than ${MAX_FILES} files`);
    if (this.#nameBytes > MAX_NAME_BYTES) throw tooMany(`more than ${MAX_NAME_BYTES} bytes of names`);
  }

  async #take(
    path: string,
    size: number,
    source: Buffer | AsyncIterable<Uint8Array>,
    digest?: string,
  ): Promise<StoredBlob> {
    const progress = this.#progress;
    const stored = await writeBlob(this.#services, this.#ctx, {
      // Every archive calls files `layer.tar`, so the ref of a file without a digest must be unique to this
      // import.
      ref: digest === undefined ? `import-${this.#ctx.lease}-${this.#anonymous++}` : ingestRef(digest),
      descriptor: { ...(digest !== undefined && { digest }), size },
      source,
      name: `archive entry "${showPath(path)}"`,
      progress:
        progress && ((done) => progress({ phase: 'import', name: showPath(path), done, total: size })),
    });
    if (stored.size === size) return stored;
    throw invalidArgument(`archive entry "${showPath(path)}" has a wrong size`, { object: showPath(path) });
  }
}

const tooMany = (what: string) =>
  invalidArgument(`the archive has ${what}`, { remedy: 'import its images from several archives' });

/** The digest in a layout's path. */
function digestOfPath(path: string): string | undefined {
  const [first, algorithm, hex, ...more] = path.split('/');
  const digest = `${algorithm}:${hex}`;
  return first === 'blobs' && more.length === 0 && isDigest(digest) ? digest : undefined;
}

/** REQUIRES: the caller has checked the entry's size. */
export async function wholeBody(entry: TarEntry): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of entry.body()) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}
