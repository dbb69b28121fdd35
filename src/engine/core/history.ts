/**
 * Before-images of recent commits, kept while a reader older than them lives: that reader sees its own revision by them, and at
 * its commit they show whether anything it read has changed. Called by transaction.ts and engine.ts.
 */
import type { Key } from '../contract.js';
import { SEPARATOR } from '../schema/keys.js';
import { partitionPoint } from './partition-point.js';
import { type LinkKey, linkPrefix, splitLink } from './storage.js';

/** What a commit replaced. */
export interface BeforeImage {
  readonly revision: number;
  readonly records: ReadonlyMap<Key, Uint8Array | undefined>;
  /** Whether the link was there before. */
  readonly links: ReadonlyMap<LinkKey, boolean>;
}

/** Keys and links that a commit changes. */
export interface Changed {
  readonly records: { keys(): Iterable<Key> };
  readonly links: { keys(): Iterable<LinkKey> };
}

/** What a transaction has read, and whether it was there. */
export class ReadSet {
  readonly keys = new Map<Key, boolean>();
  /** Everything strictly below. */
  readonly prefixes = new Set<Key>();
  readonly links = new Map<LinkKey, boolean>();
  /** All links of one relation of a record, by `linkPrefix`. */
  readonly linkSets = new Set<string>();

  get isEmpty(): boolean {
    return this.keys.size + this.prefixes.size + this.links.size + this.linkSets.size === 0;
  }

  /** Whether a commit changed anything that was read. */
  touchedBy(changed: Changed): boolean {
    for (const key of changed.records.keys()) {
      if (this.keys.has(key) || (this.prefixes.size > 0 && this.#underPrefix(key))) return true;
    }
    if (this.links.size === 0 && this.linkSets.size === 0) return false;
    for (const link of changed.links.keys()) {
      if (this.links.has(link)) return true;
      const { from, relation } = splitLink(link);
      if (this.linkSets.has(linkPrefix(from, relation))) return true;
    }
    return false;
  }

  #underPrefix(key: Key): boolean {
    if (this.prefixes.has('')) return true;
    for (let at = key.indexOf(SEPARATOR); at >= 0; at = key.indexOf(SEPARATOR, at + 1)) {
      if (this.prefixes.has(key.slice(0, at))) return true;
    }
    return false;
  }
}

export class History {
  /** Revisions of living readers, with how many each has. */
  readonly #readers = new Map<number, number>();
  #commits: BeforeImage[] = [];

  get hasReaders(): boolean {
    return this.#readers.size > 0;
  }

  enter(revision: number): void {
    this.#readers.set(revision, (this.#readers.get(revision) ?? 0) + 1);
  }

  leave(revision: number): void {
    const count = this.#readers.get(revision) ?? 0;
    if (count > 1) {
      this.#readers.set(revision, count - 1);
      return;
    }
    this.#readers.delete(revision);
    if (this.#readers.size === 0) {
      if (this.#commits.length > 0) this.#commits = [];
    } else if (this.#commits[0] !== undefined && this.#commits[0].revision > revision) {
      // The oldest reader may have left; Math.min over the map is cheap beside keeping before-images that no reader needs.
      const oldest = Math.min(...this.#readers.keys());
      const keep = this.#commits.findIndex((before) => before.revision > oldest);
      this.#commits = keep < 0 ? [] : this.#commits.slice(keep);
    }
  }

  add(before: BeforeImage): void {
    if (this.hasReaders) this.#commits.push(before);
  }

  /** Commits newer than a revision, oldest first. */
  since(revision: number): readonly BeforeImage[] {
    const commits = this.#commits;
    const [first] = commits;
    if (first === undefined || first.revision > revision) return commits;
    return commits.slice(partitionPoint(commits, (before) => before.revision <= revision));
  }

  clear(): void {
    this.#commits = [];
  }
}
