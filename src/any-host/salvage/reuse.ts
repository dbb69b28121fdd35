/**
 * Whether a page may have been given out again since a tree led to it, to another record of the same kind. bbolt pages have no time of their
 * own, and the records of most kinds do not have their names in them. But what is in a tree changed while the tree was in use,
 * or before; so a record that changed later is not the tree's. Called by merge.ts.
 */
import { type Instant, zeroTime } from '../../model/time.js';
import type { Steps } from '../../system/turns.js';
import type { FoundRecord, Walked } from './walk.js';

export interface Use {
  /** The tree was in use then, and maybe later. `zeroTime`: nothing says when. */
  readonly until: Instant;
  /** Some of its pages are of other buckets by now. */
  readonly isReused: boolean;
}

/**
 * Undefined for a tree that lacks nothing: nothing in it says that it is old. `isItsOwn`: whether a record has its name, or what proves it, in its
 * own page. One such record may be a later version in the same place; two of them are not.
 */
export function* useOf(
  { records, gaps }: Walked,
  isContradicted: boolean,
  isItsOwn: (record: FoundRecord) => boolean,
): Steps<Use | undefined> {
  const isReused = isContradicted || gaps.some(({ reason }) => reason === 'other');
  if (gaps.length === 0 && !isReused) return undefined;
  let [last, until] = [zeroTime, zeroTime];
  for (const record of records) {
    yield;
    const { changedAt } = record.facts;
    if (changedAt <= until || !(isInEntry(record) || isItsOwn(record))) continue;
    if (changedAt > last) [last, until] = [changedAt, last];
    else until = changedAt;
  }
  return { until, isReused };
}

/** A lease can change and say nothing of it. */
export function isLater(record: FoundRecord, { until, isReused }: Use): boolean {
  if (isInEntry(record) || (until === zeroTime && !isReused)) return false;
  return record.facts.changedAt > until || (record.kind === 'lease' && isReused);
}

const isInEntry = ({ facts: { pages } }: FoundRecord): boolean => pages.length === 0;
