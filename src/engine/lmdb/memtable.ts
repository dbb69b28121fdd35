/**
 * A table in memory of what some commits changed, the later ones over the earlier. memtables.ts says which tables there are,
 * and asks them from the newest to the oldest. In memory only.
 */
import type { Key } from '../contract.js';
import { IdMap } from '../core/id-map.js';
import { PartitionedMap } from '../core/partitioned-map.js';
import { type Commit, type Entry, LINK_SEPARATOR, type LinkKey, NO_ID } from '../core/storage.js';

/** What a table has of a commit. */
export type TableCommit = Pick<Commit, 'revision' | 'entries' | 'links' | 'counters' | 'freed'>;

/** In every map of it: null is a tombstone. */
export class Memtable {
  /** Of the newest commit in it. */
  revision = 0;
  readonly entries = new PartitionedMap<Entry | null>();
  /** By owner: there may be many, and one's are asked for at a time. */
  readonly links = new PartitionedMap<true | null>(LINK_SEPARATOR);
  readonly counters = new Map<Key, number | null>();
  /** Keys of nodes. */
  readonly ids = new IdMap<Key | null>();
  /** Nodes whose links from their parents, as far as the tree has them, have been dropped. */
  readonly formerChildren = new IdMap<null>();

  /** `others` are older tables; `childOf`: see `Memtables.add`. */
  add(
    { revision, entries, links, counters, freed }: TableCommit,
    isKnown: (key: Key) => boolean,
    childOf: (link: LinkKey) => number | undefined,
  ): void {
    this.revision = revision;
    for (const id of freed.keys()) this.ids.set(id, null);
    for (const [key, { before, after }] of entries) {
      // The tombstone of its node is enough, unless a table has the key: most are removed in bulk, and nobody asks for their keys.
      if (after === undefined && before !== undefined && freed.has(before.id) && !isKnown(key)) continue;
      this.entries.set(key, after ?? null);
      if (after !== undefined && after.id !== NO_ID) this.ids.set(after.id, key);
    }
    for (const [link, present] of links) {
      const child = present ? undefined : childOf(link);
      if (child === undefined) this.links.set(link, present || null);
      else this.formerChildren.set(child, null);
    }
    for (const [name, value] of counters) this.counters.set(name, value ?? null);
  }

  /** Takes in what an older or newer table has; of both the newer one counts. */
  merge(other: Memtable, age: 'older' | 'newer'): void {
    this.revision = Math.max(this.revision, other.revision);
    for (const map of ['entries', 'links', 'counters', 'ids', 'formerChildren'] as const) {
      copy<unknown, unknown>(other[map], this[map], age === 'older');
    }
  }

  get size(): number {
    const { entries, links, counters, ids, formerChildren } = this;
    return entries.size + links.size + counters.size + ids.size + formerChildren.size;
  }
}

interface Table<K, V> {
  has(key: K): boolean;
  set(key: K, value: V): unknown;
  entries(): Iterable<[K, V]>;
}

function copy<K, V>(from: Pick<Table<K, V>, 'entries'>, to: Table<K, V>, isOlder = false): void {
  for (const [key, value] of from.entries()) if (!isOlder || !to.has(key)) to.set(key, value);
}
