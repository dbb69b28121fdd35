/**
 * Records that a damaged file has lost, made again of what is known elsewhere: blobs of images, with their labels of references,
 * from the manifests; snapshots from their snapshotters. Only where something is missing. Called by salvage.ts.
 *
 * That an image leads to a blob does not show that the blob is in the image's namespace: the record may be another one's by damage, and of an
 * index only some platforms are pulled. So a blob is made again only where
 *
 *   - no other namespace can have it: then its file is there for this one; or
 *   - a second place says so: another record, or the name, of an image, or a lease, names it; or it is, or leads to, a manifest whose
 *     record is there, whose layers the namespace has a snapshot of, or whose config is so named. Layers only with such a snapshot, of a
 *     snapshotter that reads all of them.
 *
 * All others are named in the report.
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
import { backendName, type Path, placeIn, type Tree } from './shapes.js';

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

/** @returns also what nothing proves */
export async function rebuild(
  merge: Merge,
  disk: Disk,
  signal?: AbortSignal,
): Promise<{ rebuilt: Rebuilt[]; guesses: Rebuilt[] }> {
  const snapshots = await inTurns(rebuiltSnapshots(merge, disk), signal);
  const blobs = new BlobRebuilder(merge, disk, snapshots);
  await inTurns(blobs.visitImages(), signal);
  const rebuilt = [...snapshots];
  const guesses: Rebuilt[] = [];
  await inTurns(blobs.divide(rebuilt, guesses), signal);
  return { rebuilt, guesses };
}

function* rebuiltSnapshots(merge: Merge, { snapshots }: Disk): Steps<Rebuilt[]> {
  // By place: one that was removed may wait there for its removal, beside a newer one of that name.
  const newest = new Map<string, { number: number; rebuilt: Rebuilt }>();
  for (const [snapshotter, all] of snapshots) {
    for (const { name, parent, labels, created, updated } of all.values()) {
      yield;
      const own = backendName(bytesOf(name));
      if (own === undefined) continue;
      const path: Path = ['v1', own.namespace, 'snapshots', bytesOf(snapshotter)];
      const at = [...path, own.key].join('\0');
      if (merge.has(path, own.key) || !merge.mayMiss(path, own.key)) continue;
      if ((newest.get(at)?.number ?? 0) > own.number) continue;
      const above = backendName(bytesOf(parent));
      const tree = treeOf({
        name: Buffer.from(name),
        createdat: encodeTime(created),
        updatedat: encodeTime(updated),
        parent: above && Buffer.from(above.key, 'latin1'),
        labels: textsTree(labels),
      });
      newest.set(at, { number: own.number, rebuilt: { path, key: own.key, tree } });
    }
  }
  return [...newest.values()].map(({ rebuilt }) => rebuilt);
}

interface Described {
  readonly children: readonly LabelledChild[];
  readonly labels: StringMap;
  /** Of a manifest and a config: the snapshotters in which the namespace has its layers. */
  readonly snapshotters: readonly string[];
}
const NOTHING: Described = { children: [], labels: {}, snapshotters: [] };

/** Those that read all of a layer to unpack it. Others get it from the registry, piece by piece, and it never is a blob of the namespace. */
const READS_LAYERS = new Set([
  'overlayfs',
  'native',
  'btrfs',
  'zfs',
  'devmapper',
  'blockfile',
  'fuse-overlayfs',
]);

/** As of an index of indexes. */
const DEPTH_MAX = 8;

interface Visited {
  /** A second place says that the namespace has it. */
  isProved: boolean;
  /** Of a manifest: the namespace has its record, a snapshot of its layers, or what names its config. Of an index: one below is. */
  isConfirmed: boolean;
  /** Undefined for what is not lost. */
  readonly lost: Rebuilt | undefined;
}

class BlobRebuilder {
  readonly #merge: Merge;
  readonly #disk: Disk;
  readonly #snapshots: ReadonlySet<string>;
  /** By namespace and digest, in how many places it is named. */
  readonly #named = new Map<string, number>();
  readonly #visited = new Map<string, Visited>();

  constructor(merge: Merge, disk: Disk, snapshots: readonly Rebuilt[]) {
    this.#merge = merge;
    this.#disk = disk;
    this.#snapshots = new Set(snapshots.map(({ path, key }) => [...path, key].join('\0')));
  }

  *visitImages(): Steps {
    const targets: [namespace: string, target: LabelledChild][] = [];
    for (const { path, records } of this.#merge.collections) {
      const { kind, namespace } = placeIn(path) ?? {};
      if (namespace === undefined || (kind !== 'image' && kind !== 'lease')) continue;
      for (const record of records.values()) {
        yield;
        const { key, facts } = record;
        for (const { digest } of facts.blobs) {
          this.#name(namespace, digest);
          if (kind === 'image') targets.push([namespace, { digest, mediaType: facts.mediaType ?? '' }]);
        }
        // Its name is in the page above its own: `<repository>@<target>`, or the digest of the config.
        if (kind === 'image') this.#name(namespace, key.slice(key.lastIndexOf('@') + 1));
      }
    }
    for (const [namespace, target] of targets)
      yield* this.#visit(namespace, target, this.#isNamed(namespace, target.digest, 2), 0);
  }

  #name(namespace: string, digest: string): void {
    const at = `${namespace}\0${digest}`;
    this.#named.set(at, (this.#named.get(at) ?? 0) + 1);
  }

  #isNamed(namespace: string, digest = '', places = 1): boolean {
    return (this.#named.get(`${namespace}\0${digest}`) ?? 0) >= places;
  }

  /** What is lost, by whether it is proved. */
  *divide(proved: Rebuilt[], guesses: Rebuilt[]): Steps {
    const namespaces = yield* this.#merge.namespaces();
    for (const { isProved, lost } of this.#visited.values()) {
      yield;
      if (lost !== undefined) (isProved || this.#isOnlyHere(lost, namespaces) ? proved : guesses).push(lost);
    }
  }

  #isOnlyHere({ path, key }: Rebuilt, namespaces: ReadonlySet<string>): boolean {
    if (this.#merge.mayMissNamespaces) return false;
    return [...namespaces].every(
      (other) => other === path[1] || !this.#merge.mayHave(['v1', other, 'content', 'blob'], key),
    );
  }

  *#visit(
    namespace: string,
    { digest, mediaType }: LabelledChild,
    isProved: boolean,
    depth: number,
  ): Steps<Visited | undefined> {
    const at = `${namespace}\0${digest}`;
    const file = this.#disk.blobs?.get(digest);
    const before = this.#visited.get(at);
    if (file === undefined || depth > DEPTH_MAX) return undefined;
    if (before !== undefined && (before.isProved || !isProved)) return before;
    const path: Path = ['v1', namespace, 'content', 'blob'];
    const isThere = this.#merge.has(path, digest);
    const isLost = !isThere && this.#merge.mayMiss(path, digest);
    let described: Described = NOTHING;
    if (isLost || isIndexType(mediaType) || isManifestType(mediaType))
      yield this.#describe(namespace, digest, mediaType, file.size).then((found) => {
        described = found;
      });
    const { children, labels, snapshotters } = described as Described;
    const time = encodeTime(file.changedAt);
    const fields = {
      createdat: time,
      updatedat: time,
      size: encodeVarint(file.size),
      labels: textsTree(labels),
    };
    const isManifest = isManifestType(mediaType);
    const visited: Visited = {
      isProved,
      isConfirmed:
        isManifest && (isThere || snapshotters.length > 0 || this.#isNamed(namespace, children[0]?.digest)),
      lost: isLost ? { path, key: digest, tree: treeOf(fields) } : undefined,
    };
    this.#visited.set(at, visited);
    const isUnpacked = snapshotters.some((name) => READS_LAYERS.has(name));
    for (const [n, child] of children.entries()) {
      // Of an index some platforms may not be there.
      const isThis = isManifest && (isUnpacked || (n === 0 && visited.isConfirmed));
      const below = yield* this.#visit(namespace, child, isThis, depth + 1);
      if (!isManifest && below?.isConfirmed) visited.isConfirmed = true;
    }
    visited.isProved ||= visited.isConfirmed;
    return visited;
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
        return { children, labels: childLabels(children), snapshotters: [] };
      }
      if (isManifestType(mediaType)) {
        const { config, layers } = parseManifest(json, digest);
        const children = [config, ...layers];
        const configSize = this.#disk.blobs?.get(config.digest)?.size ?? Number.POSITIVE_INFINITY;
        const { snapshotters } = await this.#describe(namespace, config.digest, config.mediaType, configSize);
        return { children, labels: childLabels(children), snapshotters };
      }
      const top = chainIds(parseConfig(json, digest).diffIds).at(-1);
      const snapshotters = top === undefined ? [] : this.#snapshottersOf(namespace, top);
      // By which the config of an image that is unpacked keeps its snapshots.
      const labels = snapshotters.map((name) => [`${Label.gcRefSnapshot}.${name}`, top ?? '']);
      return { children: [], labels: Object.fromEntries(labels) as StringMap, snapshotters };
    } catch {
      return NOTHING;
    }
  }

  #snapshottersOf(namespace: string, snapshot: string): string[] {
    return [...this.#disk.snapshots.keys()].filter((snapshotter) => {
      const path: Path = ['v1', namespace, 'snapshots', bytesOf(snapshotter)];
      return this.#merge.has(path, snapshot) || this.#snapshots.has([...path, snapshot].join('\0'));
    });
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
