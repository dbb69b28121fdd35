/**
 * The part of a check that is about what is in committed snapshots: those that are layers of images, against the archives that
 * they were unpacked from. Called by check.ts, on request: it reads all layers.
 */
import { join } from 'node:path';
import { applyLayer } from '../backends/archive/apply.js';
import { compareLayer, type Difference } from '../backends/archive/compare.js';
import type { SnapshotterBackend } from '../backends/contract.js';
import { eachLimit } from '../backends/files.js';
import { SNAPSHOTS } from '../backends/snapshotters/snapshot-driver.js';
import { components, key, namespaceOf, snapshotKey } from '../engine/schema/keys.js';
import { EbbtideError, failedPrecondition, isKind, isNotFound, throwIfAborted } from '../errors.js';
import {
  MAX_DOCUMENT_BYTES,
  parseConfig,
  parseIndex,
  parseManifest,
  parseObject,
} from '../images/documents.js';
import { isIndexType, isManifestType } from '../images/media-types.js';
import { chainIds } from '../images/unpack.js';
import { Label } from '../model/labels.js';
import type { ImageRecord, SnapshotRecord, StringMap } from '../model/records.js';
import { readRecord } from '../stores/common.js';
import type { FindingKind } from './findings.js';
import { recordsOf } from './records.js';
import type { Check, CheckHost } from './under-way.js';

/** Layers at a time: each keeps a thread busy. */
const LAYERS = 2;
/** Of a layer: a layer with more needs no more of them. */
const DIFFERENCES_MAX = 100;
const DEPTH_MAX = 8;

interface Layer {
  readonly namespace: string;
  readonly chainId: string;
  readonly diffId: string;
  /** Of the archive. */
  readonly digest: string;
}

/** A snapshot that a layer was unpacked into. */
export interface UnpackedLayer extends Layer {
  readonly snapshotter: string;
  /** In the snapshotter. */
  readonly name: string;
  readonly directory: string;
}

export type LayerHost = Pick<CheckHost, 'engine' | 'content' | 'backends'>;

export async function checkLayers(check: Check): Promise<void> {
  const { checked } = check.findings.report;
  // Repairs go from the lowest layer up: the native snapshotter copies what is below.
  const atOnce = check.repair ? 1 : LAYERS;
  await eachLimit(await unpackedLayers(check.host, check.signal), atOnce, async (layer) => {
    throwIfAborted(check.signal);
    const item = `layer ${layer.directory} ${layer.diffId} ${layer.digest}`;
    if (check.sound.has(item)) checked.earlier++;
    else {
      const differences = await compare(check, layer);
      if (differences?.length === 0) check.sound.add(item);
      else if (differences !== undefined) await report(check, layer, differences);
    }
    check.progress('layers', ++checked.layers);
  });
}

async function report(check: Check, layer: UnpackedLayer, differences: readonly Difference[]): Promise<void> {
  const { namespace, snapshotter, chainId, directory } = layer;
  const outcome = check.repair ? await unpackAgain(check, layer) : { remedy: UNPACK_AGAIN };
  for (const { what, path, ...rest } of differences)
    await check.findings.add({
      object: chainId,
      namespace,
      snapshotter,
      kind: kinds[what],
      path: join(directory, path),
      ...rest,
      ...outcome,
    });
}

/** What was done, and what is left to do. */
async function unpackAgain(
  { host, signal }: Check,
  { snapshotter, name, digest, diffId }: UnpackedLayer,
): Promise<{ repaired?: string; remedy: string }> {
  const backend = host.backends.get(snapshotter);
  if (backend?.rebuild === undefined)
    return { remedy: 'remove the snapshot and those on it, and unpack the image again' };
  try {
    await backend.rebuild(name, async (mounts) => {
      await using reader = await host.content.readerAt(digest);
      const { digest: found, skipped } = await applyLayer(mounts, reader.stream(), {
        ...(signal && { signal }),
      });
      if (found !== diffId) throw failedPrecondition(`the archive ${digest} is another layer`);
      const left = skipped.owners + skipped.devices + skipped.xattrs;
      if (left > 0) throw failedPrecondition(`${left} entries need root to be made as they were`);
    });
    return { repaired: 'unpacked again', remedy: 'nothing is left to do' };
  } catch (error) {
    throwIfAborted(signal);
    return {
      remedy: `it could not be unpacked again: ${error instanceof Error ? error.message : String(error)}`,
    };
  }
}

/** Of all images; each directory and archive once, whatever namespaces have it. */
export async function unpackedLayers(host: LayerHost, signal?: AbortSignal): Promise<UnpackedLayer[]> {
  const unpacked = new Map<string, UnpackedLayer>();
  for (const layer of (await new LayerFinder(host, signal).find()).values())
    for (const one of await snapshotsOf(host, layer)) unpacked.set(`${one.directory}\0${one.diffId}`, one);
  return [...unpacked.values()];
}

async function snapshotsOf(host: LayerHost, layer: Layer): Promise<UnpackedLayer[]> {
  const found: UnpackedLayer[] = [];
  for (const [snapshotter, backend] of host.backends) {
    const record = readRecord<SnapshotRecord>(
      host.engine,
      snapshotKey(layer.namespace, snapshotter, layer.chainId),
    );
    if (record === undefined) continue;
    const directory = await directoryOf(snapshotter, backend, record.name);
    if (directory !== undefined) found.push({ ...layer, snapshotter, name: record.name, directory });
  }
  return found;
}

/** On snapshots whose files are not in their directory, but mounted there by a lazy snapshotter, and not all of them fetched. */
const isElsewhere = (labels: StringMap): boolean =>
  Object.keys(labels).some((name) => name === REMOTE || name === NYDUS_BLOB || name.startsWith(OVERLAYBD));
const REMOTE = `${Label.snapshotPrefix}remote`;
const NYDUS_BLOB = `${Label.snapshotPrefix}nydus-blob`;
const OVERLAYBD = `${Label.snapshotPrefix}overlaybd`;

/** Of a committed snapshot whose files are in a directory. */
export async function directoryOf(
  snapshotter: string,
  backend: SnapshotterBackend,
  name: string,
): Promise<string | undefined> {
  try {
    const { kind, labels } = await backend.stat(name);
    if (kind !== 'committed' || isElsewhere(labels)) return undefined;
  } catch (error) {
    if (isNotFound(error) || isKind(error, 'Unknown')) return undefined;
    throw error;
  }
  const directory = backend.directoryOf?.(name);
  if (directory === undefined || backend.root === undefined) return undefined;
  const path = join(backend.root, SNAPSHOTS, directory);
  return snapshotter === 'native' ? path : join(path, 'fs');
}

const kinds: Readonly<Record<Difference['what'], FindingKind>> = {
  missing: 'file-missing',
  type: 'file-type',
  size: 'file-size',
  mode: 'file-mode',
};

const UNPACK_AGAIN = '`ebbtide heal` unpacks the layer again';

/** undefined: there is nothing to compare with. */
async function compare(check: Check, layer: UnpackedLayer): Promise<Difference[] | undefined> {
  const { host, findings, signal } = check;
  const { namespace, snapshotter, chainId, diffId, digest, directory } = layer;
  const about = { object: chainId, namespace, snapshotter };
  try {
    await using reader = await host.content.readerAt(digest);
    const {
      entries,
      differences,
      digest: found,
    } = await compareLayer(directory, reader.stream(), diffId, { signal });
    findings.report.checked.layerEntries += entries;
    if (found !== diffId) {
      const remedy = 'import or fetch the image again';
      await findings.add({
        ...about,
        kind: 'layer-archive',
        path: directory,
        expected: diffId,
        found,
        remedy,
      });
      return undefined;
    }
    return differences.sort((a, b) => (a.path < b.path ? -1 : 1)).slice(0, DIFFERENCES_MAX);
  } catch (error) {
    // Without its archive there is nothing to compare; what is not the blob, other parts of the check say.
    if (isNotFound(error)) return undefined;
    throwIfAborted(signal);
    if (!(error instanceof EbbtideError) || !['InvalidArgument', 'Unknown'].includes(error.kind)) throw error;
    const remedy = 'import or fetch the image again';
    await findings.add({
      ...about,
      kind: 'layer-archive',
      path: directory,
      expected: diffId,
      found: error.message,
      remedy,
    });
    return undefined;
  }
}

/** The layers of all images whose documents are here. */
class LayerFinder {
  readonly #host: LayerHost;
  readonly #signal: AbortSignal | undefined;
  readonly #layers = new Map<string, Layer>();
  readonly #seen = new Set<string>();

  constructor(host: LayerHost, signal: AbortSignal | undefined) {
    this.#host = host;
    this.#signal = signal;
  }

  async find(): Promise<ReadonlyMap<string, Layer>> {
    const { engine } = this.#host;
    for await (const batch of recordsOf(engine, key('images')))
      for (const [k] of batch) {
        throwIfAborted(this.#signal);
        const target = readRecord<ImageRecord>(engine, k)?.target;
        if (target !== undefined && components(k).length > 0)
          await this.#visit(namespaceOf(k), target.digest, target.mediatype, 0);
      }
    return this.#layers;
  }

  async #visit(namespace: string, digest: string, mediaType: string, depth: number): Promise<void> {
    const seen = `${namespace}\0${digest}`;
    if (this.#seen.has(seen) || depth > DEPTH_MAX) return;
    this.#seen.add(seen);
    const json = isIndexType(mediaType) || isManifestType(mediaType) ? await this.#read(digest) : undefined;
    if (json === undefined) return;
    await understood(async () => {
      if (isIndexType(mediaType)) {
        for (const one of parseIndex(json, digest).manifests)
          await this.#visit(namespace, one.digest, one.mediaType, depth + 1);
        return;
      }
      const { config, layers } = parseManifest(json, digest);
      const document = await this.#read(config.digest);
      if (document === undefined) return;
      const { diffIds } = parseConfig(document, config.digest);
      if (diffIds.length !== layers.length) return;
      const chain = chainIds(diffIds);
      for (const [n, { digest }] of layers.entries()) {
        const [chainId = '', diffId = ''] = [chain[n], diffIds[n]];
        this.#layers.set(`${namespace}\0${chainId}\0${digest}`, { namespace, chainId, diffId, digest });
      }
    });
  }

  /** Undefined for what is not here, or is not a document. */
  async #read(digest: string): Promise<Readonly<Record<string, unknown>> | undefined> {
    try {
      await using reader = await this.#host.content.readerAt(digest);
      if (reader.size > MAX_DOCUMENT_BYTES) return undefined;
      const bytes = Buffer.alloc(reader.size);
      for (let at = 0; at < bytes.length; ) {
        const read = await reader.read(bytes.subarray(at), at);
        if (read === 0) return undefined;
        at += read;
      }
      return await understood(async () => parseObject(bytes, digest));
    } catch (error) {
      if (isNotFound(error) || isKind(error, 'Unknown')) return undefined;
      throw error;
    }
  }
}

/** Undefined for a document that is not what it should be: artifacts are not images. */
async function understood<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (isKind(error, 'InvalidArgument')) return undefined;
    throw error;
  }
}
