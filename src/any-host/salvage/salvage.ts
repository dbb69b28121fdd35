/**
 * Brings a `meta.db` back that does not open any more: what can be read of it, and what is known from elsewhere, in a new file;
 * and a report of what is there, what is missing and what was guessed. The damaged file is only read, and so is everything beside it. Nobody may
 * write to it meanwhile. How records are distinguished: merge.ts. Called by the verb.
 */
import { PageScan } from '../../bolt/scan.js';
import { SCHEMA } from '../../engine/schema/legacy.js';
import { failedPrecondition } from '../../errors.js';
import { type Instant, zeroTime } from '../../model/time.js';
import { inTurns, type Steps } from '../../system/turns.js';
import { outsideOf } from '../compact.js';
import { findPlaces } from '../places.js';
import { Creations } from './creations.js';
import { type Disk, lookAtDisk } from './disk.js';
import { Elimination } from './elimination.js';
import { familiesIn } from './families.js';
import { Merge } from './merge.js';
import { Owners } from './owners.js';
import { Pages } from './pages.js';
import { isContradicted } from './proof.js';
import { type Rebuilt, rebuild } from './rebuild.js';
import { findTrees, type Trees } from './roots.js';
import { type IsStructureName, type Path, placeIn, type RecordKind } from './shapes.js';
import { addStrays, readStrays, type Stray, type StrayLeaf } from './stray.js';
import type { Gap, Walked } from './walk.js';
import { GUESSED_VERSION, writeRecords } from './write.js';

export interface SalvagedRecords {
  kind: RecordKind;
  namespace: string;
  /** Of the newest transaction. */
  current: number;
  /** Of an older one: they may have changed since, or may have been removed. */
  older: number;
  /** Made of what is known elsewhere. */
  rebuilt: number;
}

export interface SalvageGap {
  /** Names on the way to the bucket, with slashes between. */
  bucket: string;
  /** What was between: from this name on, before that one. */
  from: string;
  to?: string;
  page?: number;
  reason: string;
}

export interface SalvageReport {
  metadata: string;
  output: string;
  /** Bytes. */
  before: number;
  after: number;
  /** The newest change that a record of the tree has which is followed. */
  newest?: Instant;
  /** Whether a meta page named that tree. */
  isNamed: boolean;
  records: SalvagedRecords[];
  /** What that tree lacks. None, and a meta page names it: the file is whole. */
  gaps: SalvageGap[];
  /** All that is not of the newest transaction. */
  guessed: { kind: RecordKind; namespace: string; key: string; origin: 'older' | 'rebuilt' }[];
  leftOut: { kind: RecordKind; namespace: string; key: string; reason: string }[];
  /** Found, and left out, since nothing proves which of these namespaces they are of. */
  unplaced: { kind: RecordKind; key: string; namespaces: string[] }[];
  /** What was assumed, and what could not be looked at. */
  notes: string[];
}

/** As the keys of other rooms: text. */
const textFrom = (key: string): string => Buffer.from(key, 'latin1').toString();
const placeOf = (path: Path): string => path.map(textFrom).join('/');

/**
 * NotFound: no metadata under `directory`. FailedPrecondition: nothing of containerd's can be read in the file. AlreadyExists:
 * there is something at `output`.
 */
export async function salvage(
  directory: string,
  output: string,
  signal?: AbortSignal,
): Promise<SalvageReport> {
  const places = await findPlaces(directory);
  const target = await outsideOf(places, output);
  const disk = await lookAtDisk(places, signal);
  try {
    using scan = new PageScan(places.metadata);
    const pages = new Pages(scan);
    const { first, isNamed, isWhole, merge, unplaced } = await inTurns(mergedIn(pages, disk), signal);
    const { rebuilt, guesses } = isWhole ? NOTHING : await rebuild(merge, disk, signal);
    const counts = await inTurns(countsOf(merge, rebuilt), signal);
    if (counts.length === 0)
      throw failedPrecondition(`no record of a containerd can be read in ${places.metadata}`, {
        object: places.metadata,
        remedy:
          'look for a copy of the file; containerd makes a new one, and pulls images again, when it is moved away',
      });
    const guessed = await inTurns(guessedIn(merge, rebuilt), signal);
    const written = await writeRecords(target, pages, merge, rebuilt, disk, signal);
    const notes = [...disk.notes];
    if (!written.hasVersion) notes.push(`the version of the schema is lost: ${GUESSED_VERSION} is assumed`);
    if (!isNamed)
      notes.push(
        'no valid meta page leads to the newest records: the newest tree that can be followed was taken',
      );
    for (const key of written.withoutParent) notes.push(`snapshot ${textFrom(key)}: its parent is lost`);
    const newest = first?.newest ?? zeroTime;
    return {
      metadata: places.metadata,
      output: target,
      before: scan.pages * scan.pageSize,
      after: written.size,
      ...(newest !== zeroTime && { newest }),
      isNamed,
      records: counts,
      gaps: (first?.gaps ?? []).map(gapOf),
      guessed,
      leftOut: leftOutOf(merge),
      unplaced: [...unplaced, ...namespacesOf(guesses)],
      notes,
    };
  } finally {
    await disk.content?.close();
  }
}

const NOTHING = { rebuilt: [], guesses: [] };

/** Each guess once, with the namespaces that it is one for. */
function namespacesOf(guesses: readonly Rebuilt[]): SalvageReport['unplaced'] {
  const all = new Map<string, string[]>();
  for (const { path, key } of guesses) {
    const others = all.get(key) ?? [];
    others.push(textFrom(path[1] ?? ''));
    all.set(key, others);
  }
  return [...all].map(([key, namespaces]) => ({
    kind: 'content',
    key: textFrom(key),
    namespaces: namespaces.sort(),
  }));
}

interface Merged {
  /** The tree that the file is about. */
  readonly first: Walked | undefined;
  readonly isNamed: boolean;
  readonly isWhole: boolean;
  readonly merge: Merge;
  readonly unplaced: SalvageReport['unplaced'];
}

function* mergedIn(pages: Pages, disk: Disk): Steps<Merged> {
  const isStructureName = (key: string): boolean => key === SCHEMA || disk.snapshotters.has(textFrom(key));
  const trees = yield* findTrees(pages, isStructureName);
  const { first, older, isNamed } = trees;
  if (isNamed && first?.gaps.length === 0 && !(yield* hasContradiction(first))) {
    const merge = new Merge(disk, new Owners(), new Creations());
    yield* merge.takeWhole(first);
    return { first, isNamed, isWhole: true, merge, unplaced: [] };
  }
  yield* pages.findAll();
  const strays = yield* readStrays(pages, yield* leavesIn(trees), disk.snapshotters);
  const owners = yield* ownersIn(pages, trees, strays, disk, isStructureName);
  const merge = new Merge(disk, owners, yield* creationsIn(trees, strays));
  yield* merge.begin(first, isNamed);
  for (const walked of older) yield* merge.addTree(walked);
  const rest = yield* addStrays(strays, merge, owners, disk);
  return { first, isNamed, isWhole: false, merge, unplaced: yield* unplacedIn(merge, rest) };
}

/** Whether a record shows that it is not what it was: damage that the pages do not show. */
function* hasContradiction({ records }: Walked): Steps<boolean> {
  const taken = new Set<number>();
  for (const record of records) {
    yield;
    if (isContradicted(record) || record.facts.pages.some((page) => taken.has(page))) return true;
    for (const page of record.facts.pages) taken.add(page);
  }
  return false;
}

function* leavesIn({ first, older }: Trees): Steps<Set<number>> {
  const leaves = new Set<number>();
  for (const walked of [first, ...older])
    for (const { leaf } of walked?.records ?? []) {
      leaves.add(leaf);
      yield;
    }
  return leaves;
}

function* ownersIn(
  pages: Pages,
  { first, older, isNamed }: Trees,
  strays: readonly StrayLeaf[],
  disk: Disk,
  isStructureName: IsStructureName,
): Steps<Owners> {
  const owners = new Owners();
  if (first !== undefined) yield* owners.prove(first);
  for (const walked of older) yield* owners.claim(walked, isStructureName);
  for (const { page, records } of strays) {
    owners.addStray(page, records);
    yield;
  }
  yield* familiesIn(pages, (branch, children) => owners.addFamily(branch, children));
  const isNewest = isNamed && first?.gaps.every(({ reason }) => reason !== 'other') === true;
  const elimination = first && (yield* Elimination.of(first, isNewest, disk));
  yield* owners.resolve(elimination);
  return owners;
}

function* creationsIn({ first, older, isNamed }: Trees, strays: readonly StrayLeaf[]): Steps<Creations> {
  const creations = new Creations();
  for (const walked of [first, ...older])
    for (const record of walked?.records ?? []) {
      const { kind } = record;
      if (kind !== undefined) creations.add(kind, record, isNamed && walked === first);
      yield;
    }
  for (const { records } of strays)
    for (const record of records) {
      creations.add(record.kind, record);
      yield;
    }
  return creations;
}

const gapOf = ({ path, from, to, page, reason }: Gap): SalvageGap => ({
  bucket: placeOf(path),
  from: textFrom(from),
  ...(to !== undefined && { to: textFrom(to.replace(/\0$/, '')) }),
  ...(page !== undefined && { page }),
  reason: reason === 'other' ? 'the page was given out again' : 'not readable',
});

function* countsOf(merge: Merge, rebuilt: readonly Rebuilt[]): Steps<SalvagedRecords[]> {
  const counts = new Map<string, SalvagedRecords>();
  const count = (path: Path, origin: 'current' | 'older' | 'rebuilt'): void => {
    const place = placeIn(path);
    if (place === undefined) return;
    const { kind } = place;
    const namespace = textFrom(place.namespace);
    const at = `${kind}\0${namespace}`;
    const found = counts.get(at) ?? { kind, namespace, current: 0, older: 0, rebuilt: 0 };
    found[origin]++;
    counts.set(at, found);
  };
  for (const { path, records } of merge.collections)
    for (const { origin } of records.values()) {
      count(path, origin);
      yield;
    }
  for (const { path } of rebuilt) count(path, 'rebuilt');
  return [...counts.values()].sort((a, b) => (a.namespace + a.kind < b.namespace + b.kind ? -1 : 1));
}

function* guessedIn(merge: Merge, rebuilt: readonly Rebuilt[]): Steps<SalvageReport['guessed']> {
  const guessed: SalvageReport['guessed'] = [];
  const add = (path: Path, key: string, origin: 'older' | 'rebuilt'): void => {
    const place = placeIn(path);
    if (place === undefined) return;
    guessed.push({ kind: place.kind, namespace: textFrom(place.namespace), key: textFrom(key), origin });
  };
  for (const { path, records } of merge.collections)
    for (const { key, origin } of records.values()) {
      if (origin === 'older') add(path, key, origin);
      yield;
    }
  for (const { path, key } of rebuilt) add(path, key, 'rebuilt');
  return guessed;
}

/** Those of which no other version is there. */
function leftOutOf(merge: Merge): SalvageReport['leftOut'] {
  const seen = new Set<string>();
  const leftOut: SalvageReport['leftOut'] = [];
  for (const { kind, path, key, reason } of merge.leftOut) {
    const at = [...path, key].join('\0');
    if (merge.has(path, key) || seen.has(at)) continue;
    seen.add(at);
    leftOut.push({ kind, namespace: textFrom(path[1] ?? ''), key: textFrom(key), reason });
  }
  return leftOut;
}

/** Where each may be missing. */
function* unplacedIn(merge: Merge, strays: readonly Stray[]): Steps<SalvageReport['unplaced']> {
  const all = yield* merge.namespaces();
  const seen = new Set<string>();
  const unplaced: SalvageReport['unplaced'] = [];
  const found = [...merge.unplaced, ...strays];
  for (const { kind = 'other', key, facts } of found) {
    yield;
    const at = `${kind}\0${key}`;
    if (seen.has(at)) continue;
    const namespaces = merge.couldHave(all, kind, key, facts.changedAt).map(textFrom);
    if (namespaces.length === 0) continue;
    seen.add(at);
    unplaced.push({ kind, key: textFrom(key), namespaces });
  }
  return unplaced;
}
