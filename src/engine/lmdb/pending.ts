/**
 * Commits that the tree does not have yet: what they changed, over what LMDB answers. Called by the storage. A later
 * commit of the same key takes the place of the earlier one; the earlier one is kept while the later can be lost.
 */
import type { Key } from '../contract.js';
import type { Layer } from '../core/reads.js';
import { SortedMap } from '../core/sorted-map.js';
import { type Commit, type Entry, type LinkKey, NO_ID } from '../core/storage.js';

/** A state since a revision; before it, an older one that the tree does not have either. */
interface At<T> {
  readonly revision: number;
  readonly value: T;
  older: At<T> | undefined;
}

/** Newest states by key, each with those that would be there if it were lost. */
class Versions<K, T> {
  readonly #newest = new Map<K, At<T>>();
  readonly #changed: (key: K, value: At<T> | undefined) => void;

  /** `changed` is told whenever the newest state of a key is another one. */
  constructor(changed: (key: K, value: At<T> | undefined) => void = () => {}) {
    this.#changed = changed;
  }

  get(key: K): At<T> | undefined {
    return this.#newest.get(key);
  }

  keys(): IterableIterator<K> {
    return this.#newest.keys();
  }

  /** Revisions up to `stored` can be lost no more. */
  set(key: K, revision: number, value: T, stored: number): void {
    const older = this.#newest.get(key);
    if (older !== undefined && older.revision <= stored) older.older = undefined;
    this.#put(key, { revision, value, older });
  }

  /** The tree has a revision now. */
  drop(key: K, revision: number): void {
    const newest = this.#newest.get(key);
    if (newest === undefined) return;
    if (newest.revision <= revision) {
      this.#newest.delete(key);
      this.#changed(key, undefined);
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
    let at = this.#newest.get(key);
    if (at === undefined || at.revision <= revision) return;
    while (at !== undefined && at.revision > revision) at = at.older;
    if (at !== undefined) {
      this.#put(key, at);
      return;
    }
    this.#newest.delete(key);
    this.#changed(key, undefined);
  }

  #put(key: K, at: At<T>): void {
    this.#newest.set(key, at);
    this.#changed(key, at);
  }
}

/** The keys a commit touched. */
interface Touched {
  readonly revision: number;
  readonly keys: readonly Key[];
  readonly ids: readonly number[];
  readonly links: readonly LinkKey[];
  readonly counters: readonly Key[];
}

export class Pending {
  /** The newest records, and the newest links, in order. */
  readonly values: Layer<Uint8Array> = new SortedMap();
  readonly links: Layer<true> = new SortedMap();
  readonly entries = new Versions<Key, Entry | undefined>((key, at) => {
    if (at === undefined) this.values.delete(key);
    else this.values.set(key, at.value?.bytes);
  });
  readonly counters = new Versions<Key, number | undefined>();
  /** Keys of nodes; undefined: freed. */
  readonly ids = new Versions<number, Key | undefined>();
  readonly #links = new Versions<LinkKey, boolean>((link, at) => {
    if (at === undefined) this.links.delete(link);
    else this.links.set(link, at.value ? true : undefined);
  });
  #touched: Touched[] = [];

  /** Revisions up to `stored` can be lost no more. */
  add(commit: Pick<Commit, 'revision' | 'entries' | 'links' | 'counters' | 'freed'>, stored: number): void {
    const { revision } = commit;
    const ids: number[] = [];
    const setId = (id: number, key: Key | undefined): void => {
      this.ids.set(id, revision, key, stored);
      ids.push(id);
    };
    for (const id of commit.freed.keys()) setId(id, undefined);
    for (const [key, { after }] of commit.entries) {
      this.entries.set(key, revision, after, stored);
      if (after !== undefined && after.id !== NO_ID) setId(after.id, key);
    }
    for (const [link, present] of commit.links) this.#links.set(link, revision, present, stored);
    for (const [name, value] of commit.counters) this.counters.set(name, revision, value, stored);
    this.#touched.push({
      revision,
      keys: [...commit.entries.keys()],
      ids,
      links: [...commit.links.keys()],
      counters: [...commit.counters.keys()],
    });
  }

  /** The tree has everything up to a revision now. */
  drop(revision: number): void {
    let count = 0;
    for (const touched of this.#touched) {
      if (touched.revision > revision) break;
      count++;
      for (const key of touched.keys) this.entries.drop(key, revision);
      for (const id of touched.ids) this.ids.drop(id, revision);
      for (const link of touched.links) this.#links.drop(link, revision);
      for (const name of touched.counters) this.counters.drop(name, revision);
    }
    this.#touched.splice(0, count);
  }

  /** Everything behind a revision is lost. */
  revert(revision: number): void {
    while (this.#touched.length > 0) {
      const last = this.#touched[this.#touched.length - 1]!;
      if (last.revision <= revision) return;
      for (const key of last.keys) this.entries.revert(key, revision);
      for (const id of last.ids) this.ids.revert(id, revision);
      for (const link of last.links) this.#links.revert(link, revision);
      for (const name of last.counters) this.counters.revert(name, revision);
      this.#touched.pop();
    }
  }
}
