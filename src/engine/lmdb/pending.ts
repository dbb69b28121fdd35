/**
 * Commits that the tree does not have yet: what they changed, over what LMDB answers. Called by the storage. A later
 * commit of the same key takes the place of the earlier one; the earlier one is kept while the later can be lost.
 */
import type { Key } from '../contract.js';
import { IdMap } from '../core/id-map.js';
import { PartitionedMap } from '../core/partitioned-map.js';
import type { ReadLayer } from '../core/reads.js';
import { type Commit, type Entry, LINK_SEPARATOR, type LinkKey, NO_ID } from '../core/storage.js';
import { collectionOf } from '../schema/keys.js';

/** A state since a revision; before it, an older one that the tree does not have either. */
interface At<T> {
  readonly revision: number;
  readonly value: T;
  older: At<T> | undefined;
}

interface Store<K, V> {
  get(key: K): V | undefined;
  set(key: K, value: V): unknown;
  delete(key: K): boolean;
}

/** A state; one that is nothing and came after nothing, of which there are most, is its revision alone. */
type Kept<T> = At<T> | number;

function unfolded<T>(kept: Kept<T>): At<T>;
function unfolded<T>(kept: Kept<T> | undefined): At<T> | undefined;
function unfolded<T>(kept: Kept<T> | undefined): At<T> | undefined {
  // Only who allows for nothing as a state finds a number here.
  return typeof kept === 'number' ? { revision: kept, value: undefined as T, older: undefined } : kept;
}

/** Newest states by key, each with those that would be there if it were lost. */
class Versions<K, T> {
  readonly #newest: Store<K, Kept<T>>;

  constructor(store: Store<K, Kept<T>>) {
    this.#newest = store;
  }

  get(key: K): At<T> | undefined {
    return unfolded(this.#newest.get(key));
  }

  /** Revisions up to `stored` can be lost no more. */
  set(key: K, revision: number, value: T, stored: number): void {
    const older = this.get(key);
    if (older !== undefined && older.revision <= stored) older.older = undefined;
    this.#newest.set(key, value === undefined && older === undefined ? revision : { revision, value, older });
  }

  /** The tree has a revision now. */
  drop(key: K, revision: number): void {
    const newest = this.get(key);
    if (newest === undefined) return;
    if (newest.revision <= revision) {
      this.#newest.delete(key);
      return;
    }
    for (let at = newest; at.older !== undefined; at = at.older) {
      if (at.older.revision > revision) continue;
      at.older = undefined;
      return;
    }
  }

  /** What came after a revision is lost. */
  revert(key: K, revision: number): void {
    let at = this.get(key);
    if (at === undefined || at.revision <= revision) return;
    while (at !== undefined && at.revision > revision) at = at.older;
    if (at === undefined) this.#newest.delete(key);
    else this.#newest.set(key, at);
  }
}

/** Versions in order, as what they stand for. */
class Ordered<T, V> implements ReadLayer<V> {
  readonly #versions: PartitionedMap<Kept<T>>;
  readonly #shown: (value: T) => V | undefined;

  constructor(versions: PartitionedMap<Kept<T>>, shown: (value: T) => V | undefined) {
    this.#versions = versions;
    this.#shown = shown;
  }

  get size(): number {
    return this.#versions.size;
  }

  *from(start: string, exclusive: boolean, within: string): Generator<[string, V | undefined]> {
    for (const [key, kept] of this.#versions.from(start, exclusive, within)) {
      yield [key, this.#shown(unfolded(kept).value)];
    }
  }
}

/** The keys a commit touched. */
interface Touched {
  readonly revision: number;
  readonly keys: readonly Key[];
  readonly ids: readonly number[];
  readonly links: readonly LinkKey[];
  readonly children: readonly number[];
  readonly counters: readonly Key[];
}

export class Pending {
  readonly #newestEntries = new PartitionedMap<Kept<Entry | undefined>>();
  /** By owner: there may be many, and one's are asked for at a time. */
  readonly #newestLinks = new PartitionedMap<Kept<boolean>>(LINK_SEPARATOR);
  readonly #newestCounters = new Map<Key, Kept<number | undefined>>();
  readonly entries = new Versions<Key, Entry | undefined>(this.#newestEntries);
  readonly links = new Versions<LinkKey, boolean>(this.#newestLinks);
  readonly counters = new Versions<Key, number | undefined>(this.#newestCounters);
  /** Keys of nodes; undefined: freed. */
  readonly ids = new Versions<number, Key | undefined>(new IdMap());
  /** Nodes whose links from their parents, as far as the tree has them, have been dropped. */
  readonly formerChildren = new Versions<number, undefined>(new IdMap());
  /** Records and links in order; undefined: gone. */
  readonly orderedValues: ReadLayer<Uint8Array> = new Ordered(this.#newestEntries, (entry) => entry?.bytes);
  readonly orderedLinks: ReadLayer<true> = new Ordered(this.#newestLinks, (present) => present || undefined);
  #touched: Touched[] = [];

  get hasEntries(): boolean {
    return this.#newestEntries.size > 0;
  }

  /** Those of the keys, each one of `prefixes` followed by one of `leaves`, that have an entry. */
  *among(prefixes: readonly Key[], leaves: readonly string[]): Generator<[prefix: number, leaf: number]> {
    const indexOf = new Map(leaves.map((leaf, l) => [leaf, l]));
    for (const [p, prefix] of prefixes.entries()) {
      const part = this.#newestEntries.part(collectionOf(prefix));
      if (part === undefined) continue;
      if (part.size > leaves.length || indexOf.size < leaves.length) {
        for (const [l, leaf] of leaves.entries()) {
          if (this.entries.get(prefix + leaf)?.value !== undefined) yield [p, l];
        }
        continue;
      }
      // Fewer commits wait than are asked about.
      for (const [key, kept] of part.entries()) {
        const leaf = key.startsWith(prefix) ? indexOf.get(key.slice(prefix.length)) : undefined;
        if (leaf !== undefined && unfolded(kept).value !== undefined) yield [p, leaf];
      }
    }
  }

  counterNames(): Iterable<Key> {
    return this.#newestCounters.keys();
  }

  /** Commits that are kept. */
  get commits(): number {
    return this.#touched.length;
  }

  /**
   * Revisions up to `stored` can be lost no more. `childOf`: the node that a dropped link led to, if it went with the
   * link and the tree has the link by its id: then the id is remembered instead, which is much less.
   */
  add(
    commit: Pick<Commit, 'revision' | 'entries' | 'links' | 'counters' | 'freed'>,
    stored: number,
    childOf: (link: LinkKey) => number | undefined,
  ): void {
    const { revision } = commit;
    const ids: number[] = [];
    const setId = (id: number, key: Key | undefined): void => {
      this.ids.set(id, revision, key, stored);
      ids.push(id);
    };
    for (const id of commit.freed.keys()) setId(id, undefined);
    const keys: Key[] = [];
    for (const [key, { before, after }] of commit.entries) {
      // A node that is gone is told by its id: most are removed in bulk, and nobody asks for their keys.
      const isTold = after === undefined && before !== undefined && commit.freed.has(before.id);
      if (isTold && this.entries.get(key) === undefined) continue;
      this.entries.set(key, revision, after, stored);
      keys.push(key);
      if (after !== undefined && after.id !== NO_ID) setId(after.id, key);
    }
    const links: LinkKey[] = [];
    const children: number[] = [];
    for (const [link, present] of commit.links) {
      const child = present || this.links.get(link) !== undefined ? undefined : childOf(link);
      if (child === undefined) {
        this.links.set(link, revision, present, stored);
        links.push(link);
      } else {
        this.formerChildren.set(child, revision, undefined, stored);
        children.push(child);
      }
    }
    for (const [name, value] of commit.counters) this.counters.set(name, revision, value, stored);
    this.#touched.push({
      revision,
      keys,
      ids,
      links,
      children,
      counters: [...commit.counters.keys()],
    });
  }

  /**
   * The tree has everything up to a revision now. Forgets about `most` keys of it, so that the thread is not held for
   * long (the tree answers the same); true when there are more.
   */
  drop(revision: number, most: number): boolean {
    let commits = 0;
    let keys = 0;
    for (const touched of this.#touched) {
      if (touched.revision > revision || keys >= most) break;
      commits++;
      keys += touched.keys.length + touched.ids.length + touched.links.length + touched.counters.length;
      for (const key of touched.keys) this.entries.drop(key, revision);
      for (const id of touched.ids) this.ids.drop(id, revision);
      for (const link of touched.links) this.links.drop(link, revision);
      for (const id of touched.children) this.formerChildren.drop(id, revision);
      for (const name of touched.counters) this.counters.drop(name, revision);
    }
    this.#touched.splice(0, commits);
    return this.#touched[0] !== undefined && this.#touched[0].revision <= revision;
  }

  /** Everything behind a revision is lost. */
  revert(revision: number): void {
    while (this.#touched.length > 0) {
      const last = this.#touched[this.#touched.length - 1]!;
      if (last.revision <= revision) return;
      for (const key of last.keys) this.entries.revert(key, revision);
      for (const id of last.ids) this.ids.revert(id, revision);
      for (const link of last.links) this.links.revert(link, revision);
      for (const id of last.children) this.formerChildren.revert(id, revision);
      for (const name of last.counters) this.counters.revert(name, revision);
      this.#touched.pop();
    }
  }
}
