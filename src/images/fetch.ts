/**
 * Fetches an image into the content store from a source that has its blobs by their descriptors, a registry: first the documents, then
 * what they refer to, several at a time; each checked against size and digest, kept by the lease, and together by reference
 * labels. Called by the daemon's transfers.
 */
import { eachLimit } from '../backends/files.js';
import { type EbbtideError, invalidArgument, isNotFound, notFound, throwIfAborted } from '../errors.js';
import { Label, labelOf, MAX_LABEL_BYTES } from '../model/labels.js';
import type { Source } from '../stores/content/content-helpers.js';
import { addBlobLabels, writeBlob } from './content.js';
import {
  type Descriptor,
  MAX_DESCRIPTORS,
  MAX_DOCUMENT_BYTES,
  type Platform,
  parseIndex,
  parseManifest,
  readDocument,
} from './documents.js';
import {
  childLabels,
  isConfigType,
  isIndexType,
  isManifestType,
  isNonDistributable,
  workName,
} from './media-types.js';
import { isForAny, isSamePlatform } from './platforms.js';
import { MAX_INDEX_DEPTH, tooDeep } from './resolve.js';
import type { ImageServices, LeasedContext } from './services.js';

/** Where an image is fetched from. */
export interface RemoteImage {
  /** The registry's host and the repository, for labels that say where a blob came from. */
  host: string;
  repository: string;
  /** The bytes; read once, and only if the store has not got them. */
  blob(descriptor: Blob): Source;
}

export interface FetchOptions {
  /** Whose layers are fetched; none: all. */
  platforms: readonly Platform[];
  /** Also manifests and configs of the other platforms. */
  allMetadata: boolean;
  /** Most manifests that are taken of an index, from its first one on; 0: all. */
  manifestLimit: number;
  /** Blobs under way at once. */
  atOnce: number;
  /** Bytes of the largest blob that is fetched. */
  blobBytesMax: number;
  observer: BlobObserver;
}

/** A descriptor without what may be large. */
export interface Blob {
  mediaType: string;
  digest: string;
  /** Bytes. */
  size: number;
}

/** Notified of the blobs of an image. */
export interface BlobObserver {
  /** The image has it; `parent` refers to it. */
  found(blob: Blob, parent?: Blob): void;
  /** The store has it. */
  existed(blob: Blob): void;
  /** Bytes that have come. */
  progress(blob: Blob, done: number): void;
  done(blob: Blob): void;
}

/**
 * Fetches what `target` refers to. InvalidArgument: not an image, damaged, or hostile. NotFound: a blob is missing. Ingests of a
 * fetch that fails are removed; its blobs go with the lease.
 */
export function fetchImage(
  services: ImageServices,
  ctx: LeasedContext,
  from: RemoteImage,
  target: Blob,
  options: FetchOptions,
): Promise<void> {
  return new Fetch(services, ctx, from, options).run(target);
}

class Fetch {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #from: RemoteImage;
  readonly #options: FetchOptions;
  /** Sizes of what was found, by digest. */
  readonly #sizes = new Map<string, number>();
  readonly #blobs = new Map<string, Blob>();

  constructor(services: ImageServices, ctx: LeasedContext, from: RemoteImage, options: FetchOptions) {
    this.#services = services;
    this.#ctx = ctx;
    this.#from = from;
    this.#options = options;
  }

  async run(target: Blob): Promise<void> {
    const { mediaType, digest, size } = target;
    if (!isIndexType(mediaType) && !isManifestType(mediaType)) {
      throw invalidArgument(`${digest} of type "${mediaType}" is not an image`, { object: digest });
    }
    this.#find({ mediaType, digest, size });
    await this.#document({ mediaType, digest, size }, 0);
    await eachLimit([...this.#blobs.values()], this.#options.atOnce, (blob) => this.#take(blob));
  }

  /** False: it was found before. */
  #find({ mediaType, digest, size }: Descriptor, parent?: Blob): boolean {
    const known = this.#sizes.get(digest);
    if (known !== undefined && known !== size) throw otherSize(digest, known, size);
    if (known !== undefined) return false;
    if (size === 0) throw hostile(`${digest} has a size of zero`, digest);
    const { blobBytesMax } = this.#options;
    if (size > blobBytesMax) throw hostile(`${digest} has ${size} bytes, more than ${blobBytesMax}`, digest);
    this.#sizes.set(digest, size);
    if (this.#sizes.size > MAX_DESCRIPTORS)
      throw hostile(`the image refers to more than ${MAX_DESCRIPTORS} blobs`, digest);
    this.#options.observer.found({ mediaType, digest, size }, parent);
    return true;
  }

  async #document(descriptor: Descriptor, depth: number): Promise<void> {
    const { mediaType, digest, size } = descriptor;
    if (depth > MAX_INDEX_DEPTH) throw tooDeep(digest);
    if (size > MAX_DOCUMENT_BYTES)
      throw hostile(`${digest} of type ${mediaType} is larger than ${MAX_DOCUMENT_BYTES} bytes`, digest);
    await this.#take({ mediaType, digest, size });
    const json = await readDocument(this.#services.content, this.#ctx, descriptor);
    if (isManifestType(mediaType)) {
      const { config, layers } = parseManifest(json, digest);
      const children = [config, ...layers];
      await this.#label(digest, childLabels(children));
      for (const child of this.#wantedOf(descriptor, children)) {
        if (this.#find(child, descriptor)) this.#blobs.set(child.digest, bare(child));
      }
      return;
    }
    const { manifests, unusable } = parseIndex(json, digest);
    for (const { error } of unusable.values()) throw error;
    await this.#label(digest, childLabels(manifests));
    const documents = this.#chosen(manifests).filter((child) => {
      const isDocument = isIndexType(child.mediaType) || isManifestType(child.mediaType);
      const isNew = this.#find(child, descriptor);
      if (isNew && !isDocument) this.#blobs.set(child.digest, bare(child));
      return isNew && isDocument;
    });
    await eachLimit(documents, this.#options.atOnce, (child) => this.#document(child, depth + 1));
  }

  /** Of an index. */
  #chosen(manifests: readonly Descriptor[]): readonly Descriptor[] {
    const { allMetadata, manifestLimit } = this.#options;
    const wanted = manifests.filter(({ platform }) => allMetadata || this.#wants(platform));
    if (manifestLimit === 0) return wanted;
    const rank = ({ platform }: Descriptor): number => this.#rank(platform);
    const best = [...wanted].sort((a, b) => rank(a) - rank(b)).slice(0, manifestLimit);
    if (best.length === 0) throw notFound('no match for platform in manifest');
    return best;
  }

  /** Of a manifest: of another platform only what describes it. */
  #wantedOf({ platform }: Descriptor, children: readonly Descriptor[]): readonly Descriptor[] {
    return this.#wants(platform) ? children : children.filter(({ mediaType }) => isConfigType(mediaType));
  }

  #wants(platform: Platform | undefined): boolean {
    return isForAny(platform, this.#options.platforms);
  }

  /** Position among the platforms; Infinity: none of them. */
  #rank(platform: Platform | undefined): number {
    if (platform === undefined) return Number.MAX_SAFE_INTEGER;
    const at = this.#options.platforms.findIndex((one) => isSamePlatform(one, platform));
    return at < 0 ? Number.POSITIVE_INFINITY : at;
  }

  async #take(blob: Blob): Promise<void> {
    throwIfAborted(this.#ctx.signal);
    const { observer } = this.#options;
    const { digest, size, mediaType } = blob;
    try {
      const stored = await writeBlob(this.#services, this.#ctx, {
        ref: workName(blob),
        descriptor: { digest, size, mediaType },
        source: this.#from.blob(blob),
        name: `blob ${digest}`,
        dropsUnfinished: true,
        progress: (done) => observer.progress(blob, done),
      });
      if (stored.size !== size) throw otherSize(digest, stored.size, size);
      if (stored.existed) observer.existed(blob);
      else observer.done(blob);
    } catch (error) {
      if (isNotFound(error) && isNonDistributable(mediaType)) return;
      throw error;
    }
    if (!isIndexType(mediaType) && !isManifestType(mediaType)) await this.#label(digest, {});
  }

  /** With the repository added to those that the blob came from. */
  async #label(digest: string, labels: Record<string, string>): Promise<void> {
    const { host, repository } = this.#from;
    const key = `${Label.distributionSource}.${host}`;
    const { labels: before } = await this.#services.content.info(this.#ctx, digest);
    const sources = new Set((labelOf(before, key) ?? '').split(',').filter((one) => one !== ''));
    const value = [...sources.add(repository)].sort().join(',');
    const fits = Buffer.byteLength(key) + Buffer.byteLength(value) <= MAX_LABEL_BYTES;
    await addBlobLabels(this.#services, this.#ctx, digest, { ...labels, ...(fits && { [key]: value }) });
  }
}

const bare = ({ mediaType, digest, size }: Blob): Blob => ({ mediaType, digest, size });

const hostile = (what: string, digest: string): EbbtideError =>
  invalidArgument(what, { object: digest, remedy: 'the image is damaged or hostile: do not use it' });

const otherSize = (digest: string, size: number, said: number): EbbtideError =>
  hostile(`blob ${digest} has ${size} bytes, its descriptor says ${said}`, digest);
