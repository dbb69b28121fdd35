/** Trees that a damaged file has roots of, the newest first. Called by salvage.ts. */
import type { LeafEntry, LeafPage, PageScan } from '../../bolt/scan.js';
import { type Instant, zeroTime } from '../../model/time.js';
import type { Steps } from '../../system/turns.js';
import {
  backendNameOf,
  changedAt,
  kindIn,
  NAMESPACE_PARTS,
  type Path,
  readTree,
  type Tree,
} from './shapes.js';
import { type KnownLeaves, type Walked, walkTree } from './walk.js';

/** Trees that are followed: each costs as much as the file has records, and the newest have nearly all that there is. */
const TREES_MAX = 24;

export interface Trees {
  /** What the file is about. Undefined when nothing says so: no meta page is valid, or the page that it names is not whole. */
  readonly first: Walked | undefined;
  readonly older: readonly Walked[];
  /** Whether the newest valid meta page named the first one. */
  readonly isNamed: boolean;
}

interface Root {
  readonly page: number;
  readonly path: Path;
}

export function* findTrees(scan: PageScan): Steps<Trees> {
  const named = scan.metas.map(({ root }): Root => ({ page: root, path: [] }));
  const known: KnownLeaves = new Map();
  const newest = named[0] && (yield* walkTree(scan, named[0].page, [], known));
  const [last, before] = scan.metas;
  // Two meta pages have transactions that follow one another, and no page is after the end that they give: otherwise the
  // newest one may be lost.
  const isNewest =
    last !== undefined &&
    last.transaction - 1n === before?.transaction &&
    !scan.ids.some((id) => id >= last.highWater);
  if (newest !== undefined && newest.gaps.length === 0 && isNewest)
    return { first: newest, older: [], isNamed: true };
  const ages = new Ages(scan);
  const roots: (Root & { age: Instant })[] = [];
  for (const root of [...named.slice(1), ...(yield* rootsIn(scan))])
    if (root.page !== named[0]?.page) roots.push({ ...root, age: yield* ages.of(root.page) });
  roots.sort((a, b) => (a.age === b.age ? a.path.length - b.path.length : a.age < b.age ? 1 : -1));
  const others = yield* walkAll(scan, roots, newest, known);
  // A tree that is older than the rest of the file has pages that were given out again.
  const isStale = newest === undefined || !isNewest || newest.gaps.some(({ reason }) => reason === 'other');
  const better = isStale ? others.find(({ newest: time }) => time > (newest?.newest ?? zeroTime)) : undefined;
  if (better === undefined)
    return {
      first: newest && (yield* consistent(scan, newest, known)),
      older: others,
      isNamed: newest !== undefined,
    };
  const rest = others.filter((one) => one !== better);
  const older = newest === undefined ? rest : [newest, ...rest];
  return { first: yield* consistent(scan, better, known), older, isNamed: false };
}

/**
 * A tree without the namespaces that have what is another's: pages of the tree were given out again. What the file is about has to be
 * right, since all else is compared with it; owners.ts judges the older ones.
 */
function* consistent(scan: PageScan, walked: Walked, known: KnownLeaves): Steps<Walked> {
  const wrong = new Set<string>();
  for (const { path, key, value } of walked.records) {
    yield;
    const kind = kindIn(path);
    const tree = kind === 'snapshot' || kind === 'ingest' ? readTree(scan, value) : undefined;
    const name = tree && backendNameOf(tree);
    if (name?.key === key && name.namespace !== path[1]) wrong.add(path[1] ?? UNKNOWN);
  }
  for (const pair of walked.shared) {
    const names = pair.map(([, namespace = UNKNOWN]) => namespace);
    if (!names.some((name) => wrong.has(name))) for (const name of names) wrong.add(name);
  }
  return wrong.size === 0 ? walked : yield* walkTree(scan, walked.root, walked.path, known, wrong);
}

/** Each page is the beginning of one of them, or below it. */
function* walkAll(
  scan: PageScan,
  roots: readonly Root[],
  newest: Walked | undefined,
  known: KnownLeaves,
): Steps<Walked[]> {
  const seen = new Set(newest?.pages);
  const all: Walked[] = [];
  for (const { page, path } of roots) {
    if (seen.has(page)) continue;
    const walked = yield* path.at(-1) === UNKNOWN
      ? walkNamespace(scan, page, known)
      : walkTree(scan, page, path, known);
    for (const one of walked?.pages ?? []) seen.add(one);
    if (walked !== undefined && all.push(walked) >= TREES_MAX) break;
  }
  return all;
}

/** Leaves that look like those of the root, of `v1`, and of a namespace. */
function* rootsIn(scan: PageScan): Steps<Root[]> {
  const roots: Root[] = [];
  for (const id of scan.ids) {
    yield;
    const page = scan.page(id);
    if (page?.kind !== 'leaf') continue;
    if (page.entries.some(({ key, isBucket }) => key === 'v1' && isBucket))
      roots.push({ page: id, path: [] });
    if (page.entries.some(({ key, isBucket, value }) => key === 'version' && !isBucket && value.length <= 2))
      roots.push({ page: id, path: ['v1'] });
    const isNamespace = page.entries.every(({ key, isBucket }) => isBucket && NAMESPACE_PARTS.includes(key));
    if (isNamespace && page.entries.length > 1) roots.push({ page: id, path: ['v1', UNKNOWN] });
  }
  return roots;
}

/** Of a namespace whose name is not in its page. No name is empty. */
const UNKNOWN = '';

/** A namespace without its name: its snapshots and ingests have it in theirs. */
function* walkNamespace(scan: PageScan, page: number, known: KnownLeaves): Steps<Walked | undefined> {
  const names = new Set<string>();
  for (const { path, value } of (yield* walkTree(scan, page, ['v1', UNKNOWN])).records) {
    yield;
    const kind = kindIn(path);
    if (kind !== 'snapshot' && kind !== 'ingest') continue;
    const tree = readTree(scan, value);
    const name = tree && backendNameOf(tree)?.namespace;
    if (name !== undefined) names.add(name);
  }
  const [name, other] = names;
  return name === undefined || other !== undefined
    ? undefined
    : yield* walkTree(scan, page, ['v1', name], known);
}

const DEPTH_MAX = 60;

const later = (a: Instant, b: Instant): Instant => (a > b ? a : b);

/** Whether entries are the fields of a record that says when it was made. */
const hasTimes = (entries: readonly LeafEntry[]): boolean => entries.some(({ key }) => key === 'createdat');

const treeOf = ({ entries }: LeafPage): Tree => ({
  sequence: 0,
  entries: new Map(entries.map(({ key, value }) => [key, value])),
  isSplit: false,
});

/** The newest change below a page; each page is looked at once. */
class Ages {
  readonly #scan: PageScan;
  readonly #known = new Map<number, Instant>();

  constructor(scan: PageScan) {
    this.#scan = scan;
  }

  *of(id: number, depth = 0): Steps<Instant> {
    const known = this.#known.get(id);
    if (known !== undefined || depth > DEPTH_MAX) return known ?? zeroTime;
    // Also the end of a circle.
    this.#known.set(id, zeroTime);
    yield;
    const page = this.#scan.page(id);
    let newest = zeroTime;
    if (page?.kind === 'branch')
      for (const child of page.children) newest = later(newest, yield* this.of(child.page, depth + 1));
    else if (page !== undefined && hasTimes(page.entries)) newest = changedAt(treeOf(page));
    else
      for (const { isBucket, value } of page?.entries ?? [])
        if (isBucket) newest = later(newest, yield* this.#below(value, depth));
    this.#known.set(id, newest);
    return newest;
  }

  /** Of the bucket that an entry is. */
  *#below(value: Buffer, depth: number): Steps<Instant> {
    const bucket = this.#scan.bucket(value);
    if (bucket !== undefined && bucket.page !== 0) return yield* this.of(bucket.page, depth + 1);
    const tree = hasTimes(bucket?.entries ?? []) ? readTree(this.#scan, value) : undefined;
    return tree === undefined ? zeroTime : changedAt(tree);
  }
}
