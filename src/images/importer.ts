/**
 * Takes image entries in with all they refer to: blobs into the content store, reference labels on them, and whether at
 * least one image of an entry is complete. Used by import.ts, for one source at a time.
 */
import { EbbtideError, invalidArgument, notFound, throwIfAborted } from '../errors.js';
import { addBlobLabels, ingestRef, leaseBlob, writeBlob } from './content.js';
import {
  type Descriptor,
  type Json,
  MAX_DESCRIPTORS,
  parseIndex,
  parseManifest,
  readDocument,
} from './documents.js';
import {
  childLabels,
  isImageManifest,
  isIndexType,
  isManifestType,
  isNonDistributable,
} from './media-types.js';
import { isAttestation } from './platforms.js';
import { MAX_INDEX_DEPTH, tooDeep } from './resolve.js';
import type { ImageServices, LeasedContext, OnProgress } from './services.js';
import type { ImageSource } from './source.js';

/** Limit on the digests and entries in a message. */
export const MAX_LISTED = 5;

export interface ImporterOptions {
  progress?: OnProgress | undefined;
  /** Whether artifacts count as images. */
  artifacts?: boolean | undefined;
}

/** The result for a descriptor and everything below it. */
interface Outcome {
  /** At least one manifest of an image is complete. */
  complete: boolean;
  /** Digests that neither the source nor the store has. */
  missing: string[];
  /** Why it is not an image; undefined when it is one, complete or not. */
  why?: string | undefined;
  /** An invalid document. */
  damage?: EbbtideError | undefined;
}

export class Importer {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #source: ImageSource;
  readonly #progress: OnProgress | undefined;
  readonly #artifacts: boolean;
  readonly #outcomes = new Map<string, Outcome>();
  readonly #sizes = new Map<string, number | undefined>();
  #descriptors = 0;

  constructor(
    services: ImageServices,
    ctx: LeasedContext,
    source: ImageSource,
    { progress, artifacts = false }: ImporterOptions,
  ) {
    this.#services = services;
    this.#ctx = ctx;
    this.#source = source;
    this.#progress = progress;
    this.#artifacts = artifacts;
  }

  /**
   * Imports an entry with everything it refers to; returns why it is not an image, if so. NotFound when no
   * manifest of it is complete.
   */
  async add(entry: Descriptor): Promise<string | undefined> {
    if (!isIndexType(entry.mediaType) && !isManifestType(entry.mediaType))
      return `is not an image but of type "${entry.mediaType}"`;
    if (!this.#artifacts && isAttestation(entry)) return 'is not an image but describes another one';
    const { complete, missing, why, damage } = await this.#visit(entry, 0);
    if (complete) return undefined;
    if (damage !== undefined) throw damage;
    if (why !== undefined) return why;
    throw notFound(
      `image ${entry.digest} is incomplete: ${listed(missing)} missing from the source and the store`,
      {
        object: entry.digest,
        remedy: 'import from a source that has all blobs of at least one platform',
      },
    );
  }

  async #visit(descriptor: Descriptor, depth: number): Promise<Outcome> {
    // One blob under two media types is read as both.
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
          : {
              complete: this.#artifacts,
              missing: [],
              why: `is not an image but of type "${descriptor.mediaType}"`,
            };
    this.#outcomes.set(key, outcome);
    return outcome;
  }

  async #sameSize(descriptor: Descriptor, outcome: Outcome): Promise<Outcome> {
    await this.#take(descriptor);
    return outcome;
  }

  async #visitIndex(descriptor: Descriptor, depth: number): Promise<Outcome> {
    const index = await this.#parsed(descriptor, parseIndex);
    if (index instanceof EbbtideError) return { complete: false, missing: [], damage: index };
    const [unusable] = index.unusable.values();
    const sum: Outcome = {
      complete: false,
      missing: [],
      why: 'is an index without images',
      damage: unusable?.error,
    };
    for (const child of index.manifests) {
      const { complete, missing, why, damage } = await this.#visit(child, depth + 1);
      sum.missing.push(...missing.slice(0, MAX_LISTED + 1));
      // A manifest that only describes another one does not make an image.
      const isImage = this.#artifacts || !isAttestation(child);
      sum.complete ||= complete && isImage;
      if (why === undefined && isImage) sum.why = undefined;
      sum.damage ??= damage;
    }
    await addBlobLabels(this.#services, this.#ctx, descriptor.digest, childLabels(index.manifests));
    return sum;
  }

  async #visitManifest(descriptor: Descriptor): Promise<Outcome> {
    const manifest = await this.#parsed(descriptor, parseManifest);
    if (manifest instanceof EbbtideError) return { complete: false, missing: [], damage: manifest };
    const children = [manifest.config, ...manifest.layers];
    const missing: string[] = [];
    for (const child of children) {
      if (!(await this.#take(child)) && !isNonDistributable(child.mediaType)) missing.push(child.digest);
    }
    await addBlobLabels(this.#services, this.#ctx, descriptor.digest, childLabels(children));
    const isImage = this.#artifacts || isImageManifest(manifest);
    const why = isImage
      ? undefined
      : `is not an image but an artifact with a config of type "${manifest.config.mediaType}"`;
    return { complete: isImage && missing.length === 0, missing, why };
  }

  /** A document, or why it is not valid: an index may have images beside it. */
  async #parsed<T>(
    descriptor: Descriptor,
    parse: (json: Json, name: string) => T,
  ): Promise<T | EbbtideError> {
    try {
      return parse(await readDocument(this.#services.content, this.#ctx, descriptor), descriptor.digest);
    } catch (error) {
      if (error instanceof EbbtideError && error.kind === 'InvalidArgument') return error;
      throw error;
    }
  }

  /** Ensures that the store has the blob and the lease keeps it; returns false when it does not exist. */
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
    if (blob === undefined) return leaseBlob(this.#services, this.#ctx, digest);
    const progress = this.#progress;
    try {
      progress?.({ phase: 'import', name: digest, done: 0, total: blob.size });
      const stored = await writeBlob(this.#services, this.#ctx, {
        ref: ingestRef(digest),
        descriptor: { digest, size: blob.size, mediaType },
        source: blob.source,
        name: `blob ${digest}`,
      });
      progress?.({ phase: 'import', name: digest, done: stored.size, total: blob.size });
      return stored.size;
    } finally {
      await blob.close();
    }
  }
}

function listed(digests: readonly string[]): string {
  const shown = [...new Set(digests)].slice(0, MAX_LISTED).join(', ');
  const more = new Set(digests).size - MAX_LISTED;
  return `${shown}${more > 0 ? ` and ${more} more` : ''}${digests.length === 1 ? ' is' : ' are'}`;
}
