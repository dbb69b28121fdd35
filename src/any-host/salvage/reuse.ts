/**
 * Whether a page may have been given out again since a tree led to it, to another record of the same kind, or to a leaf of another bucket. bbolt
 * pages have no time of their own, and the records of most kinds do not have their names in them. But what is in a tree changed while
 * the tree was in use, or before; so what changed later is not the tree's. Called by roots.ts.
 */
import { type Instant, zeroTime } from '../../model/time.js';
import type { Steps } from '../../system/turns.js';
import { isContradicted } from './proof.js';
import { namesItself } from './shapes.js';
import { type FoundRecord, only, type Walked } from './walk.js';

/**
 * A tree that no meta page names, without the leaves that may be of another bucket by now: those are gaps. Some of its pages are of something else, and
 * a record of such a leaf changed after the tree. A lease can change and say nothing of it.
 */
export function* ofItsTime(walked: Walked): Steps<Walked> {
  const { until, isReused } = yield* useOf(walked);
  if (!isReused) return walked;
  const later = new Set<number>();
  for (const { kind, leaf, facts } of walked.records) {
    yield;
    if (kind !== undefined && !namesItself(kind) && (kind === 'lease' || facts.changedAt > until))
      later.add(leaf);
  }
  return yield* without(later, walked);
}

/** What does not name itself in some leaves is a gap. */
export function* without(leaves: ReadonlySet<number>, walked: Walked): Steps<Walked> {
  if (leaves.size === 0) return walked;
  const records: FoundRecord[] = [];
  const gaps = [...walked.gaps];
  let newest = zeroTime;
  for (const record of walked.records) {
    yield;
    const { path, kind, key, leaf, facts } = record;
    if (kind !== undefined && !namesItself(kind) && leaves.has(leaf))
      gaps.push({ path, ...only(key), page: facts.pages[0], reason: 'other' });
    else {
      records.push(record);
      if (facts.changedAt > newest) newest = facts.changedAt;
    }
  }
  return { ...walked, records, gaps, newest };
}

/**
 * Until when, at least, a tree was in use, and whether pages of it are something else by now. One record with its name in it may be a later version in the
 * same place; two of them are not.
 */
function* useOf({ records, gaps, shared }: Walked): Steps<{ until: Instant; isReused: boolean }> {
  let isReused = shared.length > 0 || gaps.some(({ reason }) => reason === 'other');
  let [last, until] = [zeroTime, zeroTime];
  for (const record of records) {
    yield;
    const { doubt, kind, facts } = record;
    const isItsOwn = namesItself(kind) && !isContradicted(record);
    isReused ||= doubt !== 'none' || (namesItself(kind) && !isItsOwn);
    if (facts.changedAt <= until || !isItsOwn) continue;
    if (facts.changedAt > last) [last, until] = [facts.changedAt, last];
    else until = facts.changedAt;
  }
  return { until, isReused };
}
