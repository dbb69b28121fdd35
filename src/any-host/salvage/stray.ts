/**
 * Leaves of records that no tree leads to. Such a leaf has the names of its records, but not that of its namespace: snapshots and
 * ingests have that in theirs, of others owners.ts knows it. What nothing places is left out. Called by salvage.ts.
 */
import type { LeafPage } from '../../bolt/scan.js';
import type { Steps } from '../../system/turns.js';
import type { Disk } from './disk.js';
import { kindFor } from './facts.js';
import type { Merge } from './merge.js';
import type { Owners } from './owners.js';
import type { Pages } from './pages.js';
import { isOther, kindIn, namesItself, type Path, type RecordKind } from './shapes.js';
import type { FoundRecord } from './walk.js';

export type Stray = Omit<FoundRecord, 'path' | 'doubt' | 'kind'> & { readonly kind: RecordKind };

export interface StrayLeaf {
  readonly page: number;
  readonly records: readonly Stray[];
  /** It has what is not a record. */
  readonly isDoubtful: boolean;
}

/** `known`: leaves whose records are known. `snapshotters`: names of buckets, which are not records. */
export function* readStrays(
  pages: Pages,
  known: ReadonlySet<number>,
  snapshotters: ReadonlySet<string>,
): Steps<StrayLeaf[]> {
  const leaves: StrayLeaf[] = [];
  for (const id of pages.leaves) {
    yield;
    const page = known.has(id) ? undefined : pages.page(id);
    if (page?.kind !== 'leaf' || page.entries.some(({ key }) => snapshotters.has(key))) continue;
    const leaf = yield* readLeaf(pages, page);
    if (leaf.records.length > 0) leaves.push(leaf);
  }
  return leaves;
}

function* readLeaf(pages: Pages, { id, entries }: LeafPage): Steps<StrayLeaf> {
  const records: Stray[] = [];
  let isDoubtful = false;
  for (const { key, value } of entries) {
    yield;
    const facts = pages.facts(value);
    if (facts === undefined) {
      isDoubtful ||= isOther(pages, value);
      continue;
    }
    const kind = kindFor(key, facts);
    isDoubtful ||= kind === undefined || kind !== (records[0]?.kind ?? kind);
    if (kind !== undefined)
      records.push({ key, kind, value: Buffer.from(value), leaf: id, isBucket: true, facts });
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
      isDoubtful || records.some(({ key, facts }) => facts.pages.some((one) => merge.isTaken(one, key)));
    for (const stray of records) {
      yield;
      const path = namesItself(stray.kind) ? pathIn(stray, disk) : owners.ownerOf(page);
      if (path === undefined) unplaced.push(stray);
      // Its entry is older than its page.
      else if (kindIn(path) === stray.kind)
        merge.addStray({ ...stray, path, doubt: isOld ? 'most' : 'none' });
    }
  }
  return unplaced;
}

function pathIn({ kind, facts: { name } }: Stray, { snapshots }: Disk): Path | undefined {
  if (name === undefined) return undefined;
  if (kind === 'ingest') return ['v1', name.namespace, 'content', 'ingests'];
  const stored = Buffer.from(`${name.namespace}/${name.number}/${name.key}`, 'latin1').toString();
  const owners = [...snapshots].filter(([, all]) => all.has(stored));
  const [owner] = owners.map(([snapshotter]) => Buffer.from(snapshotter).toString('latin1'));
  return owner !== undefined && owners.length === 1 ? ['v1', name.namespace, 'snapshots', owner] : undefined;
}
