/**
 * Whose a time of creation is. No two records of a kind have one in common, and versions of a record keep it: an entry that leads to
 * fields with the time of another record is older than the page that they are in. Filled from all that is found, in
 * whatever tree. Called by salvage.ts and merge.ts.
 */
import { zeroTime } from '../../model/time.js';
import type { RecordKind } from './shapes.js';
import type { FoundRecord } from './walk.js';

type Created = Pick<FoundRecord, 'key' | 'facts' | 'leaf'>;

/** Of the tree that a meta page names: more than any number of pages. */
const NAMED = Number.POSITIVE_INFINITY;

interface Time {
  /** The pages that each key leads to. */
  readonly keys: Map<string, Set<number>>;
  /** The greatest weights, of which the first one may be a key's own. Undefined when a key has come since. */
  weights?: [first: number, second: number];
}

export class Creations {
  /** By kind and time. */
  readonly #times = new Map<string, Time>();

  add(kind: RecordKind, { key, facts: { createdAt, pages }, leaf }: Created, isNamed = false): void {
    if (createdAt === zeroTime) return;
    const at = `${kind}\0${createdAt}`;
    let time = this.#times.get(at);
    if (time === undefined) {
      time = { keys: new Map() };
      this.#times.set(at, time);
    }
    let found = time.keys.get(key);
    if (found === undefined) {
      found = new Set();
      time.keys.set(key, found);
    }
    found.add(isNamed ? NAMED : (pages[0] ?? leaf));
    delete time.weights;
  }

  /** Whether another key is as likely: with as many pages, or in the named tree. */
  isAnothers(kind: RecordKind, { key, facts: { createdAt } }: Pick<Created, 'key' | 'facts'>): boolean {
    const time = this.#times.get(`${kind}\0${createdAt}`);
    if (time === undefined || time.keys.size < 2) return false;
    time.weights ??= greatestOf(time);
    const own = weightOf(time.keys.get(key));
    const [first, second] = time.weights;
    return (own === first ? second : first) >= own;
  }
}

const weightOf = (pages: ReadonlySet<number> = new Set()): number => (pages.has(NAMED) ? NAMED : pages.size);

function greatestOf({ keys }: Time): [number, number] {
  let [first, second] = [0, 0];
  for (const pages of keys.values()) {
    const weight = weightOf(pages);
    if (weight > first) [first, second] = [weight, first];
    else if (weight > second) second = weight;
  }
  return [first, second];
}
