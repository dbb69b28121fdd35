/**
 * Applies an OCI layer (tar, tar+gzip, tar+zstd) to the mounts of an unfinished snapshot by writing directly
 * into its directories. Nothing is ever written outside them, whatever the archive contains; a hostile or
 * damaged archive is an error that names the entry, and leaves a partial snapshot for the caller to remove.
 *
 * Called by images/unpack and the diff service. One layer at a time for one snapshot; several snapshots may
 * be written at once. Not synced to disk: a snapshot is durable when its snapshotter commits it.
 */
import { createHash } from 'node:crypto';
import { EbbtideError, invalidArgument, kindOf, notImplemented, throwIfAborted } from '../../errors.js';
import type { Mount } from '../contract.js';
import { inside, within } from './beneath.js';
import { ChunkReader, tap } from './chunks.js';
import { type Compression, decompress } from './compression/compression.js';
import { Assumptions } from './detached.js';
import { entryError, makeFile, makeHardLink, makeNode, makeSymlink } from './entries.js';
import type { KnownLayers } from './known-layers.js';
import { type DirNode, LayerTree } from './layer-tree.js';
import { type ArchiveLimits, Budget, withDefaults } from './limits.js';
import { type Skipped, setFinal, setOwnerAndXattrs, timesOf } from './metadata.js';
import { type BytePath, joinPath, showPath, splitEntryName } from './paths.js';
import { SmallFiles } from './small-files.js';
import { malformed } from './tar/tar-header.js';
import { readTar, type TarEntry } from './tar/tar-reader.js';
import { detachedTarget, type Target, writableTarget } from './target.js';
import { applyDelete, applyOpaque, LINKED_FILES, whiteoutOf } from './whiteouts.js';

/** How a layer is applied. */
export interface ApplyOptions {
  /** Media type of the layer; its compression is detected from the bytes. Absent: any. */
  mediaType?: string | undefined;
  /** Ends it between two entries. */
  signal?: AbortSignal | undefined;
  /** Called with the number of compressed bytes read so far. */
  progress?: ((bytesRead: number) => void) | undefined;
  /** Limits of the archive; defaults for those left out. */
  limits?: Partial<ArchiveLimits> | undefined;
  /**
   * Cached look-ups in the layers below, for a caller that applies a chain of layers; the caller closes it.
   */
  known?: KnownLayers | undefined;
}

/** What was written of a layer. */
export interface Applied {
  /** Digest (sha256) of the uncompressed archive: the layer's diff id. */
  digest: string;
  /** Bytes of the uncompressed archive. */
  size: number;
  /** Entries of the archive. */
  entries: number;
  /** How the archive is compressed. */
  compression: Compression;
  /** Numbers of entries for which this user was not allowed to set something. */
  skipped: Skipped;
}

const layerTypes = [
  /^application\/vnd\.oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?$/,
  /^application\/vnd\.docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?$/,
];

/**
 * Applies the layer in `stream` to the snapshot of `mounts` (one bind or overlay mount, writable).
 * InvalidArgument: a malformed or hostile archive. FailedPrecondition: a limit, or a read-only mount.
 * NotImplemented: a media type that is not a layer. Unavailable: the disk is full.
 */
export async function applyLayer(
  mounts: readonly Mount[],
  stream: AsyncIterable<Uint8Array>,
  options: ApplyOptions = {},
): Promise<Applied> {
  return (await apply(() => writableTarget(mounts), stream, options)).applied;
}

/**
 * As `applyLayer`, of a snapshot of overlays without a parent that gets one when it is committed. InvalidArgument also for a layer
 * that is right, and cannot be written without the parent.
 */
export async function applyDetached(
  mounts: readonly Mount[],
  stream: AsyncIterable<Uint8Array>,
  options: ApplyOptions = {},
): Promise<{ applied: Applied; assumed: Assumptions }> {
  const { applied, tree } = await apply(() => detachedTarget(mounts), stream, options);
  return { applied, assumed: new Assumptions(tree.target.upper, tree.root) };
}

async function apply(
  targetOf: () => Target,
  stream: AsyncIterable<Uint8Array>,
  options: ApplyOptions,
): Promise<{ applied: Applied; tree: LayerTree }> {
  const { mediaType, signal } = options;
  if (mediaType !== undefined && mediaType !== '' && !layerTypes.some((type) => type.test(mediaType))) {
    throw notImplemented(`cannot apply a layer of type "${mediaType}"`, { object: mediaType });
  }
  throwIfAborted(signal);
  const limits = withDefaults(options.limits);
  const target = targetOf();
  const { compression, chunks } = await decompress(stream, {
    limits,
    name: 'layer',
    signal,
    onRead: options.progress,
  });
  const hash = createHash('sha256');
  let size = 0;
  const reader = new ChunkReader(
    tap(chunks, (chunk) => {
      hash.update(chunk);
      size += chunk.length;
    }),
  );
  const tree = new LayerTree(target, options.known);
  const applier = new Applier(tree, limits, signal);
  try {
    for await (const entry of readTar(reader)) await applier.add(entry);
    await applier.finish();
    // The digest includes what follows the end mark.
    await reader.drain();
  } finally {
    await reader.close();
    await applier.end();
    tree.close();
  }
  const applied: Applied = {
    digest: `sha256:${hash.digest('hex')}`,
    size,
    entries: applier.entries,
    compression,
    skipped: applier.skipped,
  };
  return { applied, tree };
}

class Applier {
  readonly skipped: Skipped = { owners: 0, devices: 0, xattrs: 0 };
  readonly #tree: LayerTree;
  readonly #budget: Budget;
  readonly #signal: AbortSignal | undefined;
  readonly #small = new SmallFiles(this.skipped);

  constructor(tree: LayerTree, limits: ArchiveLimits, signal: AbortSignal | undefined) {
    this.#tree = tree;
    tree.pending = this.#small;
    this.#budget = new Budget(limits);
    this.#signal = signal;
  }

  get entries(): number {
    return this.#budget.entries;
  }

  async add(entry: TarEntry): Promise<void> {
    throwIfAborted(this.#signal);
    const shown = showPath(entry.name);
    this.#budget.path(entry.name);
    this.#budget.path(entry.linkname);
    this.#budget.take(shown, entry.size);
    try {
      await this.#add(entry);
    } catch (error) {
      if (error instanceof EbbtideError || kindOf(error) !== 'Unknown') throw error;
      throw entryError(entry.name, error);
    }
  }

  async #add(entry: TarEntry): Promise<void> {
    const tree = this.#tree;
    const components = splitEntryName(entry.name);
    const whiteout = whiteoutOf(components, entry.name);
    const name = components.pop();
    // The root is the snapshot's own directory, whose owner and mode the snapshotter decides.
    if (name === undefined || whiteout.kind === 'ignored') return;
    if (whiteout.kind === 'linked') {
      if (entry.type !== 'file') return;
    } else if (whiteout.kind !== 'none') {
      const dir = await tree.resolve(components, 'unknown', entry.name);
      if (dir === undefined) return;
      return whiteout.kind === 'opaque' ? applyOpaque(tree, dir) : applyDelete(tree, dir, whiteout.name);
    }
    if (entry.type === 'unknown') {
      const flag = JSON.stringify(entry.typeflag);
      throw malformed(`entry "${showPath(entry.name)}" has the unsupported type ${flag}`);
    }
    const parent = await tree.resolve(components, true, entry.name);
    if (entry.type === 'directory') await this.#addDirectory(parent, name, entry);
    else await this.#addOther(parent, name, entry);
  }

  async #addDirectory(parent: DirNode, name: BytePath, entry: TarEntry): Promise<void> {
    const tree = this.#tree;
    const found = await tree.lookup(parent, name);
    let node: DirNode;
    if (found.kind === 'directory') {
      node = found.node;
      await tree.open(node);
    } else {
      const hidden = await tree.clear(parent, name, found);
      node = await tree.makeDirectory(parent, name, hidden);
    }
    node.placed = true;
    await inside(tree.upper(node), (path) => setOwnerAndXattrs(path, entry, this.skipped));
    node.final = { mode: entry.mode, ...timesOf(entry) };
  }

  async #addOther(parent: DirNode, name: BytePath, entry: TarEntry): Promise<void> {
    const tree = this.#tree;
    await tree.open(parent);
    if (!tree.isVacant(parent, name)) await tree.clear(parent, name, await tree.lookup(parent, name));
    const place = tree.upper(parent, name);
    if (this.#small.takes(entry)) await this.#small.add(place, entry);
    else if (entry.type === 'link') await makeHardLink(tree, place, entry);
    else if (!(await within(place, (path) => this.#make(path, entry)))) return this.#leaveOut(parent, name);
    tree.place(parent, name);
  }

  /** Returns false if this user may not create it. */
  async #make(path: BytePath, entry: TarEntry): Promise<boolean> {
    if (entry.type === 'file') await makeFile(path, entry, this.skipped, () => throwIfAborted(this.#signal));
    else if (entry.type === 'symlink') await makeSymlink(path, checkedSymlink(entry), this.skipped);
    else return makeNode(path, entry, this.skipped);
    return true;
  }

  /** Waits for writes under way, after which the tree may be closed. */
  end(): Promise<void> {
    return this.#small.end();
  }

  /** An entry that was left out must not let a lower one of its name show. */
  async #leaveOut(parent: DirNode, name: BytePath): Promise<void> {
    if (await this.#tree.hasBelow(parent, name)) await this.#tree.whiteout(parent, name);
  }

  /** Sets modes and times of directories, inner ones first, once nothing more is written into them. */
  async finish(): Promise<void> {
    await this.#small.flush();
    const { root } = this.#tree;
    await this.#tree.clear(root, LINKED_FILES, await this.#tree.lookup(root, LINKED_FILES));
    const order: DirNode[] = [];
    const open: DirNode[] = [this.#tree.root];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      order.push(node);
      for (const child of node.children.values()) if (typeof child !== 'symbol') open.push(child);
    }
    for (const node of order.reverse()) {
      throwIfAborted(this.#signal);
      const { final } = node;
      if (!node.inUpper || final === undefined) continue;
      await inside(this.#tree.upper(node), (path) => setFinal(path, final));
    }
  }
}

function checkedSymlink(entry: TarEntry): TarEntry {
  if (entry.linkname === '' || entry.linkname.includes('\0')) {
    throw invalidArgument(`archive entry "${showPath(entry.name)}" is a symlink to nowhere`, {
      object: showPath(joinPath('', entry.name)),
    });
  }
  return entry;
}
