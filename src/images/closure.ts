/**
 * What an export includes of an image: every complete manifest with all its blobs, and an index that lists
 * exactly these, so that the layout is closed. Used by export.ts, under the lease that keeps the image.
 */
import { EbbtideError, isNotFound, throwIfAborted } from '../errors.js';
import { digestOf } from '../model/digest.js';
import { labelOf } from '../model/labels.js';
import {
  type Descriptor,
  type Index,
  type Json,
  type Manifest,
  type Platform,
  parseIndex,
  parseManifest,
  readDocument,
} from './documents.js';
import {
  Annotation,
  isImageManifest,
  isIndexType,
  isManifestType,
  isNonDistributable,
} from './media-types.js';
import { isAttestation, isForAny } from './platforms.js';
import { MAX_INDEX_DEPTH, tooDeep } from './resolve.js';
import type { ImageServices, LeasedContext } from './services.js';

/** A blob of the layout; `bytes` if it is not in the store. */
export interface ClosureBlob extends Descriptor {
  bytes?: Buffer | undefined;
}

export interface Closure {
  /** The image's root in the layout: its target, or a reduced index if some of it is missing here. */
  root: Descriptor;
  /** By digest. */
  blobs: Map<string, ClosureBlob>;
  /** The complete image manifests in it, by digest. */
  images: Map<string, Manifest>;
}

/** What is left out of a closure, as if it were not here. */
export interface ClosureOptions {
  /** Manifests of an index for other platforms; none: all stay. */
  platforms?: readonly Platform[] | undefined;
  /** Whether layers that may not be distributed stay; default: where they are here. */
  nonDistributable?: boolean | undefined;
}

export class ClosureReader {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #options: ClosureOptions;
  /**
   * Digests that the image refers to and that are missing here, except layers that may not be distributed.
   */
  readonly missing = new Set<string>();
  /** By digest and media type: an index may list the same entry many times. */
  readonly #closures = new Map<string, Closure | undefined>();
  #damage: EbbtideError | undefined;

  constructor(services: ImageServices, ctx: LeasedContext, options: ClosureOptions = {}) {
    this.#services = services;
    this.#ctx = ctx;
    this.#options = options;
  }

  /** Undefined when no manifest is complete. InvalidArgument when none is valid. */
  async read(target: Descriptor): Promise<Closure | undefined> {
    const closure = await this.#read(target, 0);
    if (closure === undefined && this.missing.size === 0 && this.#damage !== undefined) throw this.#damage;
    return closure;
  }

  async #read(descriptor: Descriptor, depth: number): Promise<Closure | undefined> {
    throwIfAborted(this.#ctx.signal);
    if (depth > MAX_INDEX_DEPTH) throw tooDeep(descriptor.digest);
    const key = `${descriptor.digest} ${descriptor.mediaType}`;
    if (!this.#closures.has(key)) this.#closures.set(key, await this.#readNew(descriptor, depth));
    return this.#closures.get(key);
  }

  async #readNew(descriptor: Descriptor, depth: number): Promise<Closure | undefined> {
    if (!(await this.#isHere(descriptor))) return undefined;
    if (isIndexType(descriptor.mediaType)) return this.#readIndex(descriptor, depth);
    if (isManifestType(descriptor.mediaType)) return this.#readManifest(descriptor);
    return closureOf(descriptor);
  }

  async #readIndex(descriptor: Descriptor, depth: number): Promise<Closure | undefined> {
    const document = await this.#document(descriptor, parseIndex);
    if (document === undefined) return undefined;
    const children = document.value.manifests;
    const closures: (Closure | undefined)[] = [];
    for (const child of children)
      closures.push(
        isForAny(child.platform, this.#options.platforms ?? [])
          ? await this.#read(child, depth + 1)
          : undefined,
      );
    const isWhole =
      document.value.unusable.size === 0 &&
      children.every((child, i) => closures[i]?.root.digest === child.digest);
    if (!isWhole) {
      // A manifest that only describes another one does not make an image.
      if (!children.some((child, i) => closures[i] !== undefined && !isAttestation(child))) return undefined;
      dropStrayAttestations(children, closures);
    }
    const kept = new Set(closures.filter((closure) => closure !== undefined));
    if (!isWhole && kept.size === 1) return [...kept][0];
    const sum = closureOf(isWhole ? descriptor : reducedIndex(descriptor, document, closures));
    for (const { blobs, images } of kept) {
      for (const [digest, blob] of blobs) sum.blobs.set(digest, blob);
      for (const [digest, image] of images) sum.images.set(digest, image);
    }
    return sum;
  }

  async #readManifest(descriptor: Descriptor): Promise<Closure | undefined> {
    const document = await this.#document(descriptor, parseManifest);
    if (document === undefined) return undefined;
    const manifest = document.value;
    const closure = closureOf(descriptor);
    let [isComplete, hasAllLayers] = [true, true];
    for (const child of [manifest.config, ...manifest.layers]) {
      const isLeftOut = this.#options.nonDistributable === false && isNonDistributable(child.mediaType);
      if (!isLeftOut && (await this.#isHere(child))) closure.blobs.set(child.digest, child);
      else if (isNonDistributable(child.mediaType)) hasAllLayers = false;
      else isComplete = false;
    }
    if (!isComplete) return undefined;
    if (hasAllLayers && isImageManifest(manifest)) closure.images.set(descriptor.digest, manifest);
    return closure;
  }

  /** Undefined when it is not valid. */
  async #document<T>(
    descriptor: Descriptor,
    parse: (json: Json, name: string) => T,
  ): Promise<{ json: Json; value: T } | undefined> {
    try {
      const json = await readDocument(this.#services.content, this.#ctx, descriptor);
      return { json, value: parse(json, descriptor.digest) };
    } catch (error) {
      if (!(error instanceof EbbtideError && error.kind === 'InvalidArgument')) throw error;
      this.#damage ??= error;
      return undefined;
    }
  }

  async #isHere({ digest, mediaType }: Descriptor): Promise<boolean> {
    try {
      await this.#services.content.info(this.#ctx, digest);
      return true;
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    if (!isNonDistributable(mediaType)) this.missing.add(digest);
    return false;
  }
}

const closureOf = (root: ClosureBlob): Closure => ({
  root,
  blobs: new Map([[root.digest, root]]),
  images: new Map(),
});

/** An attestation is kept only with the manifest it describes. */
function dropStrayAttestations(children: readonly Descriptor[], closures: (Closure | undefined)[]): void {
  const here = new Set(children.filter((_, i) => closures[i] !== undefined).map(({ digest }) => digest));
  for (const [i, child] of children.entries()) {
    const subject = labelOf(child.annotations, Annotation.referenceDigest);
    if (isAttestation(child) && subject !== undefined && !here.has(subject)) closures[i] = undefined;
  }
}

/** The same index with only the entries that have a closure; unknown fields are kept. */
function reducedIndex(
  { mediaType }: Descriptor,
  { json, value: { unusable } }: { json: Json; value: Index },
  closures: readonly (Closure | undefined)[],
): ClosureBlob {
  const usable = (json.manifests as Json[]).filter((_, at) => !unusable.has(at));
  const manifests = usable.flatMap((entry, i) => {
    const root = closures[i]?.root;
    if (root === undefined) return [];
    return [{ ...entry, mediaType: root.mediaType, digest: root.digest, size: root.size }];
  });
  const bytes = Buffer.from(JSON.stringify({ ...json, manifests }));
  return { mediaType, digest: digestOf(bytes), size: bytes.length, bytes };
}
