/**
 * The only namespace that can have the records of a leaf, by what they need and what is there. Called by salvage.ts.
 *
 *   - A file of the content directory is there because a namespace has it. Where the tree that the file is about has all blobs of
 *     all other namespaces, and not this one, it is of the one whose blobs are not all known.
 *   - A snapshot that a record names is in the record's own namespace, and snapshotters have the namespaces of theirs.
 */
import { isDigest } from '../../model/digest.js';
import type { Instant } from '../../model/time.js';
import type { Steps } from '../../system/turns.js';
import type { Disk } from './disk.js';
import type { Blob, Facts } from './facts.js';
import { backendName, COLLECTION_PATHS, type Path, type RecordKind } from './shapes.js';
import { Gaps, pathKey, type Walked } from './walk.js';

export interface Candidate {
  readonly key: string;
  readonly kind: RecordKind | undefined;
  readonly facts: Facts;
}

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
    this.#namespaces = isNewest && !this.#gaps.mayMissNamespaces ? namespacesIn(walked) : [];
  }

  *#fill({ records }: Walked): Steps {
    for (const { path, kind, key } of records) {
      if (kind === 'content') this.#blobs.add(`${path[1]}\0${key}`);
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
          const path: Path = ['v1', namespace, ...(COLLECTION_PATHS[record.kind ?? 'other'] ?? [])];
          // Where nothing is missing, it is an old one.
          if (this.#gaps.find(path, record.key) === undefined) return undefined;
          found.set(pathKey(path), path);
        }
      }
    }
    const [path, ...others] = found.values();
    return others.length === 0 ? path : undefined;
  }

  /**
   * Whether records need what only other namespaces have, and nothing that this one has. What an older tree has there is of a page
   * that was given out again.
   */
  *contradicts(records: readonly Candidate[], namespace: string): Steps<boolean> {
    let isOthers = false;
    for (const { facts } of records) {
      yield;
      const owners = facts.blobs.map(({ digest }) =>
        this.#namespaces.filter((one) => this.#blobs.has(`${one}\0${digest}`)),
      );
      for (const name of facts.snapshots)
        owners.push((this.#snapshots.get(name) ?? []).map((snapshot) => snapshot.namespace));
      if (owners.some((all) => all.includes(namespace))) return false;
      isOthers ||= owners.some((all) => all.length > 0);
    }
    return isOthers;
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
    for (const name of record.facts.snapshots) {
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
const isBetween = ({ kind, facts: { createdAt, changedAt } }: Candidate, made: Instant): boolean =>
  kind === 'content' && createdAt <= made && made <= changedAt;

const namespacesIn = ({ buckets }: Walked): string[] =>
  buckets.flatMap(([schema, name, ...inner]) =>
    schema === 'v1' && name !== undefined && inner.length === 0 ? [name] : [],
  );

const blobsOf = ({ kind, key, facts }: Candidate): readonly Blob[] =>
  kind === 'content' ? [{ digest: key, size: facts.size }] : facts.blobs;
