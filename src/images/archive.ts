/**
 * An image archive as one stream: an OCI layout in a tar, or what `docker save` writes, either one compressed or
 * not. Read once, front to back; blobs go into the content store as they come, because what names them may come
 * last. Nothing of the archive is ever written anywhere else.
 */
import { ChunkReader } from '../backends/archive/chunks.js';
import { decompress } from '../backends/archive/compression.js';
import { type ArchiveLimits, Budget, withDefaults } from '../backends/archive/limits.js';
import { showPath, splitEntryName } from '../backends/archive/paths.js';
import { readTar, type TarEntry } from '../backends/archive/tar-reader.js';
import { invalidArgument, throwIfAborted, wrap } from '../errors.js';
import { isDigest } from '../model/digest.js';
import { ingestRef, type Taken, takeBlob } from './content.js';
import { dockerEntries } from './docker-archive.js';
import { MAX_DOCUMENT_BYTES } from './documents.js';
import { checkLayoutFile, parseLayoutIndex } from './layout.js';
import type { ImageServices, LeasedContext, OnProgress } from './services.js';
import { type ImageSource, INDEX_FILE, LAYOUT_FILE } from './source.js';

export interface ReadArchiveOptions {
  /** What messages call the archive. */
  name: string;
  limits?: Partial<ArchiveLimits> | undefined;
  progress?: OnProgress | undefined;
}

/** Docker's list of images in an archive. */
const DOCKER_FILE = 'manifest.json';
/** Files of an archive that are not blobs by name but may be layers or configs of `docker save`. */
const LOOSE_BLOB = /\.(?:json|tar|tar\.gz|tgz|tar\.zst)$|(?:^|\/)[0-9a-f]{64}$/;
/** Docker's old metadata; nothing refers to it. */
const LEGACY_FILE = /(?:^|\/)(?:repositories|VERSION|json)$/;
const MAX_LINKS = 100_000;

/** What was found on the way through. */
export interface Contents {
  documents: Map<string, Buffer>;
  /** Blobs by their path in the archive. */
  blobs: Map<string, Taken>;
  /** Links by their path, to where they point. */
  links: Map<string, string>;
}

/** InvalidArgument: not an archive of images, or a damaged or hostile one. */
export async function readArchive(
  services: ImageServices,
  ctx: LeasedContext,
  stream: AsyncIterable<Uint8Array>,
  options: ReadArchiveOptions,
): Promise<ImageSource> {
  const contents = await new ArchiveReader(services, ctx, options).read(stream);
  const { documents } = contents;
  const layout = documents.get(LAYOUT_FILE);
  if (layout !== undefined) {
    checkLayoutFile(layout, options.name);
    const index = documents.get(INDEX_FILE);
    if (index === undefined) throw unrecognized(options.name, `it has ${LAYOUT_FILE} but no ${INDEX_FILE}`);
    return source(parseLayoutIndex(index, `${INDEX_FILE} of ${options.name}`));
  }
  const docker = documents.get(DOCKER_FILE);
  if (docker === undefined)
    throw unrecognized(options.name, `it has neither ${LAYOUT_FILE} nor ${DOCKER_FILE}`);
  return source(await dockerEntries(services, ctx, docker, contents));
}

/** Everything the archive has is in the store by now. */
const source = (entries: ImageSource['entries']): ImageSource => ({ entries, open: async () => undefined });

const unrecognized = (name: string, why: string) =>
  invalidArgument(`${name} is no image archive: ${why}`, {
    object: name,
    remedy: 'give an OCI layout (directory or tar) or a docker save tar',
  });

class ArchiveReader {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #options: ReadArchiveOptions;
  readonly #contents: Contents = { documents: new Map(), blobs: new Map(), links: new Map() };
  #loose = 0;

  constructor(services: ImageServices, ctx: LeasedContext, options: ReadArchiveOptions) {
    this.#services = services;
    this.#ctx = ctx;
    this.#options = options;
  }

  async read(stream: AsyncIterable<Uint8Array>): Promise<Contents> {
    const { name } = this.#options;
    const limits = withDefaults(this.#options.limits);
    const budget = new Budget(limits);
    const { chunks } = await decompress(stream, { limits, name, signal: this.#ctx.signal });
    const reader = new ChunkReader(chunks);
    try {
      for await (const entry of readTar(reader)) {
        throwIfAborted(this.#ctx.signal);
        budget.path(entry.name);
        budget.take(showPath(entry.name), entry.size);
        await this.#entry(entry);
      }
    } catch (error) {
      throw wrap(`cannot import ${name}`, error, { object: name });
    } finally {
      await reader.close();
    }
    return this.#contents;
  }

  async #entry(entry: TarEntry): Promise<void> {
    const path = splitEntryName(entry.name).join('/');
    const { documents, links } = this.#contents;
    if (entry.type === 'symlink' || entry.type === 'link') {
      if (links.size >= MAX_LINKS) throw invalidArgument('archive has too many links');
      // Docker's symlinks count from their own directory, tar's hard links from the root.
      const from = entry.type === 'symlink' ? path.slice(0, path.lastIndexOf('/') + 1) : '';
      links.set(path, splitEntryName(from + entry.linkname, 'link').join('/'));
    } else if (entry.type !== 'file' || LEGACY_FILE.test(path)) return;
    else if (path === LAYOUT_FILE || path === INDEX_FILE || path === DOCKER_FILE) {
      documents.set(path, await readWhole(entry));
    } else await this.#blob(path, entry);
  }

  async #blob(path: string, entry: TarEntry): Promise<void> {
    const [first, algorithm, hex, ...more] = path.split('/');
    const digest = first === 'blobs' && more.length === 0 ? `${algorithm}:${hex}` : '';
    const known = isDigest(digest);
    if (!known && !LOOSE_BLOB.test(path)) return;
    if (entry.segments !== undefined)
      throw invalidArgument(`archive entry "${path}" is a sparse file, not a blob`);
    const { progress } = this.#options;
    const taken = await takeBlob(this.#services, this.#ctx, {
      // Loose files are called `layer.tar` in every archive, so their ref must be this import's own.
      ref: known ? ingestRef(digest) : `import-${this.#ctx.lease}-${this.#loose++}`,
      descriptor: { ...(known && { digest }), size: entry.size },
      source: entry.body(),
      name: `archive entry "${path}"`,
      progress: progress && ((done) => progress({ phase: 'import', name: path, done, total: entry.size })),
    });
    if (taken.size !== entry.size)
      throw invalidArgument(`archive entry "${path}" has a wrong size`, { object: path });
    this.#contents.blobs.set(path, taken);
  }
}

async function readWhole(entry: TarEntry): Promise<Buffer> {
  if (entry.size > MAX_DOCUMENT_BYTES) {
    throw invalidArgument(
      `archive entry "${showPath(entry.name)}" is larger than ${MAX_DOCUMENT_BYTES} bytes`,
    );
  }
  const parts: Buffer[] = [];
  for await (const part of entry.body()) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}
