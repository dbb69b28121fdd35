/**
 * The buckets of a snapshot, as they are walked: entries in key order, passed on by their places in the bytes, so that nothing is
 * copied that the caller does not want. Called by readers of other programs' files.
 *
 * Whatever the bytes are, a walk ends: places are checked against the page (or the value) that they are in, and no page is
 * entered twice by the walks of one `rootBucket`. BoltDamage, with the page, for what is not as it must be.
 *
 * Two threads can divide a walk (`Lane`): both have the same buckets, and each its own leaves of what is walked in steps.
 */
import { present } from '../errors.js';
import type { Steps } from '../system/turns.js';
import {
  BUCKET_BYTES,
  BUCKET_FLAG,
  ELEMENT_BYTES,
  PAGE_HEADER_BYTES,
  PageFlag,
  readPageId,
} from './format.js';
import type { Area, Pages } from './pages.js';
import type { BoltSnapshot } from './snapshot.js';

/** Levels of branches in one bucket: each has two children at least, and a file has less than 2^52 pages. */
const DEPTH_MAX = 52;

/** One of two threads that divide a walk. */
export interface Lane {
  /** Whether its leaves are the first ones of every round, or the others. */
  readonly isFirst: boolean;
  /** Leaves. */
  readonly first: number;
  readonly round: number;
  /** Of both together: as many bytes as the pages have slots, all 0 at first. */
  readonly entered: Uint8Array;
}

/** The slot of an inline bucket: what it is in was entered. */
const INLINE = -1;
/** How a page was entered. */
const Entered = { once: 1, byBoth: 2 } as const;

/** The walks of one root: what they enter once. */
class Walk {
  readonly pages: Pages;
  readonly #lane: Lane;
  /** Those that both lanes enter, by their slots. */
  readonly #common = new Set<number>();
  #leaves = 0;

  constructor(pages: Pages, lane?: Lane) {
    this.pages = pages;
    this.#lane = lane ?? { isFirst: true, first: 1, round: 1, entered: new Uint8Array(pages.slots) };
  }

  enter({ slot, page }: Area): void {
    if (slot === INLINE) return;
    if (Atomics.exchange(this.#lane.entered, slot, Entered.once) !== 0) this.#failTwice(page);
  }

  enterInBoth({ slot, page }: Area): void {
    if (slot === INLINE) return;
    const before = Atomics.exchange(this.#lane.entered, slot, Entered.byBoth);
    if (before === Entered.once || this.#common.has(slot)) this.#failTwice(page);
    this.#common.add(slot);
  }

  /** Whether the next leaf of what is divided is of this lane. */
  hasNextLeaf(): boolean {
    const { isFirst, first, round } = this.#lane;
    return this.#leaves++ % round < first === isFirst;
  }

  #failTwice(page: number): never {
    throw this.pages.damage('it belongs to two places', page);
  }
}

/** An entry of a bucket; valid until the function that it was passed to returns. */
export class Entry {
  readonly #walk: Walk;
  bytes: Buffer;
  isBucket = false;
  keyAt = 0;
  keyEnd = 0;
  valueAt = 0;
  valueEnd = 0;
  area: Area;
  #key: string | undefined;

  constructor(walk: Walk, area: Area) {
    this.#walk = walk;
    this.area = area;
    this.bytes = area.bytes;
  }

  /** For the walk: the key is at [keyAt, keyEnd) of the area's bytes, the value after it. */
  moveTo(isBucket: boolean, keyAt: number, keyEnd: number, valueEnd: number): void {
    this.isBucket = isBucket;
    this.keyAt = keyAt;
    this.keyEnd = keyEnd;
    this.valueAt = keyEnd;
    this.valueEnd = valueEnd;
    this.#key = undefined;
  }

  /** As text. Bytes that are not UTF-8 become U+FFFD: see `hasTextKey`. */
  get key(): string {
    this.#key ??= nameAt(this.bytes, this.area.view, this.keyAt, this.keyEnd);
    return this.#key;
  }

  get hasTextKey(): boolean {
    return isText(this.key, this.bytes, this.keyAt, this.keyEnd);
  }

  get text(): string {
    return textAt(this.bytes, this.valueAt, this.valueEnd);
  }

  /** A view; copy what is kept. Empty for a bucket. */
  get value(): Buffer {
    return this.bytes.subarray(this.valueAt, this.isBucket ? this.valueAt : this.valueEnd);
  }

  /** Whether `value` is these bytes; a loop, for short ones. */
  hasValue(wanted: Uint8Array): boolean {
    if (this.isBucket || this.valueEnd - this.valueAt !== wanted.length) return false;
    for (let i = 0; i < wanted.length; i++) if (this.bytes[this.valueAt + i] !== wanted[i]) return false;
    return true;
  }

  /** Undefined for a plain value. */
  get bucket(): Bucket | undefined {
    return this.isBucket ? Bucket.of(this.#walk, this) : undefined;
  }
}

/** Buffer's own slicing: undocumented, but what its toString calls, and twice as fast for short texts. */
interface SlicingBuffer extends Buffer {
  utf8Slice(start: number, end: number): string;
}
const textAt = (bytes: Buffer, start: number, end: number): string =>
  (bytes as SlicingBuffer).utf8Slice(start, end);

/** Names of fields and labels come again and again: the last ones of each kind are kept. Those that are longer are mostly hashes. */
const NAME_BYTES_MAX = 63;
const lastNames: string[] = new Array<string>(256).fill('');

function nameAt(bytes: Buffer, view: DataView, at: number, end: number): string {
  const length = end - at;
  if (length === 0 || length > NAME_BYTES_MAX) return textAt(bytes, at, end);
  const slot = (31 * length + 7 * view.getUint8(at) + view.getUint8(end - 1)) & 0xff;
  const last = lastNames[slot];
  if (last?.length === length && isSame(last, bytes, at)) return last;
  const name = textAt(bytes, at, end);
  lastNames[slot] = name;
  return name;
}

/** False for what is not ASCII. */
function isSame(name: string, bytes: Buffer, at: number): boolean {
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    if (code !== bytes[at + i] || code > 0x7f) return false;
  }
  return true;
}

const REPLACEMENT = '�';

function isText(text: string, bytes: Buffer, start: number, end: number): boolean {
  if (!text.includes(REPLACEMENT)) return true;
  return Buffer.from(text).equals(bytes.subarray(start, end));
}

/** A loop, since mostly some of the first bytes decide. */
function isBefore(view: DataView, at: number, end: number, nextAt: number, nextEnd: number): boolean {
  const shared = Math.min(end - at, nextEnd - nextAt);
  for (let i = 0; i < shared; i++) {
    const less = view.getUint8(at + i) - view.getUint8(nextAt + i);
    if (less !== 0) return less < 0;
  }
  return end - at < nextEnd - nextAt;
}

type Visit = (entry: Entry) => void;

export class Bucket {
  readonly #walk: Walk;
  readonly #root: number;
  /** Of an inline bucket. */
  readonly #inline: Area | undefined;
  /** The last number that the bucket gave out. */
  readonly sequence: bigint;

  private constructor(walk: Walk, root: number, sequence: bigint, inline: Area | undefined) {
    this.#walk = walk;
    this.#root = root;
    this.sequence = sequence;
    this.#inline = inline;
  }

  /** The bucket of all buckets. Its walks, and those of the buckets in it, are one walk of the file. */
  static root(pages: Pages, root: number, lane?: Lane): Bucket {
    return new Bucket(new Walk(pages, lane), root, 0n, undefined);
  }

  static of(walk: Walk, { valueAt, valueEnd, area: { bytes, view, page } }: Entry): Bucket {
    if (valueEnd - valueAt < BUCKET_BYTES) throw walk.pages.damage('a bucket is cut short', page);
    const root = readPageId(view, valueAt);
    const sequence = view.getBigUint64(valueAt + 8, true);
    const inline =
      root === 0 ? { bytes, view, at: valueAt + BUCKET_BYTES, end: valueEnd, page, slot: INLINE } : undefined;
    return new Bucket(walk, root, sequence, inline);
  }

  /** Passes on every entry, in key order. In a divided walk only one lane may. */
  each(visit: Visit): void {
    const first = this.#first();
    const entry = new Entry(this.#walk, first);
    // Most have but one page.
    if (this.#isLeaf(first)) {
      this.#walk.enter(first);
      this.#leaf(first, entry, visit);
    } else for (const leaf of this.#leaves(first, 'once')) this.#leaf(leaf, entry, visit);
  }

  /** As `each`, in both lanes of a divided walk. */
  eachInBoth(visit: Visit): void {
    const first = this.#first();
    const entry = new Entry(this.#walk, first);
    for (const leaf of this.#leaves(first, 'in both')) this.#leaf(leaf, entry, visit);
  }

  /** As `each`, with a step after every page, between which others may run. The lanes of a divided walk have different leaves. */
  *inSteps(visit: Visit): Steps {
    const first = this.#first();
    const entry = new Entry(this.#walk, first);
    for (const leaf of this.#leaves(first, 'divided')) {
      this.#leaf(leaf, entry, visit);
      yield;
    }
  }

  #first(): Area {
    return this.#inline ?? this.#walk.pages.area(this.#root);
  }

  #isLeaf(area: Area): boolean {
    return area === this.#inline || area.view.getUint16(area.at + 8, true) === PageFlag.leaf;
  }

  *#leaves(first: Area, how: 'once' | 'in both' | 'divided'): Generator<Area> {
    const walk = this.#walk;
    const rest: { page: number; depth: number }[] = [];
    for (let area = first, depth = 0; ; ) {
      const isLeaf = this.#isLeaf(area);
      const isOthers = isLeaf && how === 'divided' && !walk.hasNextLeaf();
      if (how === 'in both' || (how === 'divided' && !isLeaf)) walk.enterInBoth(area);
      else if (!isOthers) walk.enter(area);
      if (!isLeaf) {
        this.#checkBranch(area, depth);
        for (const page of this.#children(area).reverse()) rest.push({ page, depth: depth + 1 });
      } else if (!isOthers) yield area;
      const next = rest.pop();
      if (next === undefined) return;
      area = walk.pages.area(next.page);
      depth = next.depth;
    }
  }

  #checkBranch({ view, at, page }: Area, depth: number): void {
    if (view.getUint16(at + 8, true) !== PageFlag.branch || depth >= DEPTH_MAX)
      throw this.#walk.pages.damage('it is not a page of a bucket', page);
  }

  /** Calls `visit` with the entry of a key, if there is one. Enters no page: a walk may follow. */
  find(key: string, visit: Visit): boolean {
    const wanted = Buffer.from(key);
    let area = this.#inline ?? this.#walk.pages.area(this.#root);
    for (let depth = 0; !this.#isLeaf(area); depth++) {
      this.#checkBranch(area, depth);
      area = this.#walk.pages.area(this.#childFor(area, wanted));
    }
    let found = false;
    this.#leaf(area, new Entry(this.#walk, area), (one) => {
      if (found || wanted.compare(one.bytes, one.keyAt, one.keyEnd) !== 0) return;
      found = true;
      visit(one);
    });
    return found;
  }

  #leaf(area: Area, entry: Entry, visit: Visit): void {
    const { bytes, view, at, end, page } = area;
    const count = this.#count(area);
    entry.area = area;
    entry.bytes = bytes;
    // One after the other: two entries of the same bytes could multiply what a walk has to do.
    let data = at + PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
    let lastAt = 0;
    let lastEnd = 0;
    for (let i = 0; i < count; i++) {
      const element = at + PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      const flags = view.getUint32(element, true);
      const keyAt = element + view.getUint32(element + 4, true);
      const keyEnd = keyAt + view.getUint32(element + 8, true);
      const valueEnd = keyEnd + view.getUint32(element + 12, true);
      if (keyAt < data || valueEnd > end)
        throw this.#walk.pages.damage(`entry ${i} of ${count} is outside of it`, page);
      if (i > 0 && !isBefore(view, lastAt, lastEnd, keyAt, keyEnd))
        throw this.#walk.pages.damage(`entry ${i} of ${count} is not in order`, page);
      lastAt = keyAt;
      lastEnd = keyEnd;
      data = valueEnd;
      entry.moveTo((flags & BUCKET_FLAG) !== 0, keyAt, keyEnd, valueEnd);
      visit(entry);
    }
  }

  /** Elements that a page, or an inline bucket, has room for. */
  #count({ view, at, end, page }: Area): number {
    if (end - at < PAGE_HEADER_BYTES) throw this.#walk.pages.damage('a bucket in it is cut short', page);
    const count = view.getUint16(at + 10, true);
    if (at + PAGE_HEADER_BYTES + count * ELEMENT_BYTES > end)
      throw this.#walk.pages.damage(`it has no room for ${count} entries`, page);
    return count;
  }

  #children(area: Area): number[] {
    const count = this.#count(area);
    if (count === 0) throw this.#walk.pages.damage('it is a branch without children', area.page);
    return Array.from({ length: count }, (_, i) =>
      readPageId(area.view, area.at + PAGE_HEADER_BYTES + i * ELEMENT_BYTES + 8),
    );
  }

  /** The last child whose first key is not after the wanted one. */
  #childFor(area: Area, wanted: Buffer): number {
    const { bytes, view } = area;
    const children = this.#children(area);
    let found = present(children[0], 'the first child');
    for (const [i, child] of children.entries()) {
      const element = area.at + PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      const keyAt = element + view.getUint32(element, true);
      const keyEnd = keyAt + view.getUint32(element + 4, true);
      if (keyEnd > area.end) throw this.#walk.pages.damage(`entry ${i} is outside of it`, area.page);
      if (i > 0 && wanted.compare(bytes, keyAt, keyEnd) < 0) break;
      found = child;
    }
    return found;
  }
}

export const rootBucket = ({ pages, meta }: BoltSnapshot): Bucket => Bucket.root(pages, meta.root);
