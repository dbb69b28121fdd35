/**
 * The records of a damaged file, out of all its trees and leaves. Called by salvage.ts.
 *
 * The tree of the newest transaction says what there was, but for its gaps. Only in these anything else counts: first the older trees, the
 * newest before the others, then leaves that no tree leads to. bbolt never writes a page in its place, so older trees share
 * most of their pages with the newest one; but it gives pages out again, so an old entry may lead to what is now another
 * record. Therefore:
 *
 *   - a page belongs to one record: an entry that leads to a page of another one is old, and left out;
 *   - what an older tree could have had, and has not, was removed: only what changed after that tree can still be there;
 *   - a name that its record has in it (snapshots, ingests), or a size that the file has (content), proves a record; what the
 *     disk contradicts is left out; of a leaf that leads to another record's page, only what is proved is taken;
 *   - of several versions, the one that changed last counts.
 */
import type { Instant } from '../../model/time.js';
import type { Steps } from '../../system/turns.js';
import type { Creations } from './creations.js';
import type { Disk } from './disk.js';
import type { Owners } from './owners.js';
import { type Proof, proofOf } from './proof.js';
import { COLLECTION_PATHS, namesItself, type Path, type RecordKind } from './shapes.js';
import { type FoundRecord, type Gap, Gaps, pathKey, type Walked } from './walk.js';

export type Origin = 'current' | 'older';
export interface Kept extends FoundRecord {
  readonly origin: Origin;
}

export interface LeftOut {
  readonly kind: RecordKind;
  readonly path: Path;
  readonly key: string;
  readonly reason: string;
}

/** What is kept of a bucket. */
export interface Collection {
  readonly path: Path;
  readonly records: ReadonlyMap<string, Kept>;
}

interface Layer {
  readonly path: Path;
  readonly gaps: Gaps;
  /** Undefined of the tree that the file is about: what is not in a gap of it is not there. */
  readonly newest: bigint | undefined;
}

const OF_ANOTHER = 'its fields belong to another record as well';

const EVERYTHING: Gap = { path: [], from: '', to: undefined, page: undefined, reason: 'not readable' };

export class Merge {
  readonly #disk: Disk;
  readonly #owners: Owners;
  readonly #creations: Creations;
  readonly #collections = new Map<string, { path: Path; records: Map<string, Kept> }>();
  readonly #layers: Layer[] = [];
  /** The record that a page belongs to. */
  readonly #claims = new Map<number, FoundRecord>();
  readonly #structure = new Set<number>();
  readonly #dropped = new Set<string>();
  /** Of the tree that the file is about. */
  #newest: Gaps | undefined;
  readonly leftOut: LeftOut[] = [];
  /** Nothing proves which namespace they are of. */
  readonly unplaced: FoundRecord[] = [];
  readonly sequences = new Map<string, number>();

  constructor(disk: Disk, owners: Owners, creations: Creations) {
    this.#creations = creations;
    this.#disk = disk;
    this.#owners = owners;
  }

  get collections(): Iterable<Collection> {
    return this.#collections.values();
  }

  /** REQUIRES: nothing was added. All of a tree that lacks nothing, whatever is beside the file: it is what its owner finds, too. */
  *takeWhole(walked: Walked): Steps {
    this.#addSequences(walked);
    for (const record of walked.records) {
      this.#put({ ...record, origin: 'current' });
      yield;
    }
  }

  /**
   * REQUIRES: nothing was added. The tree that the file is about; `isNamed`: by a meta page. Without that anything may be
   * missing.
   */
  *begin(walked: Walked | undefined, isNamed: boolean): Steps {
    if (!isNamed) this.#layers.push({ path: [], gaps: new Gaps([EVERYTHING]), newest: undefined });
    if (walked === undefined) return;
    this.#newest = new Gaps(walked.gaps);
    for (const page of walked.pages) this.#structure.add(page);
    this.#addSequences(walked);
    for (const record of walked.records) {
      this.#offer(record, isNamed ? 'current' : 'older');
      yield;
    }
    this.#addLayer(walked, isNamed);
  }

  /** An older tree; the newest of them before the others. */
  *addTree(walked: Walked): Steps {
    for (const page of walked.pages) if (!this.#claims.has(page)) this.#structure.add(page);
    this.#addSequences(walked);
    for (const record of walked.records) {
      this.#offerPlaced(walked, record);
      yield;
    }
    if (!this.#owners.isContradicted(walked)) this.#addLayer(walked, false);
  }

  #addSequences({ sequences }: Walked): void {
    for (const [path, sequence] of sequences)
      this.sequences.set(path, Math.max(sequence, this.sequences.get(path) ?? 0));
  }

  #addLayer({ path, gaps, newest }: Walked, isNamed: boolean): void {
    // Pages that were given out again may also be newer than the tree, which then is not of one moment.
    if (!isNamed && gaps.some(({ reason }) => reason === 'other')) return;
    this.#layers.push({ path, gaps: new Gaps(gaps), newest: isNamed ? undefined : newest });
  }

  /** A record of an older tree, where it is proved to be. */
  #offerPlaced(walked: Walked, record: FoundRecord): void {
    if (record.kind === undefined) {
      if (!this.#owners.isContradicted(walked, record.path)) this.#offer(record, 'older');
      return;
    }
    const path = namesItself(record.kind) ? record.path : this.#owners.ownerOf(record.leaf);
    if (path === undefined) this.unplaced.push(record);
    else this.#offer({ ...record, path }, 'older');
  }

  /** A record of a leaf that nothing leads to. */
  addStray(record: FoundRecord): void {
    this.#offer(record, 'older');
  }

  /** Whether a page is one of the trees that were added, or of a record other than `key`. */
  isTaken(page: number, key?: string): boolean {
    const owner = this.#claims.get(page);
    return this.#structure.has(page) || (owner !== undefined && owner.key !== key);
  }

  /** Whether a record that changed at a time, or one of unknown age, may be missing from what is known. */
  isOpen(path: Path, key: string, time?: bigint): boolean {
    return this.#layers.every(
      ({ path: from, gaps, newest }) =>
        from.some((name, depth) => path[depth] !== name) ||
        gaps.find(path, key) !== undefined ||
        (newest !== undefined && time !== undefined && time > newest),
    );
  }

  /** Those of `namespaces()` that may have had it, and in which it is not known. */
  couldHave(namespaces: ReadonlySet<string>, kind: RecordKind, key: string, time: Instant): string[] {
    if (kind === 'content' && this.#disk.blobs?.has(key) === false) return [];
    return [...namespaces].filter((namespace) => {
      const inner = COLLECTION_PATHS[kind];
      const path: Path = ['v1', namespace, ...(inner ?? ['snapshots'])];
      return !this.has(path, key) && this.isOpen(path, key, time);
    });
  }

  /** Whether the tree that the file is about may have had it, or has it damaged. */
  mayMiss(path: Path, key: string): boolean {
    return this.#layers[0]?.gaps.find(path, key) !== undefined || this.#dropped.has(pathKey([...path, key]));
  }

  /** Whether it is there, or may have been lost: nothing shows that the bucket lacks it. */
  mayHave(path: Path, key: string): boolean {
    return (
      this.has(path, key) ||
      this.#dropped.has(pathKey([...path, key])) ||
      this.#newest?.find(path, key) !== undefined
    );
  }

  /** Whether there may be namespaces of which not even the name is known. */
  get mayMissNamespaces(): boolean {
    return this.#newest?.mayMissNamespaces !== false;
  }

  has(path: Path, key: string): boolean {
    return this.#kept(path, key) !== undefined;
  }

  #kept(path: Path, key: string): Kept | undefined {
    return this.#collections.get(pathKey(path))?.records.get(key);
  }

  #offer(record: FoundRecord, origin: Origin): void {
    const { path, key, facts, doubt } = record;
    const time = facts.changedAt;
    if (origin === 'older') {
      if (!this.isOpen(path, key, time)) return;
      const there = this.#kept(path, key);
      if (there !== undefined && (there.origin === 'current' || there.facts.changedAt >= time)) return;
    }
    const proof = proofOf(record, this.#disk);
    // What an old leaf has is old, and nothing that is missing.
    if (origin === 'older' && doubt !== 'none' && proof === 'plausible') return;
    const reason =
      typeof proof === 'object' ? proof.contradicted : this.#reasonAgainst(record, proof, origin);
    if (reason !== undefined) this.#leaveOut(record, reason);
    else if (this.#claim(record, proof, origin)) this.#put({ ...record, origin });
  }

  /** Why nothing shows that it is what its entry says. */
  #reasonAgainst(record: FoundRecord, proof: Proof, origin: Origin): string | undefined {
    const { kind, key, facts, doubt } = record;
    const isProved = proof === 'proved';
    const isOlder = origin === 'older';
    if (isOlder && !this.#isOfOneTime(record)) return 'nothing shows whether its labels are its own';
    // Where most pages are the wrong ones, the leaf is.
    if (!isOlder && !isProved && doubt === 'most') return 'its leaf leads to what is of other buckets';
    if (!isOlder || kind === undefined) return undefined;
    if (facts.isStrange) return 'its fields are damaged';
    if (!isProved && this.#creations.isAnothers(kind, record)) return OF_ANOTHER;
    if (kind === 'lease' && isImageName(key)) return 'it is called as an image is';
    if (this.#mayBeAnothers(kind, record))
      return 'another namespace has one of that name, and nothing shows whose fields these are';
    return undefined;
  }

  #put(record: Kept): void {
    const at = pathKey(record.path);
    let collection = this.#collections.get(at);
    if (collection === undefined) {
      collection = { path: record.path, records: new Map() };
      this.#collections.set(at, collection);
    }
    const before = collection.records.get(record.key);
    if (before !== undefined) this.#unclaim(before);
    collection.records.set(record.key, record);
  }

  /** False when a page of it belongs to another record. Of two that nothing distinguishes neither is kept. */
  #claim(record: FoundRecord, proof: Proof, origin: Origin): boolean {
    for (const page of record.facts.pages) {
      const other = this.#claims.get(page);
      if (other === undefined || isSame(other, record)) continue;
      const kept = this.#keptAs(other);
      if (kept === undefined && proof === 'proved') continue;
      const isOthersProved = kept !== undefined && proofOf(kept, this.#disk) === 'proved';
      if (proof === 'proved' && !isOthersProved && kept !== undefined) {
        this.#drop(kept);
        continue;
      }
      this.#leaveOut(record, OF_ANOTHER);
      // One of them is wrong, and nothing says which. What proves a blob does not say whose it is.
      const isTie = isOthersProved ? proof === 'proved' && kept.origin === origin : kept !== undefined;
      if (isTie && kept !== undefined) this.#drop(kept);
      return false;
    }
    for (const page of record.facts.pages) this.#claims.set(page, record);
    return true;
  }

  #unclaim(record: FoundRecord): void {
    for (const page of record.facts.pages) if (this.#claims.get(page) === record) this.#claims.delete(page);
  }

  #keptAs({ path, key, value }: FoundRecord): Kept | undefined {
    const kept = this.#kept(path, key);
    return kept?.value === value ? kept : undefined;
  }

  #drop(record: FoundRecord): void {
    this.#collections.get(pathKey(record.path))?.records.delete(record.key);
    this.#leaveOut(record, OF_ANOTHER);
  }

  #leaveOut({ path, kind = 'other', key }: FoundRecord, reason: string): void {
    this.#dropped.add(pathKey([...path, key]));
    this.leftOut.push({ kind, path, key, reason });
  }

  /** What proves a blob or an image proves its own page. Where labels have pages of their own, what they refer to proves these. */
  #isOfOneTime({ kind, key, facts: { isSplit, references } }: FoundRecord): boolean {
    if ((kind !== 'content' && kind !== 'image') || !isSplit) return true;
    if (kind === 'image') return false;
    const named = this.#disk.namedIn(key);
    return references.length > 0 && references.every((name) => named.has(name));
  }

  /** Its bucket has had one of that name that was made at another time, and so has another namespace, whose page this may be. */
  #mayBeAnothers(kind: RecordKind, { path, key, facts }: FoundRecord): boolean {
    if (namesItself(kind)) return false;
    const made = this.#owners.madeAs(kind, key);
    const isOurs = (other: Path): boolean => pathKey(other) === pathKey(path);
    return (
      made.some((other) => isOurs(other.path) && other.time !== facts.createdAt) &&
      made.some((other) => !isOurs(other.path))
    );
  }

  /** Those that records are known of, and those that snapshots name. */
  *namespaces(): Steps<ReadonlySet<string>> {
    const names = new Set<string>();
    const buckets = [...this.#collections.values()].map(({ path }) => path);
    for (const key of this.sequences.keys()) buckets.push(key.split('\0'));
    for (const [schema, namespace] of buckets)
      if (schema === 'v1' && namespace !== undefined) names.add(namespace);
    for (const all of this.#disk.snapshots.values())
      for (const name of all.keys()) {
        yield;
        const [namespace = ''] = name.split('/', 1);
        names.add(Buffer.from(namespace).toString('latin1'));
      }
    return names;
  }
}

/** A path with a tag or a digest. The ids of containers and sandboxes cannot be such, and those of leases are not. */
const isImageName = (key: string): boolean => /\/[^/]*[:@][^/]+$/.test(key);

const isSame = (a: FoundRecord, b: FoundRecord): boolean =>
  a.key === b.key && pathKey(a.path) === pathKey(b.path);
