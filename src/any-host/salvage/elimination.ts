/**
 * The only namespace that can have the records of a leaf, by what they need and what is there. Called by salvage.ts.
 *
 *   - A file of the content directory is there because a namespace has it. Where the tree that the file is about has all blobs of
 *     all other namespaces, and not this one, it is of the one whose blobs are not all known.
 *   - A snapshot that a record names is in the record's own namespace, and snapshotters have the namespaces of theirs.
 */
import { isDigest } from '../../model/digest.js';
import { Label } from '../../model/labels.js';
import type { Instant } from '../../model/time.js';
import type { Steps } from '../../system/turns.js';
import type { Disk } from './disk.js';
import {
  backendName,
  COLLECTION_PATHS,
  kindIn,
  type Path,
  type RecordKind,
  sizeIn,
  type Tree,
  textOf,
  treeIn,
} from './shapes.js';
import { Gaps, pathKey, type Walked } from './walk.js';

export interface Candidate {
  readonly key: string;
  readonly kind: RecordKind;
  readonly tree: Tree;
  readonly createdAt: Instant;
  readonly changedAt: Instant;
}

const SNAPSHOT_REFERENCE = `${Label.gcRefSnapshot}.`;

export class Elimination {
  readonly #disk: Disk;
  readonly #gaps: Gaps;
  readonly #blobs = new Set<string>();
  /** All of them, or none when one may be missing. */
  readonly #namespaces: readonly string[];
  readonly #snapshots = new Map<string, { namespace: string; created: Instant }[]>();

  /** `walked`: what the file is about. `isNewest`: it has what there is, but for its gaps. */
  static *of(walked: Walked, isNewest: boolean, disk: Disk): Steps<Elimination> {
    const elimination = new Elimination(walked, isNewest, disk);
    yield* elimination.#fill(walked);
    return elimination;
  }

  private constructor(walked: Walked, isNewest: boolean, disk: Disk) {
    this.#disk = disk;
    this.#gaps = new Gaps(walked.gaps);
    this.#namespaces = isNewest ? namespacesIn(walked) : [];
  }

  *#fill({ records }: Walked): Steps {
    for (const { path, key } of records) {
      if (kindIn(path) === 'content') this.#blobs.add(`${path[1]}\0${key}`);
      yield;
    }
    for (const all of this.#disk.snapshots.values())
      for (const [stored, { created }] of all) {
        yield;
        const name = backendName(Buffer.from(stored).toString('latin1'));
        if (name === undefined) continue;
        const { key, namespace } = name;
        const others = this.#snapshots.get(key);
        if (others === undefined) this.#snapshots.set(key, [{ namespace, created }]);
        else others.push({ namespace, created });
      }
  }

  /** Of leaves that are of one bucket: undefined unless all that says something says the same. */
  *ownerOf(leaves: readonly (readonly Candidate[])[]): Steps<Path | undefined> {
    const found = new Map<string, Path>();
    for (const records of leaves) {
      // What was removed has left its files only where another namespace has them, too.
      const isLive = records.every((record) => blobsOf(record).every((blob) => this.#isThere(blob)));
      for (const record of records) {
        yield;
        for (const namespace of this.#namespacesOf(record, isLive)) {
          const path: Path = ['v1', namespace, ...(COLLECTION_PATHS[record.kind] ?? [])];
          // Where nothing is missing, it is an old one.
          if (this.#gaps.find(path, record.key) === undefined) return undefined;
          found.set(pathKey(path), path);
        }
      }
    }
    const [path, ...others] = found.values();
    return others.length === 0 ? path : undefined;
  }

  /** Of each thing that a record needs, and that exists in one namespace only. */
  *#namespacesOf(record: Candidate, isLive: boolean): Generator<string> {
    for (const blob of isLive ? blobsOf(record) : []) {
      const [namespace, ...others] = this.#namespaces.filter(
        (one) =>
          this.#blobs.has(`${one}\0${blob.digest}`) ||
          this.#gaps.find(['v1', one, 'content', 'blob'], blob.digest) !== undefined,
      );
      if (namespace !== undefined && others.length === 0) yield namespace;
    }
    for (const name of snapshotsOf(record)) {
      const [snapshot, ...others] = this.#snapshots.get(name) ?? [];
      if (snapshot === undefined || others.length > 0) continue;
      if (!isDigest(name) || isBetween(record, snapshot.created)) yield snapshot.namespace;
    }
  }

  #isThere({ digest, size }: Blob): boolean {
    const file = this.#disk.blobs?.get(digest);
    return file !== undefined && (size === undefined || file.size === size);
  }
}

/**
 * Namespaces have chains of layers in common, and other snapshots not. A blob is recorded before the snapshot that its label names
 * is made, and the label is set after that.
 */
const isBetween = ({ kind, createdAt, changedAt }: Candidate, made: Instant): boolean =>
  kind === 'content' && createdAt <= made && made <= changedAt;

function namespacesIn({ buckets, gaps }: Walked): string[] {
  const mayMissOne = gaps.some(
    ({ path, from, to }) => path.length === 0 || (path.length === 1 && to !== `${from}\0`),
  );
  return mayMissOne
    ? []
    : buckets.flatMap(([schema, name, ...inner]) =>
        schema === 'v1' && name !== undefined && inner.length === 0 ? [name] : [],
      );
}

interface Blob {
  readonly digest: string;
  readonly size: number | undefined;
}

function blobsOf({ kind, key, tree }: Candidate): Blob[] {
  if (kind === 'content') return [{ digest: key, size: sizeIn(tree) }];
  if (kind === 'lease')
    return [...(treeIn(tree, 'content')?.entries.keys() ?? [])].map((digest) => ({
      digest,
      size: undefined,
    }));
  const target = kind === 'image' ? treeIn(tree, 'target') : undefined;
  const digest = textOf(target?.entries.get('digest'));
  return target === undefined || digest === undefined ? [] : [{ digest, size: sizeIn(target) }];
}

function snapshotsOf({ kind, tree }: Candidate): string[] {
  if (kind === 'container') return [textOf(tree.entries.get('snapshotKey')) ?? ''];
  if (kind === 'lease')
    return [...(treeIn(tree, 'snapshots')?.entries.values() ?? [])].flatMap((names) =>
      Buffer.isBuffer(names) ? [] : [...names.entries.keys()],
    );
  return [...(treeIn(tree, 'labels')?.entries ?? [])].flatMap(([name, value]) =>
    kind === 'content' && name.startsWith(SNAPSHOT_REFERENCE) ? [textOf(value) ?? ''] : [],
  );
}
