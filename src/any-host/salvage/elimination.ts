/**
 * The only namespace that can have the records of a leaf, by what they need and what is there. Called by salvage.ts.
 *
 *   - A file of the content directory is there because a namespace has it. Where the tree that the file is about has all blobs of
 *     all other namespaces, and not this one, it is of the one whose blobs are not all known.
 *   - A snapshot that a record names is in the record's own namespace, and snapshotters have the namespaces of theirs.
 */
import { Label } from '../../model/labels.js';
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
import { Gaps, type Walked } from './walk.js';

interface Candidate {
  readonly key: string;
  readonly kind: RecordKind;
  readonly tree: Tree;
}

const SNAPSHOT_REFERENCE = `${Label.gcRefSnapshot}.`;

export class Elimination {
  readonly #disk: Disk;
  readonly #gaps: Gaps;
  readonly #blobs = new Set<string>();
  /** All of them, or none when one may be missing. */
  readonly #namespaces: readonly string[];
  readonly #snapshots = new Map<string, Set<string>>();

  /** `walked`: what the file is about. `isNewest`: it has what there is, but for its gaps. */
  constructor(walked: Walked, isNewest: boolean, disk: Disk) {
    this.#disk = disk;
    this.#gaps = new Gaps(walked.gaps);
    this.#namespaces = isNewest ? namespacesIn(walked) : [];
    for (const { path, key } of walked.records)
      if (kindIn(path) === 'content') this.#blobs.add(`${path[1]}\0${key}`);
    for (const all of disk.snapshots.values())
      for (const stored of all.keys()) {
        const name = backendName(Buffer.from(stored).toString('latin1'));
        if (name === undefined) continue;
        const owners = this.#snapshots.get(name.key);
        if (owners === undefined) this.#snapshots.set(name.key, new Set([name.namespace]));
        else owners.add(name.namespace);
      }
  }

  ownerOf(records: readonly Candidate[]): Path | undefined {
    const votes = new Set<string>();
    for (const record of records)
      for (const [namespace, ...others] of this.#namespacesOf(record))
        if (namespace !== undefined && others.length === 0) votes.add(namespace);
    const [namespace] = votes;
    if (namespace === undefined || votes.size > 1) return undefined;
    const inner = records[0] && COLLECTION_PATHS[records[0].kind];
    const path: Path = ['v1', namespace, ...(inner ?? [])];
    // Where nothing is missing, it is an old one.
    const isOpen = records.every(({ key }) => this.#gaps.find(path, key) !== undefined);
    return inner !== undefined && isOpen ? path : undefined;
  }

  /** For each thing that a record needs, and that exists: where it can be. */
  *#namespacesOf(record: Candidate): Generator<readonly string[]> {
    for (const { digest, size } of blobsOf(record)) yield this.#withBlob(digest, size);
    for (const name of snapshotsOf(record)) yield [...(this.#snapshots.get(name) ?? [])];
  }

  #withBlob(digest: string, size: number | undefined): string[] {
    const file = this.#disk.blobs?.get(digest);
    if (file === undefined || (size !== undefined && file.size !== size)) return [];
    return this.#namespaces.filter(
      (namespace) =>
        this.#blobs.has(`${namespace}\0${digest}`) ||
        this.#gaps.find(['v1', namespace, 'content', 'blob'], digest) !== undefined,
    );
  }
}

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
