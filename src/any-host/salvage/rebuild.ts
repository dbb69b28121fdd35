/**
 * Records that a damaged file has lost, made again of what is known elsewhere: the blobs of images that are left, with their
 * labels of references, from the manifests; snapshots from their snapshotters. Only where something is missing. Called by salvage.ts.
 */

import { present } from '../../errors.js';
import {
  MAX_DOCUMENT_BYTES,
  parseConfig,
  parseIndex,
  parseManifest,
  parseObject,
} from '../../images/documents.js';
import { childLabels, isIndexType, isManifestType, type LabelledChild } from '../../images/media-types.js';
import { chainIds } from '../../images/unpack.js';
import { digestOf } from '../../model/digest.js';
import { Label } from '../../model/labels.js';
import type { StringMap } from '../../model/records.js';
import { encodeTime, encodeVarint } from '../../model/wire.js';
import { inTurns, type Steps } from '../../system/turns.js';
import type { Disk } from './disk.js';
import type { Merge } from './merge.js';
import { backendName, type Path, placeIn, type Tree, textOf, treeIn } from './shapes.js';

export interface Rebuilt {
  readonly path: Path;
  readonly key: string;
  readonly tree: Tree;
}

const bytesOf = (text: string): string => Buffer.from(text).toString('latin1');

function treeOf(fields: Readonly<Record<string, Uint8Array | Tree | undefined>>): Tree {
  const entries = new Map<string, Buffer | Tree>();
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    entries.set(bytesOf(name), value instanceof Uint8Array ? Buffer.from(value) : value);
  }
  return { sequence: 0, entries, isSplit: false };
}

const textsTree = (texts: StringMap): Tree | undefined =>
  Object.keys(texts).length === 0
    ? undefined
    : treeOf(Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, Buffer.from(text)])));

export async function rebuild(merge: Merge, disk: Disk, signal?: AbortSignal): Promise<Rebuilt[]> {
  const snapshots = await inTurns(rebuiltSnapshots(merge, disk), signal);
  const blobs = new BlobRebuilder(merge, disk, snapshots);
  await inTurns(blobs.visitImages(), signal);
  return snapshots.concat(blobs.rebuilt);
}

function* rebuiltSnapshots(merge: Merge, { snapshots }: Disk): Steps<Rebuilt[]> {
  const rebuilt: Rebuilt[] = [];
  for (const [snapshotter, all] of snapshots) {
    for (const { name, parent, labels, created, updated } of all.values()) {
      yield;
      const own = backendName(bytesOf(name));
      if (own === undefined) continue;
      const path: Path = ['v1', own.namespace, 'snapshots', bytesOf(snapshotter)];
      if (merge.has(path, own.key) || !merge.mayMiss(path, own.key)) continue;
      const above = backendName(bytesOf(parent));
      const tree = treeOf({
        name: Buffer.from(name),
        createdat: encodeTime(created),
        updatedat: encodeTime(updated),
        parent: above && Buffer.from(above.key, 'latin1'),
        labels: textsTree(labels),
      });
      rebuilt.push({ path, key: own.key, tree });
    }
  }
  return rebuilt;
}

interface Described {
  readonly children: readonly LabelledChild[];
  readonly labels: StringMap;
}
const NOTHING: Described = { children: [], labels: {} };

/** As of an index of indexes. */
const DEPTH_MAX = 8;

class BlobRebuilder {
  readonly rebuilt: Rebuilt[] = [];
  readonly #merge: Merge;
  readonly #disk: Disk;
  readonly #snapshots: ReadonlySet<string>;
  readonly #seen = new Set<string>();

  constructor(merge: Merge, disk: Disk, snapshots: readonly Rebuilt[]) {
    this.#merge = merge;
    this.#disk = disk;
    this.#snapshots = new Set(snapshots.map(({ path, key }) => [...path, key].join('\0')));
  }

  *visitImages(): Steps {
    for (const { path, records } of this.#merge.collections) {
      const place = placeIn(path);
      if (place?.kind !== 'image') continue;
      for (const record of records.values()) {
        yield;
        const target = treeIn(this.#merge.treeOf(record) ?? treeOf({}), 'target');
        const [digest, mediaType] = ['digest', 'mediatype'].map((name) => textOf(target?.entries.get(name)));
        if (digest !== undefined)
          yield* this.#visit(place.namespace, { digest, mediaType: mediaType ?? '' }, 0);
      }
    }
  }

  *#visit(namespace: string, { digest, mediaType }: LabelledChild, depth: number): Steps {
    const seen = `${namespace}\0${digest}`;
    const file = this.#disk.blobs?.get(digest);
    if (file === undefined || this.#seen.has(seen) || depth > DEPTH_MAX) return;
    this.#seen.add(seen);
    const isParent = isIndexType(mediaType) || isManifestType(mediaType);
    const path: Path = ['v1', namespace, 'content', 'blob'];
    const isLost = !this.#merge.has(path, digest) && this.#merge.mayMiss(path, digest);
    if (!isParent && !isLost) return;
    let described: Described = NOTHING;
    yield this.#describe(namespace, digest, mediaType, file.size).then((found) => {
      described = found;
    });
    const { children, labels } = described;
    if (isLost) {
      const at = encodeTime(file.changedAt);
      const tree = treeOf({
        createdat: at,
        updatedat: at,
        size: encodeVarint(file.size),
        labels: textsTree(labels),
      });
      this.rebuilt.push({ path, key: digest, tree });
    }
    for (const child of children) yield* this.#visit(namespace, child, depth + 1);
  }

  /** What a blob refers to. One that is not what its digest says refers to nothing. */
  async #describe(namespace: string, digest: string, mediaType: string, size: number): Promise<Described> {
    const isConfig = /config|container\.image\.v1/.test(mediaType);
    if (!isIndexType(mediaType) && !isManifestType(mediaType) && !isConfig) return NOTHING;
    const bytes = size > MAX_DOCUMENT_BYTES ? undefined : await this.#read(digest, size);
    if (bytes === undefined) return NOTHING;
    try {
      const json = parseObject(bytes, digest);
      if (isIndexType(mediaType)) {
        const children = parseIndex(json, digest).manifests;
        return { children, labels: childLabels(children) };
      }
      if (isManifestType(mediaType)) {
        const { config, layers } = parseManifest(json, digest);
        return { children: [config, ...layers], labels: childLabels([config, ...layers]) };
      }
      return { children: [], labels: this.#snapshotLabels(namespace, parseConfig(json, digest).diffIds) };
    } catch {
      return NOTHING;
    }
  }

  /** By which the config of an image that is unpacked keeps its snapshots. */
  #snapshotLabels(namespace: string, diffIds: readonly string[]): StringMap {
    const top = chainIds(diffIds).at(-1);
    if (top === undefined) return {};
    const labels: Record<string, string> = {};
    for (const snapshotter of this.#disk.snapshots.keys()) {
      const path: Path = ['v1', namespace, 'snapshots', bytesOf(snapshotter)];
      if (this.#merge.has(path, top) || this.#snapshots.has([...path, top].join('\0')))
        labels[`${Label.gcRefSnapshot}.${snapshotter}`] = top;
    }
    return labels;
  }

  async #read(digest: string, size: number): Promise<Buffer | undefined> {
    await using reader = await present(this.#disk.content, 'the directory of blobs').readerAt(digest);
    const bytes = Buffer.alloc(size);
    for (let at = 0; at < size; ) {
      const read = await reader.read(bytes.subarray(at), at);
      if (read === 0) return undefined;
      at += read;
    }
    return digestOf(bytes) === digest ? bytes : undefined;
  }
}
