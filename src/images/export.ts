/**
 * Exports images as an OCI layout, into a directory or a tar: blobs byte for byte, checked once more on their way,
 * and an index.json that names the images so that an import gives them the same names. The same images always give
 * the same bytes. What is written appears under its name only when it is whole.
 *
 * Runs under the context's lease or one of its own. Called by the CLI and embedders.
 */
import { resolve } from 'node:path';
import type { CallContext } from '../context.js';
import {
  type EbbtideError,
  invalidArgument,
  isNotFound,
  notFound,
  throwIfAborted,
  unknownError,
} from '../errors.js';
import { Digester, parseDigest } from '../model/digest.js';
import { compareUtf8 } from '../model/utf8.js';
import { holdBlob } from './content.js';
import { type Descriptor, type Platform, parseIndex, parseManifest, readDocument } from './documents.js';
import { Annotation, isIndexType, isManifestType, isNonDistributable, MediaType } from './media-types.js';
import { refNameOf } from './names.js';
import { type LayoutWriter, type Output, openOutput } from './output.js';
import { isAttestation, platformRank, platformText } from './platforms.js';
import { MAX_INDEX_DEPTH, tooDeep } from './resolve.js';
import { type ImageServices, type LeasedContext, type OnProgress, underLease } from './services.js';
import { INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION } from './source.js';

export interface ExportOptions {
  /** NotFound unless all blobs of all platforms are there. Default: every platform that is complete, at least one. */
  allPlatforms?: boolean | undefined;
  /** Only manifests for this platform. */
  platform?: Platform | undefined;
  progress?: OnProgress | undefined;
}

export interface Exported {
  blobs: number;
  /** Bytes of the blobs. */
  bytes: number;
}

/**
 * Writes the images to `output`: a directory (new or empty), a tar when it ends in `.tar`, or a function that takes
 * the bytes of a tar. NotFound: no such image, or blobs are missing (named). AlreadyExists: the output is there.
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
  return underLease(services, ctx, (leased) => new Exporter(services, leased, options).run(names, to));
}

class Exporter {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #options: ExportOptions;
  /** By digest. */
  readonly #blobs = new Map<string, Descriptor>();
  #missing = new Set<string>();

  constructor(services: ImageServices, ctx: LeasedContext, options: ExportOptions) {
    this.#services = services;
    this.#ctx = ctx;
    this.#options = options;
  }

  async run(names: readonly string[], output: Output): Promise<Exported> {
    const entries: Descriptor[] = [];
    for (const name of [...new Set(names)]) {
      const { target } = await this.#services.images.get(this.#ctx, name);
      // The lease holds the target with all it refers to, should the image be deleted meanwhile.
      await holdBlob(this.#services, this.#ctx, target.digest);
      this.#missing = new Set();
      const blobs = await this.#collect(target, 0);
      if (blobs === undefined || (this.#options.allPlatforms && this.#missing.size > 0))
        throw this.#incomplete(name);
      for (const blob of blobs) this.#blobs.set(blob.digest, blob);
      entries.push(named(name, target));
    }
    const writer = await openOutput(output);
    try {
      const exported = await this.#write(writer, entries);
      await writer.finish();
      return exported;
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  }

  #incomplete(name: string): EbbtideError {
    const { platform } = this.#options;
    const missing = [...this.#missing].sort();
    const shown = `${missing.slice(0, 5).join(', ')}${missing.length > 5 ? ` and ${missing.length - 5} more` : ''}`;
    const what =
      missing.length > 0
        ? `missing content: ${shown}`
        : `nothing for ${platform ? platformText(platform) : 'any platform'}`;
    return notFound(`cannot export image "${name}": ${what}`, {
      object: name,
      remedy: this.#options.allPlatforms
        ? 'import the missing platforms, or export only those that are here'
        : 'import the image again, or name another platform',
    });
  }

  /** The blobs of one complete image; undefined when there is none below this descriptor. */
  async #collect(descriptor: Descriptor, depth: number): Promise<Descriptor[] | undefined> {
    throwIfAborted(this.#ctx.signal);
    if (depth > MAX_INDEX_DEPTH) throw tooDeep(descriptor.digest);
    if (!(await this.#isHere(descriptor))) return undefined;
    if (isIndexType(descriptor.mediaType)) return this.#collectIndex(descriptor, depth);
    if (isManifestType(descriptor.mediaType)) return this.#collectManifest(descriptor);
    return [descriptor];
  }

  async #collectIndex(descriptor: Descriptor, depth: number): Promise<Descriptor[] | undefined> {
    const blobs = [descriptor];
    let complete = false;
    const index = parseIndex(await this.#read(descriptor), descriptor.digest);
    for (const child of index.manifests) {
      if (!this.#wants(child)) continue;
      const below = await this.#collect(child, depth + 1);
      if (below === undefined) continue;
      for (const blob of below) blobs.push(blob);
      complete ||= !isAttestation(child);
    }
    return complete ? blobs : undefined;
  }

  /** An attestation belongs to a manifest whose platform it does not tell, so a choice of platform leaves it out. */
  #wants(child: Descriptor): boolean {
    const { platform } = this.#options;
    if (platform === undefined) return true;
    if (isAttestation(child)) return false;
    return child.platform === undefined || platformRank(child.platform, platform) > 0;
  }

  async #collectManifest(descriptor: Descriptor): Promise<Descriptor[] | undefined> {
    const { config, layers } = parseManifest(await this.#read(descriptor), descriptor.digest);
    const blobs = [descriptor];
    let complete = true;
    for (const child of [config, ...layers]) {
      if (await this.#isHere(child)) blobs.push(child);
      else complete = false;
    }
    return complete ? blobs : undefined;
  }

  #read(descriptor: Descriptor) {
    return readDocument(this.#services.content, this.#ctx, descriptor);
  }

  /** Blobs that may not be distributed need not be there; they are left out then without being missed. */
  async #isHere({ digest, mediaType }: Descriptor): Promise<boolean> {
    try {
      await this.#services.content.info(this.#ctx, digest);
      return true;
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    if (!isNonDistributable(mediaType)) this.#missing.add(digest);
    return false;
  }

  async #write(writer: LayoutWriter, entries: Descriptor[]): Promise<Exported> {
    const blobs = [...this.#blobs.values()].sort((a, b) => compareUtf8(a.digest, b.digest));
    let bytes = 0;
    for (const { digest } of blobs) bytes += await this.#writeBlob(writer, digest);
    const index = { schemaVersion: 2, mediaType: MediaType.ociIndex, manifests: entries.map(indexEntry) };
    await writer.file(INDEX_FILE, Buffer.from(JSON.stringify(index)));
    await writer.file(LAYOUT_FILE, Buffer.from(JSON.stringify({ imageLayoutVersion: LAYOUT_VERSION })));
    return { blobs: blobs.length, bytes };
  }

  async #writeBlob(writer: LayoutWriter, digest: string): Promise<number> {
    const { progress } = this.#options;
    const { algorithm, hex } = parseDigest(digest);
    const reader = await this.#services.content.readerAt(this.#ctx, digest);
    const total = reader.size;
    const { signal } = this.#ctx;
    async function* checked(): AsyncGenerator<Uint8Array, void, void> {
      const digester = new Digester(algorithm);
      let done = 0;
      for await (const chunk of reader.stream()) {
        throwIfAborted(signal);
        digester.update(chunk);
        done += chunk.length;
        progress?.({ phase: 'export', name: digest, done, total });
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

function named(name: string, target: Descriptor): Descriptor {
  const annotations = {
    ...target.annotations,
    [Annotation.imageName]: name,
    [Annotation.refName]: refNameOf(name),
  };
  return { ...target, annotations };
}

/** Fields and annotations in one order, whatever order they came in. */
function indexEntry({ mediaType, digest, size, annotations = {} }: Descriptor) {
  const sorted = Object.entries(annotations).sort(([a], [b]) => compareUtf8(a, b));
  return { mediaType, digest, size, annotations: Object.fromEntries(sorted) };
}
