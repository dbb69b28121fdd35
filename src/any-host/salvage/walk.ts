/** A tree of a damaged file, followed as far as it goes: its records, and the places where something is missing. */
import type { BranchPage, LeafEntry, LeafPage } from '../../bolt/scan.js';
import { isDigest } from '../../model/digest.js';
import { type Instant, zeroTime } from '../../model/time.js';
import type { Steps } from '../../system/turns.js';
import { type Facts, kindFor, NO_FACTS } from './facts.js';
import type { Pages } from './pages.js';
import {
  CONTENT_PARTS,
  isOther,
  isStructure,
  kindIn,
  NAMESPACE_PARTS,
  type Path,
  type RecordKind,
} from './shapes.js';

/** A record as the file has it. */
export interface FoundRecord {
  readonly path: Path;
  /** Undefined for an entry of a bucket that is not one of records. */
  readonly kind: RecordKind | undefined;
  readonly key: string;
  readonly isBucket: boolean;
  /** The page that its entry is in. */
  readonly leaf: number;
  /** As its entry has it. */
  readonly value: Buffer;
  readonly facts: Facts;
  /** How much of what its leaf leads to is not of its kind: the leaf is old, or damaged. */
  readonly doubt: 'none' | 'some' | 'most';
}

export interface Gap {
  /** The bucket. */
  readonly path: Path;
  /** What may be missing: keys from this one on, before that one. */
  readonly from: string;
  readonly to: string | undefined;
  readonly page: number | undefined;
  /** `other`: the page is whole, and belongs to something else, or another one goes on in it: it was given out again. */
  readonly reason: 'not readable' | 'other';
}

export interface Walked {
  readonly root: number;
  /** The bucket that it begins at: nothing is known beside it. */
  readonly path: Path;
  readonly records: FoundRecord[];
  readonly gaps: Gap[];
  /** Those of buckets. */
  readonly buckets: Path[];
  /** Of the buckets that number their entries. */
  readonly sequences: Map<string, number>;
  /** Pages of buckets of records, and of buckets of buckets. */
  readonly pages: Set<number>;
  /** Pairs of buckets that lead to the same page. It was given out again: one of them is older than the page. */
  readonly shared: [Path, Path][];
  /** The newest change that a record gives. */
  newest: Instant;
}

/**
 * Whether a page is the one that a branch says: its first key is that of the branch, and the last one is before the next.
 * bbolt changes both together. `first`: undefined for the page that a bucket begins with.
 */
export function isBelow(
  page: LeafPage | BranchPage,
  first: string | undefined,
  to: string | undefined,
): boolean {
  const keys = page.kind === 'leaf' ? page.entries : page.children;
  const [own, last] = [keys[0], keys.at(-1)];
  if (own === undefined || last === undefined) return first === undefined;
  return (first === undefined || own.key === first) && (to === undefined || last.key < to);
}

export const pathKey = (path: Path): string => path.join('\0');

interface Found {
  readonly records: FoundRecord[];
  readonly gaps: Gap[];
}

/** What a leaf of records has, by its page and its bucket: nearly all leaves are of several trees. */
export type KnownLeaves = Map<string, Found>;

/** Everything below a page that is the root of the bucket `path`, but for namespaces that are left out: those are gaps. */
export function* walkTree(
  pages: Pages,
  root: number,
  path: Path,
  known: KnownLeaves = new Map(),
  leftOut: ReadonlySet<string> = new Set(),
): Steps<Walked> {
  const walked: Walked = {
    root,
    path,
    records: [],
    gaps: [],
    buckets: [],
    sequences: new Map(),
    pages: new Set(),
    shared: [],
    newest: zeroTime,
  };
  yield* new Walk(pages, walked, known, leftOut).pages(path, root);
  return walked;
}

interface Range {
  readonly page: number;
  readonly from: string;
  /** What a branch says that its first key is. */
  readonly first?: string;
  readonly to: string | undefined;
}

const isPart = (name: string): boolean => NAMESPACE_PARTS.includes(name) || CONTENT_PARTS.includes(name);

class Walk {
  readonly #pages: Pages;
  readonly #walked: Walked;
  readonly #known: KnownLeaves;
  readonly #leftOut: ReadonlySet<string>;
  /** The bucket of each page. */
  readonly #bucketOf = new Map<number, Path>();

  constructor(pages: Pages, walked: Walked, known: KnownLeaves, leftOut: ReadonlySet<string>) {
    this.#pages = pages;
    this.#walked = walked;
    this.#known = known;
    this.#leftOut = leftOut;
  }

  *pages(path: Path, root: number): Steps {
    const next: Range[] = [{ page: root, from: '', to: undefined }];
    for (let range = next.pop(); range !== undefined; range = next.pop()) {
      yield;
      const { first, ...where } = range;
      const { from, to } = where;
      const page = this.#pages.page(range.page);
      if (page === undefined) {
        const reason = this.#pages.scan.isInside(range.page) ? 'other' : 'not readable';
        this.#walked.gaps.push({ path, ...where, reason });
        continue;
      }
      const isOurs = isBelow(page, first, to);
      const other = this.#bucketOf.get(range.page);
      if (other !== undefined) this.#walked.shared.push([other, path]);
      // A leaf that has something may be distinguished from one of another bucket.
      if (!isOurs || other !== undefined || (page.kind === 'leaf' && !(yield* this.#fits(path, page)))) {
        this.#walked.gaps.push({ path, ...where, reason: 'other' });
        continue;
      }
      this.#walked.pages.add(range.page);
      this.#bucketOf.set(range.page, path);
      if (page.kind === 'leaf') {
        if (kindIn(path) === undefined) yield* this.#entries(path, page.entries, page.id);
        else this.#take(yield* this.#found(path, page));
      } else {
        const ranges = page.children.map(
          (child, n): Range => ({
            page: child.page,
            first: child.key,
            from: n === 0 ? from : child.key,
            to: page.children[n + 1]?.key ?? to,
          }),
        );
        next.push(...ranges.reverse());
      }
    }
  }

  /** Whether a leaf may be of this bucket, by the names that are in it. */
  *#fits(path: Path, page: LeafPage): Steps<boolean> {
    const { entries } = page;
    const names = new Set(entries.map(({ key }) => key));
    const some = (known: readonly string[]): boolean => known.some((name) => names.has(name));
    const areAllBuckets = entries.every(({ isBucket }) => isBucket);
    if (entries.length === 0) return true;
    if (path.length === 0) return areAllBuckets && names.has('v1');
    const areParts = entries.every(({ key }) => isPart(key));
    // Records may be called as the parts of a namespace are; but those are records then.
    if (kindIn(path) !== undefined)
      return areAllBuckets && !(areParts && (yield* this.#found(path, page)).gaps.length > 0);
    if (path.length === 1) return names.has('version') || (areAllBuckets && !areParts);
    if (path.length === 2) return some(NAMESPACE_PARTS) && !some(['version', ...CONTENT_PARTS]);
    if (path[2] === 'content') return some(CONTENT_PARTS);
    return areAllBuckets && !areParts;
  }

  *#found(path: Path, { id, entries }: LeafPage): Steps<Found> {
    const at = `${id}\0${pathKey(path)}`;
    let found = this.#known.get(at);
    if (found === undefined) {
      found = yield* this.#recordsIn(path, entries, id);
      this.#known.set(at, found);
    }
    return found;
  }

  *#entries(path: Path, entries: readonly LeafEntry[], leaf: number): Steps {
    const records: LeafEntry[] = [];
    for (const entry of entries) {
      const inner = [...path, entry.key];
      if (entry.isBucket && isStructure(inner)) yield* this.#bucket(path, inner, entry, leaf);
      else records.push(entry);
    }
    this.#take(yield* this.#recordsIn(path, records, leaf));
  }

  #take({ records, gaps }: Found): void {
    const walked = this.#walked;
    for (const gap of gaps) walked.gaps.push(gap);
    for (const record of records) {
      walked.records.push(record);
      if (record.facts.changedAt > walked.newest) walked.newest = record.facts.changedAt;
    }
  }

  *#recordsIn(path: Path, entries: readonly LeafEntry[], leaf: number): Steps<Found> {
    const records: FoundRecord[] = [];
    const gaps: Gap[] = [];
    let others = 0;
    for (const entry of entries) {
      yield;
      const record = this.#record(path, entry, leaf, gaps);
      if (record === 'other') others++;
      else if (record !== undefined) records.push(record);
    }
    const doubt = others === 0 ? 'none' : others < records.length ? 'some' : 'most';
    return { records: others === 0 ? records : records.map((record) => ({ ...record, doubt })), gaps };
  }

  *#bucket(path: Path, inner: Path, { key, value }: LeafEntry, leaf: number): Steps {
    this.#walked.buckets.push(inner);
    if (isNamespace(inner) && this.#leftOut.has(key)) {
      this.#walked.gaps.push({ path, ...only(key), page: undefined, reason: 'other' });
      return;
    }
    const bucket = this.#pages.bucket(value);
    if (bucket !== undefined) this.#walked.sequences.set(pathKey(inner), bucket.sequence);
    if (bucket?.page !== 0 && bucket !== undefined) yield* this.pages(inner, bucket.page);
    else if (bucket?.entries !== undefined) yield* this.#entries(inner, bucket.entries, leaf);
    else this.#walked.gaps.push({ path, ...only(key), page: undefined, reason: 'not readable' });
  }

  #record(
    path: Path,
    { key, isBucket, value }: LeafEntry,
    leaf: number,
    gaps: Gap[],
  ): FoundRecord | 'other' | undefined {
    const kind = kindIn(path);
    const facts = isBucket ? this.#pages.facts(value) : NO_FACTS;
    if (facts === undefined || (isBucket && kind !== undefined && kindFor(key, facts) !== kind)) {
      const isNoName = kind === 'content' && !isDigest(key);
      const isAnothers = kind !== undefined && (isNoName || isOther(this.#pages, value));
      const reason = facts === undefined && !isAnothers ? 'not readable' : 'other';
      gaps.push({ path, ...only(key), page: this.#pages.bucket(value)?.page, reason });
      return reason === 'other' ? 'other' : undefined;
    }
    // A copy: the bytes of a page are kept by nothing else.
    return { path, kind, key, isBucket, leaf, value: Buffer.from(value), facts, doubt: 'none' };
  }
}

const isNamespace = (path: Path): boolean => path.length === 2 && path[0] === 'v1';

export const only = (key: string): { from: string; to: string } => ({ from: key, to: `${key}\0` });

/** Whether something may be missing at a place. Of one tree: no two of a bucket overlap. */
export class Gaps {
  /** By bucket, in order. */
  readonly #byPath = new Map<string, Gap[]>();

  constructor(gaps: readonly Gap[]) {
    for (const gap of gaps) {
      const key = pathKey(gap.path);
      const others = this.#byPath.get(key);
      if (others === undefined) this.#byPath.set(key, [gap]);
      else others.push(gap);
    }
    for (const all of this.#byPath.values()) all.sort((a, b) => (a.from < b.from ? -1 : 1));
  }

  /** Whether there may be namespaces of which not even the name is known. */
  get mayMissNamespaces(): boolean {
    const ofRoot = this.#byPath.get(pathKey([])) ?? [];
    const ofSchema = this.#byPath.get(pathKey(['v1'])) ?? [];
    return ofRoot.length > 0 || ofSchema.some(({ from, to }) => to !== `${from}\0`);
  }

  /** Of a record, or of a bucket that it would be in. */
  find(path: Path, key: string): Gap | undefined {
    for (let depth = 0; depth <= path.length; depth++) {
      const name = path[depth] ?? key;
      const found = lastFrom(this.#byPath.get(pathKey(path.slice(0, depth))) ?? [], name);
      if (found !== undefined && (found.to === undefined || name < found.to)) return found;
    }
    return undefined;
  }
}

/** The last one that does not begin after a name. */
function lastFrom(gaps: readonly Gap[], name: string): Gap | undefined {
  let [low, high] = [0, gaps.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((gaps[middle]?.from ?? '') <= name) low = middle + 1;
    else high = middle;
  }
  return gaps[low - 1];
}
