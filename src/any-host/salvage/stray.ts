/**
 * Leaves of records that no tree leads to. Such a leaf has the names of its records, but not that of its namespace: snapshots and
 * ingests have that in theirs, of others owners.ts knows it. What nothing places is left out. Called by salvage.ts.
 */
import type { LeafPage, PageScan } from '../../bolt/scan.js';
import type { Steps } from '../../system/turns.js';
import type { Disk } from './disk.js';
import type { Merge } from './merge.js';
import { namesItself, type Owners } from './owners.js';
import {
  backendNameOf,
  CONTENT_PARTS,
  changedAt,
  createdAt,
  isOther,
  kindOf,
  NAMESPACE_PARTS,
  type Path,
  type RecordKind,
  readTree,
  type Tree,
} from './shapes.js';
import type { FoundRecord } from './walk.js';

export type Stray = Omit<FoundRecord, 'path' | 'isDoubtful'> & {
  readonly kind: RecordKind;
  readonly tree: Tree;
};

export interface StrayLeaf {
  readonly page: number;
  readonly records: readonly Stray[];
  /** It has what is not a record. */
  readonly isDoubtful: boolean;
}

/** `known`: leaves whose records are known. `snapshotters`: names of buckets, which are not records. */
export function* readStrays(
  scan: PageScan,
  known: ReadonlySet<number>,
  snapshotters: ReadonlySet<string>,
): Steps<StrayLeaf[]> {
  const leaves: StrayLeaf[] = [];
  for (const id of scan.ids) {
    yield;
    const page = known.has(id) ? undefined : scan.page(id);
    const hasRecords =
      page?.kind === 'leaf' &&
      page.entries.every(({ key, isBucket }) => isBucket && !PARTS.includes(key) && !snapshotters.has(key));
    const leaf = hasRecords ? yield* readLeaf(scan, page) : undefined;
    if (leaf !== undefined && leaf.records.length > 0) leaves.push(leaf);
  }
  return leaves;
}

/** What has everything below it. */
const PARTS: readonly string[] = ['v1', ...NAMESPACE_PARTS, ...CONTENT_PARTS];

function* readLeaf(scan: PageScan, { id, entries }: LeafPage): Steps<StrayLeaf> {
  const records: Stray[] = [];
  let isDoubtful = false;
  for (const { key, value } of entries) {
    yield;
    const pages: number[] = [];
    const tree = readTree(scan, value, pages);
    if (tree === undefined) {
      isDoubtful ||= isOther(scan, value);
      continue;
    }
    const kind = kindOf(key, tree);
    isDoubtful ||= kind === undefined;
    const times = { createdAt: createdAt(tree), changedAt: changedAt(tree) };
    if (kind !== undefined)
      records.push({ key, value, leaf: id, pages, isBucket: true, ...times, kind, tree });
  }
  return { page: id, records, isDoubtful };
}

/** Adds what can be placed. Returns the rest. */
export function* addStrays(
  leaves: readonly StrayLeaf[],
  merge: Merge,
  owners: Owners,
  disk: Disk,
): Steps<Stray[]> {
  const unplaced: Stray[] = [];
  for (const { page, records, isDoubtful } of leaves) {
    // It leads to pages of other records as well: it was replaced by another leaf.
    const isOld =
      isDoubtful || records.some(({ key, pages }) => pages.some((one) => merge.isTaken(one, key)));
    for (const stray of records) {
      yield;
      const { kind, tree, ...record } = stray;
      const path = namesItself(kind) ? pathIn(kind, tree, disk) : owners.ownerOf(page);
      if (path === undefined) unplaced.push(stray);
      else merge.addStray({ ...record, path, isDoubtful: isOld });
    }
  }
  return unplaced;
}

function pathIn(kind: RecordKind, tree: Tree, { snapshots }: Disk): Path | undefined {
  const name = backendNameOf(tree);
  if (name === undefined) return undefined;
  if (kind === 'ingest') return ['v1', name.namespace, 'content', 'ingests'];
  const stored = Buffer.from(`${name.namespace}/${name.number}/${name.key}`, 'latin1').toString();
  const owners = [...snapshots].filter(([, all]) => all.has(stored));
  const [owner] = owners.map(([snapshotter]) => Buffer.from(snapshotter).toString('latin1'));
  return owner !== undefined && owners.length === 1 ? ['v1', name.namespace, 'snapshots', owner] : undefined;
}
