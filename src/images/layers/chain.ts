/**
 * The snapshots of an image's layers, each committed onto the one below. Where the snapshotter has overlays, several layers are
 * written at once, before their parents are there, and committed in their order (backends/archive/detached.ts): the files, the
 * names and the chain are those of layers that are written one after the other. A layer that needs what is below is written again, onto it.
 *
 * Everything is kept by the context's lease. What is not committed is removed, however the work ends.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Applied, applyDetached, applyLayer } from '../../backends/archive/apply.js';
import type { Assumptions } from '../../backends/archive/detached.js';
import { KnownLayers } from '../../backends/archive/known-layers.js';
import type { ArchiveLimits } from '../../backends/archive/limits.js';
import type { BytePath } from '../../backends/archive/paths.js';
import { writableTarget } from '../../backends/archive/target.js';
import { chunksOf } from '../../backends/content/chunks-of.js';
import type { Mount } from '../../backends/contract.js';
import {
  invalidArgument,
  isAlreadyExists,
  isKind,
  isNotFound,
  throwIfAborted,
  unavailable,
  wrap,
} from '../../errors.js';
import { inheritedSnapshotLabels, Label } from '../../model/labels.js';
import type { Descriptor } from '../documents.js';
import {
  type ImageServices,
  type LayerSnapshotter,
  type LeasedContext,
  type OnProgress,
  type Progress,
  unended,
  uniquePart,
} from '../services.js';
import { takeInOrder } from './ahead.js';

/** A layer to be applied to a snapshot. */
export interface Layer {
  descriptor: Descriptor;
  diffId: string;
  chainId: string;
  /** Chain id of the layer below; '' for the lowest. */
  parent: string;
}

export interface LayerOptions {
  limits?: Partial<ArchiveLimits> | undefined;
  layersAtOnce?: number | undefined;
  progress?: OnProgress | undefined;
}

/** Attempts to unpack a layer, or wait for it, while another process unpacks it too. */
const MAX_ATTEMPTS = 10;
/** Also on two processors: much of the time is waiting for the disk. More gain nothing, since one thread reads the archives. */
export const LAYERS_AT_ONCE_DEFAULT = 4;
export const LAYERS_AT_ONCE_MAX = 16;
/** Layers that are written, or wait for those below them: what they assume is in memory, by directories. */
const BEGUN_MAX = 8;
/** Of a layer that waits; one with more is written in its turn. */
const DIRECTORIES_MAX = 50_000;

/** Layers that all unpackings of this process together may have under way besides one each. */
class Spare {
  #free = LAYERS_AT_ONCE_MAX - 1;

  take(wanted: number): number {
    const taken = Math.min(wanted, this.#free);
    this.#free -= taken;
    return taken;
  }

  giveBack(taken: number): void {
    this.#free += taken;
  }
}
const spare = new Spare();

/** A layer without its parent. */
interface Written {
  key: string;
  /** Its own directory. */
  upper: BytePath;
  applied: Applied;
  /** Undefined: there is nothing below. */
  assumed: Assumptions | undefined;
}

export class LayerChain {
  /** Layers that were written; others existed. */
  applied = 0;
  readonly skipped: Applied['skipped'] = { owners: 0, devices: 0, xattrs: 0 };
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #name: string;
  readonly #snapshotter: LayerSnapshotter;
  readonly #options: LayerOptions;
  readonly #atOnce: number;
  readonly #known = new KnownLayers();
  /** Totals over the layers. */
  #all: Progress['all'];
  /** Directories of the layers that are committed, nearest first; undefined: not known. */
  #below: readonly BytePath[] | undefined;

  constructor(
    services: ImageServices,
    ctx: LeasedContext,
    name: string,
    snapshotter: LayerSnapshotter,
    options: LayerOptions,
  ) {
    this.#services = services;
    this.#ctx = ctx;
    this.#name = name;
    this.#snapshotter = snapshotter;
    this.#options = options;
    this.#atOnce = snapshotter.rebases ? atOnceOf(options) : 1;
  }

  /** Whether a layer is committed; the lease then keeps it. */
  async has(chainId: string): Promise<boolean> {
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

  /** Writes the layers that are not there, lowest first. */
  async build(layers: readonly Layer[]): Promise<void> {
    const bytes = layers.reduce((sum, { descriptor: { size } }) => sum + size, 0);
    this.#all = { items: layers.length, bytes };
    try {
      let first = 0;
      for (const layer of layers) {
        throwIfAborted(this.#ctx.signal);
        if (!(await this.has(layer.chainId))) break;
        this.#report(layer, layer.descriptor.size);
        first++;
      }
      const missing = layers.slice(first);
      const more = spare.take(Math.min(this.#atOnce, missing.length) - 1);
      try {
        if (more > 0) await this.#severalAtOnce(missing, 1 + more);
        else for (const layer of missing) await this.#inTurn(layer);
      } finally {
        spare.giveBack(more);
      }
    } finally {
      this.#known.close();
    }
  }

  #report({ descriptor: { digest: name, size: total } }: Layer, done: number): void {
    this.#options.progress?.({ phase: 'unpack', name, done, total, all: this.#all });
  }

  // -------------------------------------------------------------------------------------------- one after the other

  async #inTurn(layer: Layer): Promise<void> {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      throwIfAborted(this.#ctx.signal);
      if (await this.has(layer.chainId)) return this.#report(layer, layer.descriptor.size);
      if (await this.#ontoParent(layer)) return;
      await sleep(attempt * 20 * Math.random());
    }
    throw unavailable(`cannot get the snapshot of layer ${layer.descriptor.digest}`, {
      object: layer.chainId,
      remedy:
        'another process keeps creating and removing it, then try again later; or, over etcd, another host of the tree has it: ' +
        'unpack into a namespace of this host, or give it a tree of its own (--etcd-prefix)',
    });
  }

  /** False when another process was first. */
  async #ontoParent(layer: Layer): Promise<boolean> {
    const prepared = await this.#prepare(layer, layer.parent);
    if (prepared === undefined) return false;
    const { key, mounts } = prepared;
    try {
      const applied = await this.#apply(layer, this.#ctx.signal, (stream, options) =>
        applyLayer(mounts, stream, { ...options, known: this.#known }),
      );
      checkDiffId(layer, applied);
      return await this.#commit(layer, key, applied);
    } catch (error) {
      await this.#remove(key);
      throw error;
    }
  }

  // ------------------------------------------------------------------------------------------------ several at once

  async #severalAtOnce(layers: readonly Layer[], atOnce: number): Promise<void> {
    const limits = { atOnce, begun: Math.max(atOnce, BEGUN_MAX) };
    const write = (layer: Layer, signal: AbortSignal): Promise<Written | undefined> =>
      this.#write(layer, signal);
    const drop = async (written: Written | undefined): Promise<void> => {
      if (written !== undefined) await this.#remove(written.key);
    };
    await takeInOrder(layers, limits, this.#ctx.signal, write, drop, async (layer, written) => {
      if (written !== undefined && (await this.#commitOnto(layer, written))) return;
      this.#below = undefined;
      await this.#inTurn(layer);
    });
  }

  /** Writes a layer without its parent. Undefined: it exists by now, or may need what is below. */
  async #write(layer: Layer, signal: AbortSignal): Promise<Written | undefined> {
    throwIfAborted(signal);
    const prepared = await this.#prepare(layer, '');
    if (prepared === undefined) return undefined;
    const { key, mounts } = prepared;
    const isLowest = layer.parent === '';
    try {
      const { applied, assumed } = await this.#apply(layer, signal, async (stream, options) =>
        isLowest
          ? { applied: await applyLayer(mounts, stream, options), assumed: undefined }
          : applyDetached(mounts, stream, options),
      );
      checkDiffId(layer, applied);
      if (assumed !== undefined && assumed.size > DIRECTORIES_MAX) {
        await this.#remove(key);
        return undefined;
      }
      return { key, upper: writableTarget(mounts).upper, applied, assumed };
    } catch (error) {
      await this.#remove(key);
      // What is wrong with it is found out on its parent.
      if (!isLowest && isKind(error, 'InvalidArgument')) return undefined;
      throw error;
    }
  }

  /** False: the layer does not fit onto its parent as it was written, or another process has committed it. */
  async #commitOnto(layer: Layer, { key, upper, applied, assumed }: Written): Promise<boolean> {
    const { parent } = layer;
    try {
      throwIfAborted(this.#ctx.signal);
      if (assumed !== undefined) {
        this.#below ??= await this.#layersOf(parent);
        if (!(await assumed.fit(this.#below, this.#known, this.#ctx.signal))) {
          await this.#remove(key);
          return false;
        }
      }
      if (!(await this.#commit(layer, key, applied, parent))) return false;
    } catch (error) {
      await this.#remove(key);
      throw error;
    }
    this.#below = [upper, ...(this.#below ?? [])];
    return true;
  }

  /** Directories of a committed layer and those below it, nearest first: what a snapshot on it is mounted over. */
  async #layersOf(chainId: string): Promise<readonly BytePath[]> {
    const key = keyFor(chainId);
    const mounts = await this.#snapshotter.prepare(this.#ctx, key, chainId);
    await this.#remove(key);
    return writableTarget(mounts).lowers;
  }

  // -------------------------------------------------------------------------------------------------------- a layer

  /** Undefined: the layer exists by now. */
  async #prepare(layer: Layer, parent: string): Promise<{ key: string; mounts: Mount[] } | undefined> {
    const key = keyFor(layer.chainId);
    try {
      const mounts = await this.#snapshotter.prepare(this.#ctx, key, parent, { labels: labelsOf(layer) });
      return { key, mounts };
    } catch (error) {
      if (isAlreadyExists(error)) return undefined;
      throw error;
    }
  }

  /** `parent`: of a snapshot that has none. False: the layer exists by now, and the snapshot is removed. */
  async #commit(layer: Layer, key: string, { skipped }: Applied, parent = ''): Promise<boolean> {
    try {
      const options = { labels: labelsOf(layer), ...(parent !== '' && { parent }) };
      await this.#snapshotter.commit(this.#ctx, layer.chainId, key, options);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      await this.#remove(key);
      return false;
    }
    this.applied++;
    for (const what of ['owners', 'devices', 'xattrs'] as const) this.skipped[what] += skipped[what];
    return true;
  }

  /** If it cannot be removed now, it goes with the lease. */
  async #remove(key: string): Promise<void> {
    await this.#snapshotter.remove(unended(this.#ctx), key).catch(() => undefined);
  }

  async #apply<T>(
    layer: Layer,
    signal: AbortSignal | undefined,
    work: (
      stream: AsyncIterable<Uint8Array>,
      options: Parameters<typeof applyLayer>[2] & object,
    ) => Promise<T>,
  ): Promise<T> {
    const { limits, progress } = this.#options;
    const { digest: name, mediaType } = layer.descriptor;
    const reader = await this.#services.content.readerAt(this.#ctx, name);
    try {
      return await work(chunksOf(reader), {
        ...{ mediaType, signal, limits },
        progress: progress && ((done) => this.#report(layer, done)),
      });
    } catch (error) {
      throw wrap(`cannot unpack layer ${name}`, error, { object: name });
    } finally {
      await reader.close();
    }
  }
}

function atOnceOf({ layersAtOnce = LAYERS_AT_ONCE_DEFAULT }: LayerOptions): number {
  if (Number.isInteger(layersAtOnce) && layersAtOnce >= 1 && layersAtOnce <= LAYERS_AT_ONCE_MAX)
    return layersAtOnce;
  throw invalidArgument(`layersAtOnce is a number from 1 to ${LAYERS_AT_ONCE_MAX}, not ${layersAtOnce}`);
}

const keyFor = (chainId: string): string => `extract-${uniquePart()} ${chainId}`;

const labelsOf = ({ descriptor, chainId }: Layer): Record<string, string> => ({
  ...inheritedSnapshotLabels(descriptor.annotations),
  [Label.snapshotRef]: chainId,
});

function checkDiffId({ descriptor, diffId }: Layer, { digest }: Applied): void {
  if (digest === diffId) return;
  throw invalidArgument(`layer ${descriptor.digest} decompresses to ${digest}, its config names ${diffId}`, {
    object: descriptor.digest,
    remedy: 'the image is damaged or hostile: do not use it',
  });
}
