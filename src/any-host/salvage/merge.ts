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
import type { PageScan } from '../../bolt/scan.js';
import type { Instant } from '../../model/time.js';
import { decodeAny } from '../../model/wire.js';
import type { Steps } from '../../system/turns.js';
import type { Creations } from './creations.js';
import type { Disk } from './disk.js';
import { namesItself, type Owners } from './owners.js';
import {
  backendNameOf,
  COLLECTION_PATHS,
  kindIn,
  type Path,
  type RecordKind,
  readTree,
  sizeIn,
  strangeField,
  type Tree,
  textOf,
  treeIn,
} from './shapes.js';
import { type FoundRecord, type Gap, Gaps, pathKey, type Walked } from './walk.js';

/** Labels that keep other objects. */
const REFERENCE = 'containerd.io/gc.ref.';
const OPENING = '{'.charCodeAt(0);

export type Origin = 'current' | 'older';
export interface Kept extends FoundRecord {
  readonly origin: Origin;
}

const referencesIn = (tree: Tree): string[] =>
  [...(treeIn(tree, 'labels')?.entries ?? [])].flatMap(([key, value]) =>
    key.startsWith(REFERENCE) ? [textOf(value) ?? ''] : [],
  );

/** `contradicted`: by the disk. */
type Proof = 'proved' | 'plausible' | 'contradicted';

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

const EVERYTHING: Gap = { path: [], from: '', to: undefined, page: undefined, reason: 'not readable' };

export class Merge {
  readonly #scan: PageScan;
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
  readonly unplaced: (FoundRecord & { readonly kind: RecordKind })[] = [];
  readonly sequences = new Map<string, number>();

  constructor(scan: PageScan, disk: Disk, owners: Owners, creations: Creations) {
    this.#creations = creations;
    this.#scan = scan;
    this.#disk = disk;
    this.#owners = owners;
  }

  get collections(): Iterable<Collection> {
    return this.#collections.values();
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
    const kind = kindIn(record.path);
    if (kind === undefined) {
      if (!this.#owners.isContradicted(walked, record.path)) this.#offer(record, 'older');
      return;
    }
    const path = namesItself(kind) ? record.path : this.#owners.ownerOf(record.leaf);
    if (path === undefined) this.unplaced.push({ ...record, kind });
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
    return this.#newest?.hasRange([]) !== false || this.#newest.hasRange(['v1']);
  }

  has(path: Path, key: string): boolean {
    return this.#kept(path, key) !== undefined;
  }

  treeOf(record: FoundRecord): Tree | undefined {
    return record.isBucket ? readTree(this.#scan, record.value) : undefined;
  }

  #kept(path: Path, key: string): Kept | undefined {
    return this.#collections.get(pathKey(path))?.records.get(key);
  }

  #offer(record: FoundRecord, origin: Origin): void {
    const { path, key, changedAt: time } = record;
    if (origin === 'older') {
      if (!this.isOpen(path, key, time)) return;
      const there = this.#kept(path, key);
      if (there !== undefined && (there.origin === 'current' || there.changedAt >= time)) return;
    }
    const proof = this.#proofOf(record);
    if (proof === 'contradicted') return;
    if (origin === 'older' && !this.#isOfOneTime(record)) {
      this.#leaveOut(record, 'nothing shows whether its labels are its own');
      return;
    }
    if (record.isDoubtful && origin === 'older' && proof !== 'proved') return;
    const kind = kindIn(path);
    const tree = origin === 'older' && kind !== undefined ? this.treeOf(record) : undefined;
    if (tree !== undefined && strangeField(tree) !== undefined) {
      this.#leaveOut(record, 'its fields are damaged');
      return;
    }
    if (origin === 'older' && proof !== 'proved' && kind && this.#creations.isAnothers(kind, record)) {
      this.#leaveOut(record, 'its fields belong to another record as well');
      return;
    }
    if (!this.#claim(record, proof, origin)) return;
    this.#put({ ...record, origin });
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
    for (const page of record.pages) {
      const other = this.#claims.get(page);
      if (other === undefined || isSame(other, record)) continue;
      const kept = this.#keptAs(other);
      if (kept === undefined && proof === 'proved') continue;
      const isOthersProved = kept !== undefined && this.#proofOf(kept) === 'proved';
      if (proof === 'proved' && !isOthersProved && kept !== undefined) {
        this.#drop(kept);
        continue;
      }
      this.#leaveOut(record, 'its fields belong to another record as well');
      // One of them is wrong, and nothing says which. What proves a blob does not say whose it is.
      const isTie = isOthersProved ? proof === 'proved' && kept.origin === origin : kept !== undefined;
      if (isTie && kept !== undefined) this.#drop(kept);
      return false;
    }
    for (const page of record.pages) this.#claims.set(page, record);
    return true;
  }

  #unclaim(record: FoundRecord): void {
    for (const page of record.pages) if (this.#claims.get(page) === record) this.#claims.delete(page);
  }

  #keptAs({ path, key, value }: FoundRecord): Kept | undefined {
    const kept = this.#kept(path, key);
    return kept?.value === value ? kept : undefined;
  }

  #drop(record: FoundRecord): void {
    this.#collections.get(pathKey(record.path))?.records.delete(record.key);
    this.#leaveOut(record, 'its fields belong to another record as well');
  }

  #leaveOut({ path, key }: FoundRecord, reason: string): void {
    this.#dropped.add(pathKey([...path, key]));
    this.leftOut.push({ kind: kindIn(path) ?? 'other', path, key, reason });
  }

  #proofOf(record: FoundRecord): Proof {
    const { path, key } = record;
    const kind = kindIn(path);
    if (kind === 'container' || kind === 'sandbox') return this.#specProof(record);
    if (kind !== 'content' && kind !== 'snapshot' && kind !== 'ingest') return 'plausible';
    const tree = this.treeOf(record);
    if (tree === undefined) return 'contradicted';
    if (kind === 'content') {
      if (this.#disk.blobs === undefined) return 'plausible';
      const file = this.#disk.blobs.get(key);
      const isRight = file !== undefined && file.size === sizeIn(tree);
      if (isRight && !this.#hasOthersLabels(key, tree)) return 'proved';
      const wrong = file === undefined ? 'it has no file' : `its file has ${file.size} bytes`;
      this.#leaveOut(record, isRight ? 'its labels are of another one' : wrong);
      return 'contradicted';
    }
    const name = backendNameOf(tree);
    if (name?.namespace !== path[1] || name?.key !== key) {
      this.#leaveOut(record, 'its fields are of another one');
      return 'contradicted';
    }
    const backend = kind === 'snapshot' ? this.#disk.snapshots.get(path[3] ?? '') : undefined;
    const stored = `${name.namespace}/${name.number}/${name.key}`;
    if (backend === undefined || backend.has(Buffer.from(stored, 'latin1').toString())) return 'proved';
    this.#leaveOut(record, 'its snapshotter does not have it');
    return 'contradicted';
  }

  /** What proves a blob or an image proves its own page. Where labels have pages of their own, what they refer to proves these. */
  #isOfOneTime(record: FoundRecord): boolean {
    const kind = kindIn(record.path);
    if (kind !== 'content' && kind !== 'image') return true;
    const tree = this.treeOf(record);
    if (tree === undefined || !tree.isSplit) return true;
    if (kind === 'image') return false;
    const named = this.#disk.namedIn(record.key);
    const references = referencesIn(tree);
    return references.length > 0 && references.every((name) => named.has(name));
  }

  /** Its labels refer to nothing of what the document refers to. */
  #hasOthersLabels(digest: string, tree: Tree): boolean {
    const references = referencesIn(tree);
    const named = references.length === 0 ? new Set<string>() : this.#disk.namedIn(digest);
    return named.size > 0 && !references.some((name) => named.has(name));
  }

  /** Specs are long, and mostly JSON, which shows what was written over. */
  #specProof(record: FoundRecord): Proof {
    const spec = this.treeOf(record)?.entries.get('spec');
    if (spec === undefined) return 'plausible';
    try {
      const { value } = decodeAny(Buffer.isBuffer(spec) ? spec : Buffer.alloc(0));
      if (value[0] === OPENING) JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(value));
      return 'plausible';
    } catch {
      this.#leaveOut(record, 'its spec is damaged');
      return 'contradicted';
    }
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

const isSame = (a: FoundRecord, b: FoundRecord): boolean =>
  a.key === b.key && pathKey(a.path) === pathKey(b.path);
