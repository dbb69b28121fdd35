/**
 * Imports images: an OCI layout (directory or tar) or a `docker save` tar, detected by content. Blobs are
 * checked against their digests and kept together by containerd's reference labels; images appear only once
 * everything they need is there. Runs under the context's lease or one of its own, so a collection may run at
 * the same time.
 *
 * After an interruption a second attempt resumes. Called by the CLI and embedders.
 */

import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { ArchiveLimits } from '../backends/archive/limits.js';
import type { CallContext } from '../context.js';
import { type EbbtideError, invalidArgument, isAlreadyExists, isNotFound, orAborted } from '../errors.js';
import { digestOf } from '../model/digest.js';
import type { StringMap } from '../model/records.js';
import type { Image } from '../stores/images.js';
import { fsError } from '../system/system-errors.js';
import { readArchive } from './archive.js';
import { addBlobLabels, ingestRef, writeBlob } from './content.js';
import { checkCount, type Descriptor, MAX_IMAGES } from './documents.js';
import { Importer, MAX_LISTED } from './importer.js';
import { openLayout } from './layout.js';
import { childLabels, MediaType } from './media-types.js';
import { importName } from './names.js';
import { type ImageServices, type LeasedContext, type OnProgress, underLease } from './services.js';
import { type ImageSource, INDEX_FILE } from './source.js';

/** How images are imported. */
export interface ImportOptions {
  /**
   * Name for images of which the source has only the tag; images with a full name are left out unless they
   * belong to it. Default `import-<date>`, and nothing is left out.
   */
  baseName?: string | undefined;
  /** The names for an entry, instead of one by `baseName`; an entry without any is left out. */
  names?: ((annotations: StringMap, digest: string) => readonly string[]) | undefined;
  /** Names for the source's whole index, as an image of its own; its entries need none then. */
  indexNames?: ((digest: string) => readonly string[]) | undefined;
  /** Whether layers that `docker save` did not compress are; default not. */
  compress?: boolean | undefined;
  /** Labels for the images. */
  labels?: StringMap | undefined;
  /**
   * Also imports manifests that are not images: charts, signatures, attestations and other artifacts.
   * Default: they are left out if the source lists them beside images; an image's own index keeps them in any
   * case.
   */
  artifacts?: boolean | undefined;
  /** Called once, before the images are created, with the entries that were left out. */
  leftOut?: ((entries: readonly LeftOut[]) => void) | undefined;
  /** Awaited when everything is here, before the images are created, with their targets. */
  complete?: ((ctx: CallContext, targets: readonly Image['target'][]) => Promise<void>) | undefined;
  /** Limits of archives; defaults for those left out. */
  limits?: Partial<ArchiveLimits> | undefined;
  /** Called again and again, with what is done. */
  progress?: OnProgress | undefined;
}

/** Characters of an invalid digest that a message shows. */
const MAX_SHOWN = 140;

/** An entry of the source that is not an image, or cannot be used. */
export interface LeftOut {
  /** As in the source; '' if there is none. */
  digest: string;
  /** The media type that is not known. */
  mediaType: string;
  /** Continues "it …". */
  why: string;
}

/**
 * Imports the images in `from` (a path, or an archive as a stream). Returns the images created or updated, in
 * the source's order. InvalidArgument: no images, damaged, or hostile. NotFound: an image without a complete
 * platform. What a failed import leaves is removed by a collection.
 */
export function importImage(
  services: ImageServices,
  ctx: CallContext,
  from: string | AsyncIterable<Uint8Array>,
  options: ImportOptions = {},
): Promise<Image[]> {
  // Resolved now: the process may change its directory before a blob is opened.
  const source = typeof from === 'string' ? resolve(from) : from;
  return underLease(services, ctx, 'import', async (leased) => {
    const images = await open(services, leased, source, options);
    const { manifests, unusable } = images.index;
    checkCount(manifests.length, nameOf(source), MAX_IMAGES);
    const importer = new Importer(services, leased, images, options);
    const wanted = new Map<string, Descriptor>();
    const indexNames = options.indexNames?.(digestOf(images.document)) ?? [];
    const leftOut: LeftOut[] = [...unusable.values()].map(({ digest, mediaType, error }) => ({
      digest: digest.slice(0, MAX_SHOWN),
      mediaType,
      why: `cannot be used: ${error.message}`,
    }));
    for (const entry of manifests) {
      const names = namesOf(entry, options);
      if (names.length === 0 && indexNames.length === 0) continue;
      const why = await importer.add(entry);
      if (why !== undefined) leftOut.push({ digest: entry.digest, mediaType: entry.mediaType, why });
      else for (const name of names) wanted.set(name, entry);
      checkCount(wanted.size, nameOf(source), MAX_IMAGES);
    }
    if (indexNames.length > 0) {
      const index = await storeIndex(services, leased, images);
      for (const name of indexNames) wanted.set(name, index);
    }
    if (wanted.size === 0) {
      const [damaged] = unusable.values();
      throw damaged?.error ?? nothingToImport(source, options, leftOut);
    }
    if (leftOut.length > 0) options.leftOut?.(leftOut);
    await options.complete?.(leased, [...wanted.values()].map(targetOf));
    const made: Image[] = [];
    for (const [name, target] of wanted)
      made.push(await putImage(services, leased, name, target, options.labels));
    return made;
  });
}

/** The index as a blob, which keeps its entries. */
async function storeIndex(
  services: ImageServices,
  ctx: LeasedContext,
  { document, index }: ImageSource,
): Promise<Descriptor> {
  const descriptor = { mediaType: MediaType.ociIndex, digest: digestOf(document), size: document.length };
  const ref = ingestRef(descriptor.digest);
  await writeBlob(services, ctx, { ref, descriptor, source: document, name: INDEX_FILE });
  await addBlobLabels(services, ctx, descriptor.digest, childLabels(index.manifests));
  return descriptor;
}

function namesOf({ annotations, digest }: Descriptor, options: ImportOptions): readonly string[] {
  if (options.names !== undefined) return options.names(annotations ?? {}, digest);
  const name = importName(annotations, digest, options);
  return name === undefined ? [] : [name];
}

function nothingToImport(
  source: string | AsyncIterable<Uint8Array>,
  { baseName, names }: ImportOptions,
  leftOut: readonly LeftOut[],
): EbbtideError {
  const object = nameOf(source);
  if (leftOut.length > 0) {
    return invalidArgument(`${object} has no image: ${leftOutText(leftOut)}`, {
      object,
      remedy: 'give a source with images, or import manifests of other kinds as artifacts (--artifacts)',
    });
  }
  if (names !== undefined) {
    return invalidArgument(`${object} has no image that gets a name`, {
      object,
      remedy: 'give a source with images whose names belong to the one that was asked for',
    });
  }
  return invalidArgument(
    `${object} has no image${baseName === undefined ? '' : ` that belongs to "${baseName}"`}`,
    {
      object,
      remedy:
        baseName === undefined
          ? 'give a source with images'
          : 'leave the base name (--base-name) out to import all',
    },
  );
}

/** For people: "entry sha256:… is a chart; and 3 more". */
export function leftOutText(leftOut: readonly LeftOut[]): string {
  const shown = leftOut
    .slice(0, MAX_LISTED)
    .map(({ digest, why }) => `entry ${digest || 'without a digest'} ${why}`);
  if (leftOut.length > MAX_LISTED) shown.push(`and ${leftOut.length - MAX_LISTED} more`);
  return shown.join('; ');
}

const nameOf = (source: string | AsyncIterable<Uint8Array>): string =>
  typeof source === 'string' ? source : 'the archive';

async function open(
  services: ImageServices,
  ctx: LeasedContext,
  source: string | AsyncIterable<Uint8Array>,
  { limits, progress, compress }: ImportOptions,
): Promise<ImageSource> {
  const archive = { name: nameOf(source), limits, progress, compress };
  if (typeof source !== 'string')
    return readArchive(services, ctx, untilAborted(source, ctx.signal), archive);
  const stats = await stat(source).catch((error: unknown) => {
    throw fsError('import', source, error);
  });
  if (stats.isDirectory()) return openLayout(source);
  return readArchive(services, ctx, untilAborted(fileBytes(source), ctx.signal), archive);
}

/** An aborted signal ends it also while the source makes it wait, as a pipe may for ever. */
async function* untilAborted(
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, void> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await orAborted(iterator.next(), signal);
      if (done === true) return;
      yield value;
    }
  } finally {
    const ended = iterator.return?.();
    // Not before its next bytes arrive.
    if (signal?.aborted) ended?.catch(() => undefined);
    else await ended;
  }
}

async function* fileBytes(path: string): AsyncGenerator<Uint8Array, void, void> {
  const stream = createReadStream(path, { highWaterMark: 2 ** 20 });
  try {
    for await (const chunk of stream) yield chunk;
  } catch (error) {
    throw fsError('read', path, error);
  } finally {
    stream.destroy();
  }
}

const targetOf = ({ mediaType, digest, size, annotations = {} }: Descriptor): Image['target'] => ({
  ...{ mediaType, digest, size, annotations },
});

/** Creates the image or sets its target. */
async function putImage(
  services: ImageServices,
  ctx: LeasedContext,
  name: string,
  entry: Descriptor,
  labels: StringMap | undefined,
): Promise<Image> {
  const image = { name, target: targetOf(entry), ...(labels && { labels }) };
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
