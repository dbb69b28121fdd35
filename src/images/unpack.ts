/**
 * Builds an image's chain of snapshots: one committed snapshot for each layer (layers/chain.ts), named by its chain id, kept by
 * a label on the image's config. Existing snapshots are used; several unpackings of the same layers may run
 * at once. Called by the CLI, the services and embedders, under the context's lease or one of its own.
 */
import type { Applied } from '../backends/archive/apply.js';
import type { ArchiveLimits } from '../backends/archive/limits.js';
import { eachLimit } from '../backends/files.js';
import type { CallContext } from '../context.js';
import { invalidArgument, isKind, isNotFound, notFound } from '../errors.js';
import { digestOf } from '../model/digest.js';
import { Label } from '../model/labels.js';
import { addBlobLabels, leaseBlob } from './content.js';
import { type Descriptor, type Manifest, type Platform, parseConfig, readDocument } from './documents.js';
import { type Layer, LayerChain } from './layers/chain.js';
import { hasBlobs, resolveManifest } from './resolve.js';
import { type ImageServices, type LeasedContext, type OnProgress, underLease } from './services.js';

/** How an image is unpacked. */
export interface UnpackOptions {
  /** Selects a manifest of an index; default the host's platform. */
  platform?: Platform | undefined;
  /** Limits of archives; defaults for those left out. */
  limits?: Partial<ArchiveLimits> | undefined;
  /**
   * Layers that are written at once, where the snapshotter has overlays; 1 to 16, by default 4. The
   * result is the same.
   */
  layersAtOnce?: number | undefined;
  /** Called again and again, with what is done. */
  progress?: OnProgress | undefined;
}

/** What was unpacked. */
export interface Unpacked {
  /** Key of the top snapshot; '' for an image without layers. */
  chainId: string;
  /** Digest of the manifest that was unpacked. */
  manifest: string;
  /** Layers of the image. */
  layers: number;
  /** Number of layers written; the others existed. */
  applied: number;
  /** Numbers of entries whose owner, device or attributes this user could not set. */
  skipped: Applied['skipped'];
}

/** Their commits reach the disk in one batch. */
const LABELS_AT_ONCE = 16;

/**
 * Unpacks an image with a snapshotter. NotFound: no such snapshotter, a blob is missing, or nothing for the
 * platform. InvalidArgument: a layer is malformed, hostile, or not the one its config names.
 */
export function unpackImage(
  services: ImageServices,
  ctx: CallContext,
  image: { readonly target: Descriptor },
  snapshotter: string,
  options: UnpackOptions = {},
): Promise<Unpacked> {
  return underLease(services, ctx, 'unpack', (leased) =>
    new Unpacker(services, leased, snapshotter, options).run(image.target),
  );
}

/** Chain ids of layers, lowest first: each identifies a layer together with all below it. */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(Buffer.from(`${below} ${diffId}`)));
  }
  return chain;
}

class Unpacker {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #name: string;
  readonly #options: UnpackOptions;
  readonly #chain: LayerChain;

  constructor(services: ImageServices, ctx: LeasedContext, name: string, options: UnpackOptions) {
    const snapshotter = services.snapshotter(name);
    if (snapshotter === undefined) {
      throw notFound(`there is no snapshotter "${name}"`, {
        object: name,
        remedy: 'open the store with it, or name another one',
      });
    }
    this.#services = services;
    this.#ctx = ctx;
    this.#name = name;
    this.#options = options;
    this.#chain = new LayerChain(services, ctx, name, snapshotter, options);
  }

  async run(target: Descriptor): Promise<Unpacked> {
    const { content } = this.#services;
    const { descriptor, manifest } = await resolveManifest(
      content,
      this.#ctx,
      target,
      this.#options.platform,
      async (candidate) =>
        (await hasBlobs(content, this.#ctx, candidate)) || (await this.#isUnpacked(candidate)),
    );
    await leaseBlob(this.#services, this.#ctx, descriptor.digest);
    const layers = layersOf(manifest, await this.#diffIds(manifest));
    const top = layers.at(-1);
    if (top !== undefined) {
      if (!(await this.#chain.has(top.chainId))) await this.#chain.build(layers);
      await this.#label(manifest, layers, top.chainId);
    }
    const { applied, skipped } = this.#chain;
    return {
      ...{ chainId: top?.chainId ?? '', manifest: descriptor.digest, layers: layers.length },
      ...{ applied, skipped: { ...skipped } },
    };
  }

  async #diffIds({ config }: Manifest): Promise<string[]> {
    const json = await readDocument(this.#services.content, this.#ctx, config);
    return parseConfig(json, config.digest).diffIds;
  }

  /** If its snapshots exist, an image's layers need not. */
  async #isUnpacked(manifest: Manifest): Promise<boolean> {
    try {
      const top = chainIds(await this.#diffIds(manifest)).at(-1);
      return top !== undefined && (await this.#chain.has(top));
    } catch (error) {
      if (isNotFound(error) || isKind(error, 'InvalidArgument')) return false;
      throw error;
    }
  }

  /**
   * The config keeps the top snapshot, and so the chain; compressed layers are labelled with their
   * uncompressed digest.
   */
  async #label(manifest: Manifest, layers: readonly Layer[], top: string): Promise<void> {
    await eachLimit(layers, LABELS_AT_ONCE, ({ descriptor, diffId }) =>
      addBlobLabels(this.#services, this.#ctx, descriptor.digest, { [Label.uncompressed]: diffId }).catch(
        (error: unknown) => {
          // If its snapshot exists, a layer's blob need not.
          if (!isNotFound(error)) throw error;
        },
      ),
    );
    await addBlobLabels(this.#services, this.#ctx, manifest.config.digest, {
      [`${Label.gcRefSnapshot}.${this.#name}`]: top,
    });
  }
}

function layersOf(manifest: Manifest, diffIds: readonly string[]): Layer[] {
  const { config, layers } = manifest;
  if (layers.length !== diffIds.length) {
    throw invalidArgument(
      `config ${config.digest} names ${diffIds.length} layers, its manifest ${layers.length}`,
      {
        object: config.digest,
        remedy: 'the image is damaged or hostile: do not use it',
      },
    );
  }
  const chain = chainIds(diffIds);
  return layers.map((descriptor, i) => ({
    descriptor,
    // As many as there are layers.
    diffId: diffIds[i] ?? '',
    chainId: chain[i] ?? '',
    parent: chain[i - 1] ?? '',
  }));
}
