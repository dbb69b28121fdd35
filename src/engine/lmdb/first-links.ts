/**
 * Where the links of a record begin that is being emptied from the front: a collection drops what an expired lease holds in
 * many small commits, which the tree does not have yet, and each would pass over all that the others dropped. Called by
 * links.ts, for one record at a time: the one whose links were read from the front last.
 */
import { type LinkKey, linksPrefix, splitLink } from '../core/storage.js';

/** Links behind the beginning that are remembered; a commit drops fewer at a time. */
const READ_MAX = 4096;
/** As many are gone before it is worth to know whether others lie before them. */
const GONE_MIN = 64;

export class FirstLinks {
  readonly #firstOf: (prefix: string) => LinkKey | undefined;
  /** What all links of the record begin with, and those of the relation that is read. */
  #owner: string | undefined;
  #prefix = '';
  /** Whether the record has no links of relations before that one; undefined: not looked yet. */
  #isFirst: boolean | undefined;
  /** No link of the relation up to this one is there; undefined: none is known to be gone. */
  #gone: LinkKey | undefined;
  #goneCount = 0;
  /** What is there behind that, in order and without a gap, as far as it was read. */
  #read: LinkKey[] = [];
  #next = 0;

  /** @param firstOf reads the first link with a prefix */
  constructor(firstOf: (prefix: string) => LinkKey | undefined) {
    this.#firstOf = firstOf;
  }

  /** Behind which link a reading of those with this prefix may begin. */
  behind(prefix: string): LinkKey | undefined {
    return prefix === this.#prefix || (this.#isFirst === true && prefix === this.#owner)
      ? this.#gone
      : undefined;
  }

  /** Links were read, in order: all with this prefix behind `after`, up to the last of them. */
  wereRead(prefix: string, after: LinkKey | undefined, links: readonly LinkKey[]): void {
    if (links.length === 0) return;
    if (prefix !== this.#prefix) {
      const { from, relation } = splitLink(`${prefix}\0\0`);
      if (after !== undefined || relation === '') return;
      this.forget();
      this.#owner = linksPrefix(from);
      this.#prefix = prefix;
    }
    if (after === this.#gone) {
      this.#read = [...links];
      this.#next = 0;
    } else if (after === this.#read.at(-1) && this.#read.length < READ_MAX) {
      for (const link of links) this.#read.push(link);
    }
  }

  /** A commit is pending now. */
  added(links: ReadonlyMap<LinkKey, boolean>): void {
    const owner = this.#owner;
    if (owner === undefined || links.size === 0) return;
    for (const [link, present] of links) {
      if (!present || !link.startsWith(owner)) continue;
      this.forget();
      return;
    }
    while (this.#next < this.#read.length && links.get(this.#read[this.#next]!) === false) {
      this.#gone = this.#read[this.#next++];
      this.#goneCount++;
    }
    if (this.#goneCount >= GONE_MIN) {
      this.#isFirst ??= this.#firstOf(owner)?.startsWith(this.#prefix) ?? true;
    }
  }

  /** What was gone may be there again. */
  forget(): void {
    this.#owner = undefined;
    this.#prefix = '';
    this.#isFirst = undefined;
    this.#gone = undefined;
    this.#goneCount = 0;
    this.#read = [];
    this.#next = 0;
  }
}
