/**
 * Where the links of a record begin that is being emptied from the front: deletions and collections drop what a lease
 * holds in many small commits, which the tree does not have yet, and each would pass over all that the others dropped. Called by
 * links.ts.
 */
import { type LinkKey, linksPrefix, splitLink } from '../core/storage.js';

/** Links after the beginning that are remembered; a commit drops fewer at a time. */
const READ_MAX = 4096;
/** Once as many are gone, a record is being emptied. */
const GONE_MIN = 64;
/** Records that are being emptied at once. */
const EMPTIED_MAX = 16;

export class FirstLinks {
  readonly #firstOf: (prefix: string) => LinkKey | undefined;
  /** The record whose links were read last, and those that are being emptied, the one that was left alone longest first. */
  #last: Front | undefined;
  #emptied: Front[] = [];

  /** @param firstOf reads the first link with a prefix */
  constructor(firstOf: (prefix: string) => LinkKey | undefined) {
    this.#firstOf = firstOf;
  }

  /** Behind which link a reading of those with this prefix may begin. */
  startAfter(prefix: string): LinkKey | undefined {
    return this.#emptied.find((front) => front.covers(prefix))?.gone;
  }

  /** Links were read, in order: all with this prefix after `after`, up to the last of them. */
  wereRead(prefix: string, after: LinkKey | undefined, links: readonly LinkKey[]): void {
    if (links.length === 0) return;
    let front = this.#emptied.find((one) => one.prefix === prefix);
    if (front === undefined && after === undefined && this.#last?.prefix !== prefix) {
      const { from, relation } = splitLink(`${prefix}\0\0`);
      if (relation !== '') this.#last = new Front(linksPrefix(from), prefix);
    }
    front ??= this.#last?.prefix === prefix ? this.#last : undefined;
    front?.wereRead(after, links);
  }

  /** A commit is pending now. */
  added(links: ReadonlyMap<LinkKey, boolean>): void {
    if (links.size === 0 || (this.#last === undefined && this.#emptied.length === 0)) return;
    for (const [link, present] of links) {
      if (!present) continue;
      if (this.#last !== undefined && link.startsWith(this.#last.owner)) this.#last = undefined;
      if (this.#emptied.length > 0)
        this.#emptied = this.#emptied.filter(({ owner }) => !link.startsWith(owner));
    }
    for (const front of [...this.#emptied]) if (front.dropped(links)) this.#use(front);
    if (this.#last?.dropped(links) !== true || this.#last.goneCount < GONE_MIN) return;
    this.#last.isFirst = this.#firstOf(this.#last.owner)?.startsWith(this.#last.prefix) ?? true;
    this.#use(this.#last);
    this.#last = undefined;
  }

  #use(front: Front): void {
    this.#emptied = this.#emptied.filter((one) => one !== front);
    this.#emptied.push(front);
    if (this.#emptied.length > EMPTIED_MAX) this.#emptied.shift();
  }

  /** What was gone may be there again. */
  forget(): void {
    this.#last = undefined;
    this.#emptied = [];
  }
}

/** One record's links of one relation. */
class Front {
  /** What all links of the record begin with. */
  readonly owner: string;
  readonly prefix: string;
  /** The record has no links of relations before this one. */
  isFirst = false;
  /** No link of the relation up to this one is there; undefined: none is known to be gone. */
  gone: LinkKey | undefined;
  goneCount = 0;
  /** What is there after that, in order and without a gap, as far as it was read. */
  #read: LinkKey[] = [];
  #next = 0;

  constructor(owner: string, prefix: string) {
    this.owner = owner;
    this.prefix = prefix;
  }

  covers(prefix: string): boolean {
    return prefix === this.prefix || (this.isFirst && prefix === this.owner);
  }

  wereRead(after: LinkKey | undefined, links: readonly LinkKey[]): void {
    if (after === undefined || after === this.gone) {
      this.#read = [...links];
      this.#next = 0;
    } else if (after === this.#read.at(-1) && this.#read.length < READ_MAX) {
      for (const link of links) this.#read.push(link);
    }
  }

  /** Whether a commit dropped the first ones. */
  dropped(links: ReadonlyMap<LinkKey, boolean>): boolean {
    const before = this.goneCount;
    for (let link = this.#read[this.#next]; link !== undefined; link = this.#read[++this.#next]) {
      if (links.get(link) !== false) break;
      this.gone = link;
      this.goneCount++;
    }
    return this.goneCount > before;
  }
}
