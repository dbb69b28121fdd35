/**
 * Exports images as an OCI layout, into a directory or a tar: the original blobs, verified again while they
 * are copied; an index.json that names the images so that an import gives them the same names; and the
 * manifest.json of `docker load`. The layout is closed: an index with missing manifests is rewritten without
 * them. The same images always give the same bytes. The output appears under its name only when it is
 * complete.
 *
 * Runs under the context's lease or one of its own, where one can be made. Called by the CLI and embedders.
 */
import { resolve } from 'node:path';
import { Readable } from 'node:stream';
import { chunksOf } from '../backends/content/chunks-of.js';
import type { CallContext } from '../context.js';
import { type EbbtideError, invalidArgument, notFound, throwIfAborted, unknownError } from '../errors.js';
import { Digester, parseDigest } from '../model/digest.js';
import { compareUtf8 } from '../model/utf8.js';
import { type Closure, type ClosureBlob, ClosureReader } from './closure.js';
import { keepWhileRead } from './content.js';
import type { Descriptor, Platform } from './documents.js';
import { Annotation, MediaType } from './media-types.js';
import { dockerTagOf, refNameOf } from './names.js';
import { type LayoutWriter, type Output, openOutput } from './output.js';
import { resolveManifest } from './resolve.js';
import {
  type ImageServices,
  type LeasedContext,
  type OnProgress,
  type Progress,
  readUnderLease,
} from './services.js';
import { DOCKER_FILE, INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION } from './source.js';

/** What of the images is exported. */
export interface ExportOptions {
  /** NotFound unless all blobs of all platforms exist. Default: every complete platform, at least one. */
  allPlatforms?: boolean | undefined;
  /** Only the manifest that matches this platform best. */
  platform?: Platform | undefined;
  /** Only the manifests for exactly these platforms, in an index with them alone. */
  platforms?: readonly Platform[] | undefined;
  /** Whether layers that may not be distributed are exported; default: where they are here. */
  nonDistributable?: boolean | undefined;
  /** Whether there is a manifest.json, for `docker load`; default: yes. */
  dockerManifest?: boolean | undefined;
  /** Called again and again, with what is done. */
  progress?: OnProgress | undefined;
}

/** What was exported. */
export interface Exported {
  /** Blobs written. */
  blobs: number;
  /** Bytes of the blobs. */
  bytes: number;
  /** The images, in the order of the names. */
  images: ExportedImage[];
}

/** An image that was exported. */
export interface ExportedImage {
  /** Its name. */
  name: string;
  /** The digest that the name refers to in the layout. */
  digest: string;
  /** The image's own target, if that is an index that had to be reduced. */
  reducedFrom?: string | undefined;
}

/**
 * Writes the images to `output`: a directory (new or empty), a tar if it ends in `.tar`, or a function that
 * receives the bytes of a tar. NotFound: no such image, or missing blobs (named). AlreadyExists: the output
 * exists.
 */
export async function exportImages(
  services: ImageServices,
  ctx: CallContext,
  names: readonly string[],
  output: Output,
  options: ExportOptions = {},
): Promise<Exported> {
  if (names.length === 0) throw invalidArgument('no image to export', { remedy: 'name at least one image' });
  const to = typeof output === 'string' ? resolve(output) : output;
  // Looked up first, because a lease would create a mistyped namespace.
  for (const name of names) await services.images.get(ctx, name);
  return readUnderLease(services, ctx, 'export', (leased) =>
    new Exporter(services, leased, options).run(names, to),
  );
}

/** An image to be written into the layout. */
interface Chosen {
  name: string;
  target: Descriptor;
  closure: Closure;
}

class Exporter {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #options: ExportOptions;

  constructor(services: ImageServices, ctx: LeasedContext, options: ExportOptions) {
    this.#services = services;
    this.#ctx = ctx;
    this.#options = options;
  }

  async run(names: readonly string[], output: Output): Promise<Exported> {
    const chosen: Chosen[] = [];
    for (const name of new Set(names)) chosen.push(await this.#choose(name));
    const writer = await openOutput(output);
    try {
      const exported = await this.#write(writer, chosen);
      await writer.finish();
      return exported;
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  }

  async #choose(name: string): Promise<Chosen> {
    const { platform, platforms, nonDistributable, allPlatforms } = this.#options;
    const { target } = await this.#services.images.get(this.#ctx, name);
    // The lease keeps the target with everything it refers to, should the image be deleted.
    await keepWhileRead(this.#services, this.#ctx, target.digest);
    const root =
      platform === undefined
        ? target
        : (await resolveManifest(this.#services.content, this.#ctx, target, platform)).descriptor;
    const reader = new ClosureReader(this.#services, this.#ctx, { platforms, nonDistributable });
    const closure = await reader.read(root);
    if (closure === undefined || (allPlatforms && reader.missing.size > 0))
      throw this.#incomplete(name, reader.missing);
    return { name, target, closure };
  }

  #incomplete(name: string, digests: ReadonlySet<string>): EbbtideError {
    const missing = [...digests].sort();
    const shown = `${missing.slice(0, 5).join(', ')}${missing.length > 5 ? ` and ${missing.length - 5} more` : ''}`;
    const what = missing.length > 0 ? `missing content: ${shown}` : 'it has no manifests';
    return notFound(`cannot export image "${name}": ${what}`, {
      object: name,
      remedy: this.#options.allPlatforms
        ? 'import the missing platforms, or export only those that are here'
        : 'import the image again, or name another platform',
    });
  }

  async #write(writer: LayoutWriter, chosen: readonly Chosen[]): Promise<Exported> {
    const byDigest = new Map<string, ClosureBlob>();
    for (const { closure } of chosen) for (const [digest, blob] of closure.blobs) byDigest.set(digest, blob);
    const blobs = [...byDigest.values()].sort((a, b) => compareUtf8(a.digest, b.digest));
    const all = { items: blobs.length, bytes: blobs.reduce((sum, { size }) => sum + size, 0) };
    let bytes = 0;
    for (const blob of blobs) bytes += await this.#writeBlob(writer, blob, all);
    const index = { schemaVersion: 2, mediaType: MediaType.ociIndex, manifests: chosen.map(indexEntry) };
    await writer.file(INDEX_FILE, Buffer.from(JSON.stringify(index)));
    const docker = this.#options.dockerManifest === false ? [] : dockerManifest(chosen);
    if (docker.length > 0) await writer.file(DOCKER_FILE, Buffer.from(JSON.stringify(docker)));
    await writer.file(LAYOUT_FILE, Buffer.from(JSON.stringify({ imageLayoutVersion: LAYOUT_VERSION })));
    return { blobs: blobs.length, bytes, images: chosen.map(exportedImage) };
  }

  async #writeBlob(
    writer: LayoutWriter,
    { digest, bytes }: ClosureBlob,
    all: Progress['all'],
  ): Promise<number> {
    const { progress } = this.#options;
    const { algorithm, hex } = parseDigest(digest);
    if (bytes !== undefined) {
      await writer.blob(algorithm, hex, bytes.length, Readable.from([bytes]));
      progress?.({ phase: 'export', name: digest, done: bytes.length, total: bytes.length, all });
      return bytes.length;
    }
    const reader = await this.#services.content.readerAt(this.#ctx, digest);
    const total = reader.size;
    const { signal } = this.#ctx;
    async function* checked(): AsyncGenerator<Uint8Array, void, void> {
      const digester = new Digester(algorithm);
      let done = 0;
      for await (const chunk of writer.borrows ? chunksOf(reader) : reader.stream()) {
        throwIfAborted(signal);
        digester.update(chunk);
        done += chunk.length;
        progress?.({ phase: 'export', name: digest, done, total, all });
        yield chunk;
      }
      if (digester.digest() !== digest) throw damaged(digest);
    }
    try {
      await writer.blob(algorithm, hex, total, checked());
    } finally {
      await reader.close();
    }
    return total;
  }
}

const damaged = (digest: string): EbbtideError =>
  unknownError(`content ${digest} is damaged: its bytes have another digest`, {
    object: digest,
    remedy: 'check the disk, delete the content and import the image again',
  });

function exportedImage({ name, target, closure }: Chosen): ExportedImage {
  const { digest } = closure.root;
  return { name, digest, ...(digest !== target.digest && { reducedFrom: target.digest }) };
}

/** Fields and annotations in a fixed order. */
function indexEntry({ name, target, closure }: Chosen) {
  const { mediaType, digest, size } = closure.root;
  const annotations = {
    ...target.annotations,
    [Annotation.imageName]: name,
    [Annotation.refName]: refNameOf(name),
  };
  const sorted = Object.entries(annotations).sort(([a], [b]) => compareUtf8(a, b));
  return { mediaType, digest, size, annotations: Object.fromEntries(sorted) };
}

/** Docker's list: one entry for each single-platform image, with all its names that Docker accepts. */
function dockerManifest(chosen: readonly Chosen[]) {
  const entries = new Map<string, { Config: string; RepoTags: string[]; Layers: string[] }>();
  const pathOf = ({ digest }: { digest: string }): string => `blobs/${digest.replace(':', '/')}`;
  for (const { name, closure } of chosen) {
    const [image, ...more] = closure.images;
    if (image === undefined || more.length > 0) continue;
    const [digest, { config, layers }] = image;
    const entry = entries.get(digest) ?? { Config: pathOf(config), RepoTags: [], Layers: layers.map(pathOf) };
    const tag = dockerTagOf(name);
    if (tag !== undefined && !entry.RepoTags.includes(tag)) entry.RepoTags.push(tag);
    entries.set(digest, entry);
  }
  return [...entries.values()];
}
