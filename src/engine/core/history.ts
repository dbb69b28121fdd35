/**
 * Recent commits, kept while a reader older than them lives: they give that reader its own revision back and tell
 * at commit whether anything it read has changed. Called by transaction.ts and engine.ts.
 */
import type { Key } from '../contract.js';
import { SEPARATOR } from '../schema/keys.js';
import { type LinkKey, linkPrefix, splitLink } from './storage.js';

/** What a commit replaced. */
export interface Past {
  readonly revision: number;
  readonly records: ReadonlyMap<Key, Uint8Array | undefined>;
  /** Whether the link was there before. */
  readonly links: ReadonlyMap<LinkKey, boolean>;
}

/** What a transaction has read. */
export class ReadSet {
  readonly keys = new Set<Key>();
  /** Everything strictly below. */
  readonly prefixes = new Set<Key>();
  readonly links = new Set<LinkKey>();
  /** All links of one relation of a record, by `linkPrefix`. */
  readonly linkSets = new Set<string>();

  /** Whether a commit changed anything that was read. */
  touchedBy(past: Past): boolean {
    for (const key of past.records.keys()) {
      if (this.keys.has(key) || (this.prefixes.size > 0 && this.#underPrefix(key))) return true;
    }
    if (this.links.size === 0 && this.linkSets.size === 0) return false;
    for (const link of past.links.keys()) {
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
  #commits: Past[] = [];

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
      // The oldest reader may have left; Math.min over the map is cheap beside keeping images for nobody.
      const oldest = Math.min(...this.#readers.keys());
      const keep = this.#commits.findIndex((past) => past.revision > oldest);
      this.#commits = keep < 0 ? [] : this.#commits.slice(keep);
    }
  }

  add(past: Past): void {
    if (this.hasReaders) this.#commits.push(past);
  }

  /** Commits newer than a revision, oldest first. */
  since(revision: number): readonly Past[] {
    const commits = this.#commits;
    if (commits.length === 0 || commits[0]!.revision > revision) return commits;
    let low = 0;
    let high = commits.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (commits[middle]!.revision <= revision) low = middle + 1;
      else high = middle;
    }
    return commits.slice(low);
  }

  clear(): void {
    this.#commits = [];
  }
}
