/**
 * Builds an image's chain of snapshots: one committed snapshot for each layer, named by its chain id, kept by
 * a label on the image's config. Existing snapshots are used; several unpackings of the same layers may run
 * at once. Called by the CLI, the services and embedders, under the context's lease or one of its own.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Applied, applyLayer } from '../backends/archive/apply.js';
import { KnownLayers } from '../backends/archive/known-layers.js';
import type { ArchiveLimits } from '../backends/archive/limits.js';
import { eachLimit } from '../backends/files.js';
import type { CallContext } from '../context.js';
import {
  invalidArgument,
  isAlreadyExists,
  isKind,
  isNotFound,
  notFound,
  throwIfAborted,
  unavailable,
  wrap,
} from '../errors.js';
import { digestOf } from '../model/digest.js';
import { inheritedSnapshotLabels, Label } from '../model/labels.js';
import { addBlobLabels, leaseBlob } from './content.js';
import { type Descriptor, type Manifest, type Platform, parseConfig, readDocument } from './documents.js';
import { hasBlobs, resolveManifest } from './resolve.js';
import {
  type ImageServices,
  type LayerSnapshotter,
  type LeasedContext,
  type OnProgress,
  type Progress,
  underLease,
  unended,
  uniquePart,
} from './services.js';

/** How an image is unpacked. */
export interface UnpackOptions {
  /** Selects a manifest of an index; default the host's platform. */
  platform?: Platform | undefined;
  /** Limits of archives; defaults for those left out. */
  limits?: Partial<ArchiveLimits> | undefined;
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

/** A layer to be applied to a snapshot. */
interface Layer {
  descriptor: Descriptor;
  diffId: string;
  chainId: string;
  /** Chain id of the layer below; '' for the lowest. */
  parent: string;
}

/** Attempts to unpack a layer, or wait for it, while another process unpacks it too. */
const MAX_ATTEMPTS = 10;
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
  readonly #snapshotter: LayerSnapshotter;
  readonly #options: UnpackOptions;
  readonly #skipped: Applied['skipped'] = { owners: 0, devices: 0, xattrs: 0 };
  readonly #known = new KnownLayers();
  /** Totals over the layers. */
  #all: Progress['all'];

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
    this.#snapshotter = snapshotter;
    this.#options = options;
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
    let applied = 0;
    if (top !== undefined) {
      if (!(await this.#isThere(top.chainId))) {
        this.#all = {
          items: layers.length,
          bytes: layers.reduce((sum, { descriptor: { size } }) => sum + size, 0),
        };
        try {
          for (const layer of layers) {
            if (await this.#layer(layer)) applied++;
            else this.#report(layer, layer.descriptor.size);
          }
        } finally {
          this.#known.close();
        }
      }
      await this.#label(manifest, layers, top.chainId);
    }
    return {
      chainId: top?.chainId ?? '',
      manifest: descriptor.digest,
      layers: layers.length,
      applied,
      skipped: this.#skipped,
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
      return top !== undefined && (await this.#isThere(top));
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

  /** Whether a layer is committed; the lease then keeps it. */
  async #isThere(chainId: string): Promise<boolean> {
    const { leases } = this.#services;
    // Leased before it is looked up, so that a collection cannot remove it in between.
    await leases.addResource(this.#ctx, this.#ctx.lease, { type: `snapshots/${this.#name}`, id: chainId });
    try {
      return (await this.#snapshotter.stat(this.#ctx, chainId)).kind === 'committed';
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  #report({ descriptor: { digest: name, size: total } }: Layer, done: number): void {
    this.#options.progress?.({ phase: 'unpack', name, done, total, all: this.#all });
  }

  /** Returns false when the layer existed. */
  async #layer(layer: Layer): Promise<boolean> {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      throwIfAborted(this.#ctx.signal);
      if (await this.#isThere(layer.chainId)) return false;
      try {
        return await this.#unpackLayer(layer);
      } catch (error) {
        if (!isAlreadyExists(error)) throw error;
      }
      await sleep(attempt * 20 * Math.random());
    }
    throw unavailable(`cannot get the snapshot of layer ${layer.descriptor.digest}`, {
      object: layer.chainId,
      remedy: 'another process keeps creating and removing it: try again later',
    });
  }

  /** AlreadyExists when another process was first. */
  async #unpackLayer(layer: Layer): Promise<boolean> {
    const { chainId, descriptor, parent } = layer;
    const key = `extract-${uniquePart()} ${chainId}`;
    const labels = { ...inheritedSnapshotLabels(descriptor.annotations), [Label.snapshotRef]: chainId };
    const mounts = await this.#snapshotter.prepare(this.#ctx, key, parent, { labels });
    try {
      const { digest, skipped } = await this.#apply(layer, mounts);
      if (digest !== layer.diffId) {
        throw invalidArgument(
          `layer ${descriptor.digest} decompresses to ${digest}, its config names ${layer.diffId}`,
          {
            object: descriptor.digest,
            remedy: 'the image is damaged or hostile: do not use it',
          },
        );
      }
      await this.#snapshotter.commit(this.#ctx, chainId, key, { labels });
      for (const what of ['owners', 'devices', 'xattrs'] as const) this.#skipped[what] += skipped[what];
      return true;
    } catch (error) {
      // If it cannot be removed now, it goes with the lease.
      await this.#snapshotter.remove(unended(this.#ctx), key).catch(() => undefined);
      throw error;
    }
  }

  async #apply(layer: Layer, mounts: Parameters<typeof applyLayer>[0]): Promise<Applied> {
    const { limits, progress } = this.#options;
    const { digest: name, mediaType } = layer.descriptor;
    const reader = await this.#services.content.readerAt(this.#ctx, name);
    try {
      return await applyLayer(mounts, reader.stream(), {
        mediaType,
        signal: this.#ctx.signal,
        limits,
        known: this.#known,
        progress: progress && ((done) => this.#report(layer, done)),
      });
    } catch (error) {
      throw wrap(`cannot unpack layer ${name}`, error, { object: name });
    } finally {
      await reader.close();
    }
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
