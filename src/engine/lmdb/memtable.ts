/**
 * A table in memory of what some commits changed, the later ones over the earlier. memtables.ts says which tables there are,
 * and asks them from the newest to the oldest. In memory only.
 */
import type { Key } from '../contract.js';
import { IdMap } from '../core/id-map.js';
import { PartitionedMap } from '../core/partitioned-map.js';
import { type Commit, type Entry, LINK_SEPARATOR, NO_ID } from '../core/storage.js';
import type { WithFormerChildren } from './codec/child-links.js';

/** What a table has of a commit. */
export type TableCommit = Pick<Commit, 'revision' | 'entries' | 'links' | 'counters'> &
  WithFormerChildren & { readonly freed: Pick<ReadonlySet<number>, 'has' | 'keys'> };

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

  /** `isKnown`: whether any table has the key. */
  add(
    { revision, entries, links, formerChildren, counters, freed }: TableCommit,
    undo: Undo,
    isKnown: (key: Key) => boolean,
  ): void {
    this.revision = revision;
    for (const id of freed.keys()) undo.set(this.ids, id, null);
    for (const [key, { before, after }] of entries) {
      // The tombstone of its node is enough, unless a table has the key: most are removed in bulk, and their keys are not read.
      if (after === undefined && before !== undefined && freed.has(before.id) && !isKnown(key)) continue;
      undo.set(this.entries, key, after ?? null);
      if (after !== undefined && after.id !== NO_ID) undo.set(this.ids, after.id, key);
    }
    for (const [link, present] of links) undo.set(this.links, link, present || null);
    for (const { to } of formerChildren) undo.set(this.formerChildren, to, null);
    for (const [name, value] of counters) undo.set(this.counters, name, value ?? null);
  }

  get size(): number {
    const { entries, links, counters, ids, formerChildren } = this;
    return entries.size + links.size + counters.size + ids.size + formerChildren.size;
  }
}

/** What the maps of a table have in common; no value is undefined. */
interface Table<K, V> {
  get(key: K): V | undefined;
  set(key: K, value: V): unknown;
  delete(key: K): boolean;
}

/** Takes back what was changed through it, the last change first. */
export class Undo {
  readonly #changes: unknown[] = [];

  set<K, V>(table: Table<K, V>, key: K, value: V): void {
    this.#changes.push(table, key, table.get(key));
    table.set(key, value);
  }

  run(): void {
    const changes = this.#changes;
    for (let i = changes.length - 3; i >= 0; i -= 3) {
      const table = changes[i] as Table<unknown, unknown>;
      if (changes[i + 2] === undefined) table.delete(changes[i + 1]);
      else table.set(changes[i + 1], changes[i + 2]);
    }
    changes.length = 0;
  }
}
