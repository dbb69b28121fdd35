/**
 * An image archive as one stream: an OCI layout in a tar, or the output of `docker save`, either one
 * compressed or not. Read once, front to back; everything that may be a blob is kept as it arrives
 * (archive-files.ts), because what refers to it may come last. Nothing of the archive is ever written
 * anywhere but into the content store.
 */
import { ChunkReader } from '../backends/archive/chunks.js';
import { decompress } from '../backends/archive/compression/compression.js';
import { type ArchiveLimits, Budget, withDefaults } from '../backends/archive/limits.js';
import { showPath, splitEntryName } from '../backends/archive/paths.js';
import { readTar, type TarEntry } from '../backends/archive/tar/tar-reader.js';
import { invalidArgument, throwIfAborted, wrap } from '../errors.js';
import { ArchiveFiles, wholeBody } from './archive-files.js';
import { dockerEntries, indexOf } from './docker-archive.js';
import { MAX_DOCUMENT_BYTES } from './documents.js';
import { checkLayoutFile, parseLayoutIndex } from './layout.js';
import { refusal } from './other-forms.js';
import type { ImageServices, LeasedContext, OnProgress } from './services.js';
import { DOCKER_FILE, type ImageSource, INDEX_FILE, LAYOUT_FILE } from './source.js';

export interface ReadArchiveOptions {
  /** The archive's name in messages. */
  name: string;
  limits?: Partial<ArchiveLimits> | undefined;
  progress?: OnProgress | undefined;
  /** Whether layers that `docker save` did not compress are; default not. */
  compress?: boolean | undefined;
}

const documentNames: ReadonlySet<string> = new Set([LAYOUT_FILE, INDEX_FILE, DOCKER_FILE]);

/** InvalidArgument: not an archive of images, or a damaged or hostile one. */
export async function readArchive(
  services: ImageServices,
  ctx: LeasedContext,
  stream: AsyncIterable<Uint8Array>,
  options: ReadArchiveOptions,
): Promise<ImageSource> {
  const { name, limits, progress, compress } = options;
  const files = new ArchiveFiles(services, ctx, progress);
  const documents = await readEntries(files, stream, {
    name,
    limits: withDefaults(limits),
    signal: ctx.signal,
  });
  // Programs that pack a tree with hard links store the later names as links.
  const document = async (path: string): Promise<Buffer | undefined> =>
    documents.get(path) ?? (await files.read(path, MAX_DOCUMENT_BYTES));
  const layout = await document(LAYOUT_FILE);
  if (layout !== undefined) {
    checkLayoutFile(layout, name);
    const index = await document(INDEX_FILE);
    if (index === undefined)
      throw refusal(name, [], `${name} is not an image archive: it has ${LAYOUT_FILE} but no ${INDEX_FILE}`);
    return {
      index: parseLayoutIndex(index, `${INDEX_FILE} of ${name}`),
      document: index,
      open: (digest) => openLinked(files, digest),
    };
  }
  const docker = await document(DOCKER_FILE);
  if (docker === undefined) {
    const names = [...documents.keys(), ...files.names()];
    throw refusal(
      name,
      names,
      `${name} is not an image archive: it has neither ${LAYOUT_FILE} nor ${DOCKER_FILE}`,
    );
  }
  const manifests = await dockerEntries(services, ctx, docker, files, { compress });
  return {
    index: { manifests, unusable: new Map() },
    document: indexOf(manifests),
    open: async () => undefined,
  };
}

/** Blobs are already in the store, except those that are links to small files of other names. */
async function openLinked(files: ArchiveFiles, digest: string): Promise<undefined> {
  const path = `blobs/${digest.replace(':', '/')}`;
  const stored = await files.find(path, 'blob');
  if (stored === undefined || stored.digest === digest) return;
  throw invalidArgument(`archive entry "${path}" is not what its digest promises`, { object: digest });
}

interface ReadOptions {
  name: string;
  limits: ArchiveLimits;
  signal: AbortSignal | undefined;
}

/** Reads the archive to its end; returns the documents that list its contents. */
async function readEntries(
  files: ArchiveFiles,
  stream: AsyncIterable<Uint8Array>,
  { name, limits, signal }: ReadOptions,
): Promise<Map<string, Buffer>> {
  const documents = new Map<string, Buffer>();
  const budget = new Budget(limits);
  const { chunks } = await decompress(stream, { limits, name, signal });
  const reader = new ChunkReader(chunks);
  try {
    for await (const entry of readTar(reader)) {
      throwIfAborted(signal);
      budget.path(entry.name);
      budget.path(entry.linkname);
      budget.take(showPath(entry.name), entry.size);
      const path = splitEntryName(entry.name).join('/');
      if (entry.type === 'symlink' || entry.type === 'link') files.addLink(path, entry);
      else if (entry.type !== 'file') continue;
      else if (documentNames.has(path)) documents.set(path, await readDocumentEntry(entry));
      else await files.addFile(path, entry);
    }
  } catch (error) {
    throw wrap(`cannot import ${name}`, error, { object: name });
  } finally {
    await reader.close();
  }
  return documents;
}

function readDocumentEntry(entry: TarEntry): Promise<Buffer> {
  if (entry.size <= MAX_DOCUMENT_BYTES && entry.segments === undefined) return wholeBody(entry);
  throw invalidArgument(
    `archive entry "${showPath(entry.name)}" is ${entry.segments ? 'a sparse file' : `larger than ${MAX_DOCUMENT_BYTES} bytes`}`,
  );
}
