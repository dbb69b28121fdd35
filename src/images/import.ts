/**
 * Imports images: an OCI layout (directory or tar) or a `docker save` tar, told apart by what they hold. Blobs are
 * checked against their digests and kept together by containerd's reference labels; images appear only once all
 * they need is there. Runs under the context's lease or one of its own, so a collection may run meanwhile.
 *
 * A second attempt after an interrupted one goes on where that stopped. Called by the CLI and embedders.
 */

import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { ArchiveLimits } from '../backends/archive/limits.js';
import { fsError } from '../backends/fs-errors.js';
import type { CallContext } from '../context.js';
import { invalidArgument, isAlreadyExists, isNotFound, notFound, throwIfAborted } from '../errors.js';
import type { StringMap } from '../model/records.js';
import type { Image } from '../stores/images.js';
import { readArchive } from './archive.js';
import { addBlobLabels, holdBlob, ingestRef, takeBlob } from './content.js';
import { type Descriptor, parseIndex, parseManifest, readDocument } from './documents.js';
import { openLayout } from './layout.js';
import { childLabels, isIndexType, isManifestType, isNonDistributable } from './media-types.js';
import { importName } from './names.js';
import { isAttestation } from './platforms.js';
import { MAX_INDEX_DEPTH, tooDeep } from './resolve.js';
import { type ImageServices, type LeasedContext, type OnProgress, underLease } from './services.js';
import type { ImageSource } from './source.js';

export interface ImportOptions {
  /**
   * What images are called that the source names by a tag only; those it names in full are left out unless they
   * belong to it. Default `import-<date>`, and nothing is left out.
   */
  baseName?: string | undefined;
  /** Labels of the images. */
  labels?: StringMap | undefined;
  limits?: Partial<ArchiveLimits> | undefined;
  progress?: OnProgress | undefined;
}

/** Descriptors that one import looks at, at most. */
const MAX_DESCRIPTORS = 100_000;

/**
 * Imports what `from` holds (a path, or an archive as a stream) and answers the images made or updated, in the
 * source's order. InvalidArgument: no images, damaged, or hostile. NotFound: an image of which no platform is
 * complete. Nothing is left of a failed import but what a collection takes.
 */
export function importImage(
  services: ImageServices,
  ctx: CallContext,
  from: string | AsyncIterable<Uint8Array>,
  options: ImportOptions = {},
): Promise<Image[]> {
  // A path of now: the process may change its directory before a blob is opened.
  const source = typeof from === 'string' ? resolve(from) : from;
  return underLease(services, ctx, async (leased) => {
    const images = await open(services, leased, source, options);
    const importer = new Importer(services, leased, images, options);
    const wanted = new Map<string, Descriptor>();
    for (const entry of images.entries) {
      const name = importName(entry.annotations, entry.digest, options);
      if (name === undefined) continue;
      await importer.add(entry);
      wanted.set(name, entry);
    }
    if (wanted.size === 0) throw nothingToImport(source, options);
    const made: Image[] = [];
    for (const [name, target] of wanted)
      made.push(await putImage(services, leased, name, target, options.labels));
    return made;
  });
}

const nothingToImport = (source: string | AsyncIterable<Uint8Array>, { baseName }: ImportOptions) =>
  invalidArgument(
    `${nameOf(source)} has no image${baseName === undefined ? '' : ` that belongs to "${baseName}"`}`,
    {
      object: nameOf(source),
      remedy: baseName === undefined ? 'give a source with images' : 'leave the base name out to import all',
    },
  );

const nameOf = (source: string | AsyncIterable<Uint8Array>): string =>
  typeof source === 'string' ? source : 'the archive';

async function open(
  services: ImageServices,
  ctx: LeasedContext,
  source: string | AsyncIterable<Uint8Array>,
  { limits, progress }: ImportOptions,
): Promise<ImageSource> {
  const archive = { name: nameOf(source), limits, progress };
  if (typeof source !== 'string') return readArchive(services, ctx, source, archive);
  const stats = await stat(source).catch((error: unknown) => {
    throw fsError('import', source, error);
  });
  if (stats.isDirectory()) return openLayout(source);
  const stream = createReadStream(source, { highWaterMark: 2 ** 20 });
  try {
    return await readArchive(services, ctx, stream, archive);
  } finally {
    stream.destroy();
  }
}

/** Sets an image's target, whether the image is there or not. */
async function putImage(
  services: ImageServices,
  ctx: LeasedContext,
  name: string,
  entry: Descriptor,
  labels: StringMap | undefined,
): Promise<Image> {
  const { mediaType, digest, size, annotations = {} } = entry;
  const image = { name, target: { mediaType, digest, size, annotations }, ...(labels && { labels }) };
  const paths = labels === undefined ? ['target'] : ['target', 'labels'];
  try {
    return await services.images.update(ctx, image, ...paths);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  try {
    return await services.images.create(ctx, image);
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    return await services.images.update(ctx, image, ...paths);
  }
}

/** What came of a descriptor and all below it. */
interface Outcome {
  /** At least one manifest with everything it names is there. */
  complete: boolean;
  /** Digests that are nowhere. */
  missing: string[];
}

class Importer {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #source: ImageSource;
  readonly #progress: OnProgress | undefined;
  readonly #outcomes = new Map<string, Outcome>();
  readonly #sizes = new Map<string, number | undefined>();
  #descriptors = 0;

  constructor(services: ImageServices, ctx: LeasedContext, source: ImageSource, { progress }: ImportOptions) {
    this.#services = services;
    this.#ctx = ctx;
    this.#source = source;
    this.#progress = progress;
  }

  /** Takes in an entry with all it refers to. NotFound when no manifest of it is complete. */
  async add(entry: Descriptor): Promise<void> {
    if (!isIndexType(entry.mediaType) && !isManifestType(entry.mediaType)) {
      throw invalidArgument(`entry ${entry.digest} of type "${entry.mediaType}" is no image`, {
        object: entry.digest,
        remedy: 'only OCI and Docker schema 2 images can be imported',
      });
    }
    const { complete, missing } = await this.#visit(entry, 0);
    if (complete) return;
    throw notFound(
      `image ${entry.digest} is incomplete: ${listed(missing)} missing from the source and the store`,
      {
        object: entry.digest,
        remedy: 'import from a source that has all blobs of at least one platform',
      },
    );
  }

  async #visit(descriptor: Descriptor, depth: number): Promise<Outcome> {
    // One blob under two media types is looked at as either.
    const key = `${descriptor.digest} ${descriptor.mediaType}`;
    const known = this.#outcomes.get(key);
    if (known !== undefined) return this.#sameSize(descriptor, known);
    if (depth > MAX_INDEX_DEPTH) throw tooDeep(descriptor.digest);
    const outcome = !(await this.#take(descriptor))
      ? { complete: false, missing: [descriptor.digest] }
      : isIndexType(descriptor.mediaType)
        ? await this.#visitIndex(descriptor, depth)
        : isManifestType(descriptor.mediaType)
          ? await this.#visitManifest(descriptor)
          : { complete: true, missing: [] };
    this.#outcomes.set(key, outcome);
    return outcome;
  }

  async #sameSize(descriptor: Descriptor, outcome: Outcome): Promise<Outcome> {
    await this.#take(descriptor);
    return outcome;
  }

  async #visitIndex(descriptor: Descriptor, depth: number): Promise<Outcome> {
    const index = parseIndex(await this.#read(descriptor), descriptor.digest);
    const missing: string[] = [];
    let complete = false;
    for (const child of index.manifests) {
      const outcome = await this.#visit(child, depth + 1);
      missing.push(...outcome.missing.slice(0, MAX_LISTED + 1));
      // What only describes another manifest makes no image.
      complete ||= outcome.complete && !isAttestation(child);
    }
    await addBlobLabels(this.#services, this.#ctx, descriptor.digest, childLabels(index.manifests));
    return { complete, missing };
  }

  async #visitManifest(descriptor: Descriptor): Promise<Outcome> {
    const { config, layers } = parseManifest(await this.#read(descriptor), descriptor.digest);
    const missing: string[] = [];
    for (const child of [config, ...layers]) {
      if (!(await this.#take(child)) && !isNonDistributable(child.mediaType)) missing.push(child.digest);
    }
    await addBlobLabels(this.#services, this.#ctx, descriptor.digest, childLabels([config, ...layers]));
    return { complete: missing.length === 0, missing };
  }

  #read(descriptor: Descriptor) {
    return readDocument(this.#services.content, this.#ctx, descriptor);
  }

  /** Sees to it that the store has the blob and the lease holds it; false when it is nowhere. */
  async #take(descriptor: Descriptor): Promise<boolean> {
    throwIfAborted(this.#ctx.signal);
    const { digest } = descriptor;
    if (++this.#descriptors > MAX_DESCRIPTORS) {
      throw invalidArgument(`the images refer to more than ${MAX_DESCRIPTORS} blobs`, { object: digest });
    }
    if (!this.#sizes.has(digest)) this.#sizes.set(digest, await this.#bring(descriptor));
    const size = this.#sizes.get(digest);
    if (size !== undefined && size !== descriptor.size) {
      throw invalidArgument(`blob ${digest} has ${size} bytes, its descriptor says ${descriptor.size}`, {
        object: digest,
        remedy: 'the source is damaged or hostile: do not use it',
      });
    }
    return size !== undefined;
  }

  async #bring(descriptor: Descriptor): Promise<number | undefined> {
    const { digest, mediaType } = descriptor;
    const blob = await this.#source.open(digest);
    if (blob === undefined) return holdBlob(this.#services, this.#ctx, digest);
    const progress = this.#progress;
    try {
      progress?.({ phase: 'import', name: digest, done: 0, total: blob.size });
      const taken = await takeBlob(this.#services, this.#ctx, {
        ref: ingestRef(digest),
        descriptor: { digest, size: blob.size, mediaType },
        source: blob.source,
        name: `blob ${digest}`,
      });
      progress?.({ phase: 'import', name: digest, done: taken.size, total: blob.size });
      return taken.size;
    } finally {
      await blob.close();
    }
  }
}

const MAX_LISTED = 5;

function listed(digests: readonly string[]): string {
  const shown = [...new Set(digests)].slice(0, MAX_LISTED).join(', ');
  const more = new Set(digests).size - MAX_LISTED;
  return `${shown}${more > 0 ? ` and ${more} more` : ''}${digests.length === 1 ? ' is' : ' are'}`;
}
