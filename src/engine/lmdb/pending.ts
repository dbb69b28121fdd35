/**
 * Commits that LMDB does not have yet: what they changed, over what LMDB answers. Called by the storage. A later
 * commit of the same key takes the place of the earlier one.
 */
import type { Key } from '../contract.js';
import type { Layer } from '../core/reads.js';
import { SortedMap } from '../core/sorted-map.js';
import { type Commit, type Entry, type LinkKey, NO_ID } from '../core/storage.js';

interface At<T> {
  revision: number;
  value: T;
}

export class Pending {
  readonly entries = new Map<Key, At<Entry | undefined>>();
  readonly counters = new Map<Key, At<number | undefined>>();
  /** Keys of nodes; undefined: freed. */
  readonly ids = new Map<number, At<Key | undefined>>();
  readonly values: Layer<Uint8Array> = new SortedMap();
  readonly links: Layer<true> = new SortedMap();
  readonly #linkRevisions = new Map<LinkKey, number>();

  add(commit: Commit): void {
    const { revision } = commit;
    for (const [id] of commit.freed) this.ids.set(id, { revision, value: undefined });
    for (const [key, { after }] of commit.entries) {
      this.entries.set(key, { revision, value: after });
      this.values.set(key, after?.bytes);
      if (after !== undefined && after.id !== NO_ID) this.ids.set(after.id, { revision, value: key });
    }
    for (const [link, present] of commit.links) {
      this.links.set(link, present ? true : undefined);
      this.#linkRevisions.set(link, revision);
    }
    for (const [name, value] of commit.counters) this.counters.set(name, { revision, value });
  }

  /** LMDB has it now. */
  drop(commit: Commit): void {
    const { revision } = commit;
    for (const [key, { after }] of commit.entries) {
      if (this.entries.get(key)?.revision === revision) {
        this.entries.delete(key);
        this.values.delete(key);
      }
      if (after !== undefined) this.#dropId(after.id, revision);
    }
    for (const [id] of commit.freed) this.#dropId(id, revision);
    for (const link of commit.links.keys()) {
      if (this.#linkRevisions.get(link) !== revision) continue;
      this.#linkRevisions.delete(link);
      this.links.delete(link);
    }
    for (const name of commit.counters.keys()) {
      if (this.counters.get(name)?.revision === revision) this.counters.delete(name);
    }
  }

  clear(): void {
    this.entries.clear();
    this.counters.clear();
    this.ids.clear();
    this.values.clear();
    this.links.clear();
    this.#linkRevisions.clear();
  }

  #dropId(id: number, revision: number): void {
    if (this.ids.get(id)?.revision === revision) this.ids.delete(id);
  }
}
