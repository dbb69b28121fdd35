/**
 * Sends an image from the content store to a registry: first blobs, several at a time, then manifests, then indexes, each after what it
 * refers to. Called by the daemon's transfers.
 */
import { eachLimit } from '../backends/files.js';
import { invalidArgument, isNotFound, throwIfAborted } from '../errors.js';
import { Label, labelOf } from '../model/labels.js';
import type { StringMap } from '../model/records.js';
import { keepWhileRead } from './content.js';
import {
  type Descriptor,
  MAX_DESCRIPTORS,
  type Platform,
  parseIndex,
  parseManifest,
  readDocument,
} from './documents.js';
import type { Blob, BlobObserver } from './fetch.js';
import { isIndexType, isManifestType } from './media-types.js';
import { isForAny } from './platforms.js';
import { MAX_INDEX_DEPTH, tooDeep } from './resolve.js';
import type { ImageServices, LeasedContext } from './services.js';

/** Where an image is sent to. */
export interface ImageSink {
  /** The registry's host, for labels that say where a blob came from. */
  host: string;
  /** Takes a blob or a document; returns false when it has it. */
  put(blob: Blob, bytes: BlobBytes): Promise<boolean>;
}

export interface BlobBytes {
  /** Repositories of the host that have it, or had. */
  sources: readonly string[];
  /** From its beginning, anew each time. */
  read(): AsyncIterable<Uint8Array>;
}

export interface PushOptions {
  /** Which manifests of an index; none: all. */
  platforms: readonly Platform[];
  /** Blobs under way at once. */
  atOnce: number;
  observer: BlobObserver;
}

/** NotFound: a blob that it refers to is not here. InvalidArgument: not an image, or damaged. */
export function pushImage(
  services: ImageServices,
  ctx: LeasedContext,
  to: ImageSink,
  target: Descriptor,
  options: PushOptions,
): Promise<void> {
  return new Push(services, ctx, to, options).run(target);
}

/** What is to be sent, with the labels of what refers to it. */
interface Item {
  blob: Blob;
  inherited: readonly StringMap[];
}

class Push {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #to: ImageSink;
  readonly #options: PushOptions;
  readonly #found = new Set<string>();
  readonly #blobs: Item[] = [];
  readonly #manifests: Item[] = [];
  /** Parents before children. */
  readonly #indexes: Item[] = [];

  constructor(services: ImageServices, ctx: LeasedContext, to: ImageSink, options: PushOptions) {
    this.#services = services;
    this.#ctx = ctx;
    this.#to = to;
    this.#options = options;
  }

  async run(target: Descriptor): Promise<void> {
    const { mediaType, digest } = target;
    if (!isIndexType(mediaType) && !isManifestType(mediaType)) {
      throw invalidArgument(`${digest} of type "${mediaType}" is not an image`, { object: digest });
    }
    await keepWhileRead(this.#services, this.#ctx, digest);
    await this.#visit(target, undefined, [target.annotations ?? {}], 0);
    const { atOnce } = this.#options;
    await eachLimit(this.#blobs, atOnce, (item) => this.#send(item));
    await eachLimit(this.#manifests, atOnce, (item) => this.#send(item));
    for (const item of this.#indexes.reverse()) await this.#send(item);
  }

  async #visit(
    descriptor: Descriptor,
    parent: Blob | undefined,
    inherited: readonly StringMap[],
    depth: number,
  ): Promise<void> {
    const { mediaType, digest, size } = descriptor;
    throwIfAborted(this.#ctx.signal);
    if (this.#found.has(digest)) return;
    if (depth > MAX_INDEX_DEPTH + 1) throw tooDeep(digest);
    if (this.#found.size >= MAX_DESCRIPTORS)
      throw invalidArgument(`the image refers to more than ${MAX_DESCRIPTORS} blobs`, { object: digest });
    this.#found.add(digest);
    const blob = { mediaType, digest, size };
    this.#options.observer.found(blob, parent);
    const item = { blob, inherited };
    if (!isIndexType(mediaType) && !isManifestType(mediaType)) return void this.#blobs.push(item);
    (isIndexType(mediaType) ? this.#indexes : this.#manifests).push(item);
    const passed = [await this.#labelsOf(digest), ...inherited];
    for (const child of await this.#childrenOf(descriptor)) await this.#visit(child, blob, passed, depth + 1);
  }

  async #childrenOf(descriptor: Descriptor): Promise<readonly Descriptor[]> {
    const { mediaType, digest } = descriptor;
    const json = await readDocument(this.#services.content, this.#ctx, descriptor);
    if (isManifestType(mediaType)) {
      const { config, layers } = parseManifest(json, digest);
      return [config, ...layers];
    }
    const { manifests, unusable } = parseIndex(json, digest);
    for (const { error } of unusable.values()) throw error;
    const { platforms } = this.#options;
    return manifests.filter(({ platform }) => isForAny(platform, platforms));
  }

  async #send({ blob, inherited }: Item): Promise<void> {
    throwIfAborted(this.#ctx.signal);
    const { observer } = this.#options;
    const labels = [await this.#labelsOf(blob.digest), ...inherited];
    const key = `${Label.distributionSource}.${this.#to.host}`;
    const repositories = labels.map((one) => labelOf(one, key)).find((one) => one) ?? '';
    const sources = repositories.split(',').filter((one) => one !== '');
    const isNew = await this.#to.put(blob, { sources, read: () => this.#bytesOf(blob) });
    if (isNew) observer.done(blob);
    else observer.existed(blob);
  }

  async #labelsOf(digest: string): Promise<StringMap> {
    try {
      return (await this.#services.content.info(this.#ctx, digest)).labels;
    } catch (error) {
      // A registry may have it all the same.
      if (isNotFound(error)) return {};
      throw error;
    }
  }

  async *#bytesOf(blob: Blob): AsyncGenerator<Uint8Array, void, void> {
    const reader = await this.#services.content.readerAt(this.#ctx, blob.digest);
    try {
      if (reader.size !== blob.size) {
        throw invalidArgument(
          `blob ${blob.digest} has ${reader.size} bytes, its descriptor says ${blob.size}`,
          {
            object: blob.digest,
          },
        );
      }
      let done = 0;
      for await (const chunk of reader.stream()) {
        throwIfAborted(this.#ctx.signal);
        done += chunk.length;
        this.#options.observer.progress(blob, done);
        yield chunk;
      }
    } finally {
      await reader.close();
    }
  }
}
