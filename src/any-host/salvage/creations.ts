/**
 * Whose a time of creation is. No two records of a kind have one in common, and versions of a record keep it: an entry that leads to
 * fields with the time of another record is older than the page that they are in. Filled from all that is found, in
 * whatever tree. Called by salvage.ts and merge.ts.
 */
import { zeroTime } from '../../model/time.js';
import type { RecordKind } from './shapes.js';
import type { FoundRecord } from './walk.js';

type Created = Pick<FoundRecord, 'key' | 'createdAt' | 'pages' | 'leaf'>;

/** Of the tree that a meta page names: more than any number of pages. */
const NAMED = Number.POSITIVE_INFINITY;

export class Creations {
  /** By kind and time, the keys that have it, and the pages that these lead to. */
  readonly #keys = new Map<string, Map<string, Set<number>>>();

  add(kind: RecordKind, { key, createdAt, pages, leaf }: Created, isNamed = false): void {
    if (createdAt === zeroTime) return;
    const at = `${kind}\0${createdAt}`;
    let keys = this.#keys.get(at);
    if (keys === undefined) {
      keys = new Map();
      this.#keys.set(at, keys);
    }
    let found = keys.get(key);
    if (found === undefined) {
      found = new Set();
      keys.set(key, found);
    }
    found.add(isNamed ? NAMED : (pages[0] ?? leaf));
  }

  /** Whether another key is as likely: with as many pages, or in the named tree. */
  isAnothers(kind: RecordKind, { key, createdAt }: Pick<Created, 'key' | 'createdAt'>): boolean {
    const keys = this.#keys.get(`${kind}\0${createdAt}`);
    if (keys === undefined || keys.size < 2) return false;
    const own = weightOf(keys.get(key));
    return [...keys].some(([other, pages]) => other !== key && weightOf(pages) >= own);
  }
}

const weightOf = (pages: ReadonlySet<number> = new Set()): number => (pages.has(NAMED) ? NAMED : pages.size);
