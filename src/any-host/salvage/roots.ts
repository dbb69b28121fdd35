/** Trees that a damaged file has roots of, the newest first. Called by salvage.ts. */
import { type Instant, zeroTime } from '../../model/time.js';
import type { Steps } from '../../system/turns.js';
import { type Pages, type Root, UNKNOWN } from './pages.js';
import { ofItsTime, without } from './reuse.js';
import type { IsStructureName } from './shapes.js';
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

/** Reads the pages that no tree leads to only where the newest one is not whole. */
export function* findTrees(pages: Pages, isStructureName: IsStructureName): Steps<Trees> {
  const { metas } = pages.scan;
  const [last] = metas;
  const known: KnownLeaves = new Map();
  let newest = last && (yield* walkTree(pages, last.root, [], known));
  const isNewest = pages.scan.hasNewest;
  // A tree that is older than the rest of the file has pages that were given out again.
  const isStale = !isNewest || newest?.gaps.some(({ reason }) => reason === 'other') !== false;
  // Otherwise what is after its end was written by a commit that did not finish. In free pages that cannot be told from what is older.
  if (!isStale && last !== undefined) pages.scan.end = last.highWater;
  if (newest?.gaps.length === 0 && isNewest) return { first: newest, older: [], isNamed: true };
  yield* pages.findAll();
  // Pages that stand in another's place are known now.
  if (last !== undefined && pages.scan.hasMoved) {
    known.clear();
    newest = yield* walkTree(pages, last.root, [], known);
  }
  const ages = new Ages(pages);
  const roots: (Root & { age: Instant })[] = [];
  for (const root of [...metas.slice(1).map(({ root: page }): Root => ({ page, path: [] })), ...pages.roots])
    if (root.page !== last?.root) roots.push({ ...root, age: yield* ages.of(root.page) });
  roots.sort((a, b) => (a.age === b.age ? a.path.length - b.path.length : a.age < b.age ? 1 : -1));
  const others = yield* walkAll(pages, roots, newest, known);
  const better = isStale ? others.find(({ newest: time }) => time > (newest?.newest ?? zeroTime)) : undefined;
  if (better === undefined) {
    if (newest === undefined) return { first: undefined, older: others, isNamed: false };
    const first = yield* consistent(pages, newest, known);
    // Such a leaf is mostly one of the structure, taken back to an older state.
    const leaves = new Set((yield* ofStructure(first, isStructureName)).keys());
    return { first: yield* without(leaves, first), older: others, isNamed: true };
  }
  const rest = others.filter((one) => one !== better);
  const older = newest === undefined ? rest : [yield* ofItsTime(newest), ...rest];
  const first = yield* ofItsTime(yield* consistent(pages, better, known, isStructureName));
  return { first, older, isNamed: false };
}

/**
 * A tree without the namespaces that have what is another's: pages of the tree were given out again. What the file is about has to be
 * right, since all else is compared with it; owners.ts judges the older ones.
 * @param isStructureName of a tree that no meta page names: a leaf of only such names is mostly one of these
 */
function* consistent(
  pages: Pages,
  walked: Walked,
  known: KnownLeaves,
  isStructureName: IsStructureName = () => false,
): Steps<Walked> {
  const wrong = new Set<string>();
  for (const { path, key, facts } of walked.records) {
    yield;
    const namespace = path[1] ?? UNKNOWN;
    if (facts.name?.key === key && facts.name.namespace !== namespace) wrong.add(namespace);
  }
  for (const namespace of (yield* ofStructure(walked, isStructureName)).values()) wrong.add(namespace);
  for (const pair of walked.shared) {
    const names = pair.map(([, namespace = UNKNOWN]) => namespace);
    if (!names.some((name) => wrong.has(name))) for (const name of names) wrong.add(name);
  }
  return wrong.size === 0 ? walked : yield* walkTree(pages, walked.root, walked.path, known, wrong);
}

/** Leaves of records that have nothing but such names, with their namespaces. */
function* ofStructure({ records }: Walked, isStructureName: IsStructureName): Steps<Map<number, string>> {
  const leaves = new Map<number, string>();
  for (const { path, kind, key, leaf } of records) {
    yield;
    if (kind !== undefined && leaves.get(leaf) !== UNKNOWN)
      leaves.set(leaf, isStructureName(key) ? (path[1] ?? UNKNOWN) : UNKNOWN);
  }
  for (const [leaf, namespace] of leaves) if (namespace === UNKNOWN) leaves.delete(leaf);
  return leaves;
}

/** Each page is the beginning of one of them, or below it. */
function* walkAll(
  pages: Pages,
  roots: readonly Root[],
  newest: Walked | undefined,
  known: KnownLeaves,
): Steps<Walked[]> {
  const seen = new Set(newest?.pages);
  const all: Walked[] = [];
  for (const { page, path } of roots) {
    if (seen.has(page)) continue;
    const walked = yield* path.at(-1) === UNKNOWN
      ? walkNamespace(pages, page, known)
      : walkTree(pages, page, path, known);
    for (const one of walked?.pages ?? []) seen.add(one);
    if (walked !== undefined && all.push(yield* ofItsTime(walked)) >= TREES_MAX) break;
  }
  return all;
}

/** A namespace without its name: its snapshots and ingests have it in theirs. */
function* walkNamespace(pages: Pages, page: number, known: KnownLeaves): Steps<Walked | undefined> {
  const names = new Set<string>();
  for (const { facts } of (yield* walkTree(pages, page, ['v1', UNKNOWN])).records) {
    yield;
    if (facts.name !== undefined) names.add(facts.name.namespace);
  }
  const [name, other] = names;
  return name === undefined || other !== undefined
    ? undefined
    : yield* walkTree(pages, page, ['v1', name], known);
}

const DEPTH_MAX = 60;

const later = (a: Instant, b: Instant): Instant => (a > b ? a : b);

/** The newest change below a page; each page is looked at once. */
class Ages {
  readonly #pages: Pages;
  readonly #known = new Map<number, Instant>();

  constructor(pages: Pages) {
    this.#pages = pages;
  }

  *of(id: number, depth = 0): Steps<Instant> {
    const facts = this.#pages.factsAt(id);
    if (facts !== undefined) return facts.changedAt;
    const known = this.#known.get(id);
    if (known !== undefined || depth > DEPTH_MAX) return known ?? zeroTime;
    // Also the end of a circle.
    this.#known.set(id, zeroTime);
    yield;
    const page = this.#pages.page(id);
    let newest = zeroTime;
    if (page?.kind === 'branch')
      for (const child of page.children) newest = later(newest, yield* this.of(child.page, depth + 1));
    else
      for (const { isBucket, value } of page?.entries ?? [])
        if (isBucket) newest = later(newest, yield* this.#below(value, depth));
    this.#known.set(id, newest);
    return newest;
  }

  /** Of the bucket that an entry is. */
  *#below(value: Buffer, depth: number): Steps<Instant> {
    const bucket = this.#pages.bucket(value);
    if (bucket !== undefined && bucket.page !== 0) return yield* this.of(bucket.page, depth + 1);
    return this.#pages.facts(value)?.changedAt ?? zeroTime;
  }
}
