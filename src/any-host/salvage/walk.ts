/** A tree of a damaged file, followed as far as it goes: its records, and the places where something is missing. */
import type { BranchPage, LeafEntry, LeafPage, PageScan } from '../../bolt/scan.js';
import { type Instant, zeroTime } from '../../model/time.js';
import {
  CONTENT_PARTS,
  changedAt,
  createdAt,
  isOther,
  isStructure,
  kindIn,
  kindOf,
  NAMESPACE_PARTS,
  type Path,
  readTree,
} from './shapes.js';

/** A record as the file has it. */
export interface FoundRecord {
  readonly path: Path;
  readonly key: string;
  readonly isBucket: boolean;
  /** The page that its entry is in. */
  readonly leaf: number;
  /** As its entry has it. */
  readonly value: Buffer;
  /** What its fields are in, beside the leaf of its entry. */
  readonly pages: readonly number[];
  readonly createdAt: Instant;
  readonly changedAt: Instant;
  /** Its leaf leads to what is not of its kind: it is old, or damaged. */
  readonly isDoubtful: boolean;
}

export interface Gap {
  /** The bucket. */
  readonly path: Path;
  /** What may be missing: keys from this one on, before that one. */
  readonly from: string;
  readonly to: string | undefined;
  readonly page: number | undefined;
  /** `other`: the page is whole, and belongs to something else: it was given out again. */
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

/** Everything below a page that is the root of the bucket `path`, but for namespaces that are left out: those are gaps. */
export function walkTree(
  scan: PageScan,
  root: number,
  path: Path,
  leftOut: ReadonlySet<string> = new Set(),
): Walked {
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
  new Walk(scan, walked, leftOut).pages(path, root);
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
  readonly #scan: PageScan;
  readonly #walked: Walked;
  readonly #leftOut: ReadonlySet<string>;
  /** The bucket of each page. */
  readonly #bucketOf = new Map<number, Path>();

  constructor(scan: PageScan, walked: Walked, leftOut: ReadonlySet<string>) {
    this.#scan = scan;
    this.#walked = walked;
    this.#leftOut = leftOut;
  }

  pages(path: Path, root: number): void {
    const next: Range[] = [{ page: root, from: '', to: undefined }];
    for (let range = next.pop(); range !== undefined; range = next.pop()) {
      const { first, ...where } = range;
      const { from, to } = where;
      const page = this.#scan.page(range.page);
      if (page === undefined) {
        this.#walked.gaps.push({ path, ...where, reason: 'not readable' });
        continue;
      }
      const isOurs = isBelow(page, first, to);
      const other = this.#bucketOf.get(range.page);
      if (other !== undefined) this.#walked.shared.push([other, path]);
      // A leaf that has something may be distinguished from one of another bucket.
      if (!isOurs || other !== undefined || (page.kind === 'leaf' && !this.#fits(path, page))) {
        this.#walked.gaps.push({ path, ...where, reason: 'other' });
        continue;
      }
      this.#walked.pages.add(range.page);
      this.#bucketOf.set(range.page, path);
      if (page.kind === 'leaf') this.#entries(path, page.entries, page.id);
      else {
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
  #fits(path: Path, { entries }: LeafPage): boolean {
    const names = new Set(entries.map(({ key }) => key));
    const some = (known: readonly string[]): boolean => known.some((name) => names.has(name));
    const areAllBuckets = entries.every(({ isBucket }) => isBucket);
    if (entries.length === 0) return true;
    if (path.length === 0) return areAllBuckets && names.has('v1');
    if (kindIn(path) !== undefined) return areAllBuckets;
    if (path.length === 1) return names.has('version') || (areAllBuckets && ![...names].every(isPart));
    if (path.length === 2) return some(NAMESPACE_PARTS) && !some(['version', ...CONTENT_PARTS]);
    if (path[2] === 'content') return some(CONTENT_PARTS);
    return areAllBuckets && ![...names].every(isPart);
  }

  #entries(path: Path, entries: readonly LeafEntry[], leaf: number): void {
    const records: FoundRecord[] = [];
    let isDoubtful = false;
    for (const entry of entries) {
      const inner = [...path, entry.key];
      if (entry.isBucket && isStructure(inner)) {
        this.#bucket(path, inner, entry, leaf);
        continue;
      }
      const record = this.#record(path, entry, leaf);
      if (record === 'other') isDoubtful = true;
      else if (record !== undefined) records.push(record);
    }
    for (const record of records) this.#walked.records.push(isDoubtful ? { ...record, isDoubtful } : record);
  }

  #bucket(path: Path, inner: Path, { key, value }: LeafEntry, leaf: number): void {
    this.#walked.buckets.push(inner);
    if (isNamespace(inner) && this.#leftOut.has(key)) {
      this.#walked.gaps.push({ path, ...only(key), page: undefined, reason: 'other' });
      return;
    }
    const bucket = this.#scan.bucket(value);
    if (bucket !== undefined) this.#walked.sequences.set(pathKey(inner), bucket.sequence);
    if (bucket?.page !== 0 && bucket !== undefined) this.pages(inner, bucket.page);
    else if (bucket?.entries !== undefined) this.#entries(inner, bucket.entries, leaf);
    else this.#walked.gaps.push({ path, ...only(key), page: undefined, reason: 'not readable' });
  }

  #record(path: Path, { key, isBucket, value }: LeafEntry, leaf: number): FoundRecord | 'other' | undefined {
    const pages: number[] = [];
    let [created, time] = [zeroTime, zeroTime];
    if (isBucket) {
      const tree = readTree(this.#scan, value, pages);
      const kind = kindIn(path);
      if (tree === undefined || (kind !== undefined && kindOf(key, tree) !== kind)) {
        const reason = tree === undefined ? 'not readable' : 'other';
        this.#walked.gaps.push({ path, ...only(key), page: this.#scan.bucket(value)?.page, reason });
        const isAnothers = kind !== undefined && isOther(this.#scan, value);
        return reason === 'other' || isAnothers ? 'other' : undefined;
      }
      [created, time] = [createdAt(tree), changedAt(tree)];
    }
    if (time > this.#walked.newest) this.#walked.newest = time;
    return {
      path,
      key,
      isBucket,
      leaf,
      value,
      pages,
      createdAt: created,
      changedAt: time,
      isDoubtful: false,
    };
  }
}

const isNamespace = (path: Path): boolean => path.length === 2 && path[0] === 'v1';

const only = (key: string): { from: string; to: string } => ({ from: key, to: `${key}\0` });

/** Whether something may be missing at a place. */
export class Gaps {
  readonly #byPath = new Map<string, Gap[]>();

  constructor(gaps: readonly Gap[]) {
    for (const gap of gaps) {
      const key = pathKey(gap.path);
      const others = this.#byPath.get(key);
      if (others === undefined) this.#byPath.set(key, [gap]);
      else others.push(gap);
    }
  }

  /** Of a record, or of a bucket that it would be in. */
  find(path: Path, key: string): Gap | undefined {
    for (let depth = 0; depth <= path.length; depth++) {
      const name = path[depth] ?? key;
      const found = this.#byPath
        .get(pathKey(path.slice(0, depth)))
        ?.find(({ from, to }) => from <= name && (to === undefined || name < to));
      if (found !== undefined) return found;
    }
    return undefined;
  }
}
