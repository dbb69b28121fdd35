/**
 * The buckets of a snapshot, as they are walked: entries in key order, passed on by their places in the bytes, so that nothing is
 * copied that the caller does not want. Called by readers of other programs' files.
 *
 * Whatever the bytes are, a walk ends: places are checked against the page (or the value) that they are in, and no page is
 * entered twice by the walks of one `rootBucket`. BoltDamage, with the page, for what is not as it must be.
 */
import { present } from '../errors.js';
import {
  BoltDamage,
  BUCKET_BYTES,
  BUCKET_FLAG,
  ELEMENT_BYTES,
  PAGE_HEADER_BYTES,
  PageFlag,
  readPageId,
} from './format.js';
import type { BoltSnapshot } from './snapshot.js';

/** Levels of branches in one bucket: each has two children at least, and a file has less than 2^52 pages. */
const DEPTH_MAX = 52;

/** What is entered once. */
class Pages {
  readonly path: string;
  readonly bytes: Buffer;
  /** Of the same bytes: the fastest way to their numbers. */
  readonly view: DataView;
  readonly pageSize: number;
  readonly #limit: number;
  readonly #entered: Uint8Array;

  constructor({ path, bytes, meta }: BoltSnapshot) {
    this.path = path;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.pageSize = meta.pageSize;
    this.#limit = Math.min(meta.highWater, Math.floor(bytes.length / meta.pageSize));
    this.#entered = new Uint8Array(this.#limit);
  }

  /** The end of the page with the pages that belong to it. */
  enter(id: number): number {
    const end = this.endOf(id);
    const last = id + (end - id * this.pageSize) / this.pageSize;
    for (let page = id; page < last; page++) {
      if (this.#entered[page] === 1) throw this.damage('it belongs to two places', page);
      this.#entered[page] = 1;
    }
    return end;
  }

  endOf(id: number): number {
    if (id < 2 || id >= this.#limit) throw this.damage('there is no such page', id);
    const at = id * this.pageSize;
    if (readPageId(this.view, at) !== id) throw this.damage('it has the number of another page', id);
    const overflow = this.view.getUint32(at + 12, true);
    if (id + overflow >= this.#limit) throw this.damage(`it goes on for ${overflow} pages`, id);
    return at + (1 + overflow) * this.pageSize;
  }

  damage(what: string, page: number): BoltDamage {
    return new BoltDamage(this.path, what, page);
  }
}

/** An entry of a bucket; valid until the function that it was passed to returns. */
export class Entry {
  readonly #pages: Pages;
  readonly bytes: Buffer;
  isBucket = false;
  keyAt = 0;
  keyEnd = 0;
  valueAt = 0;
  valueEnd = 0;
  page = 0;
  #key: string | undefined;

  constructor(pages: Pages) {
    this.#pages = pages;
    this.bytes = pages.bytes;
  }

  /** For the walk: the key is at [keyAt, keyEnd) of the page's bytes, the value after it. */
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
    this.#key ??= nameAt(this.#pages, this.keyAt, this.keyEnd);
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

  /** Undefined for a plain value. */
  get bucket(): Bucket | undefined {
    return this.isBucket ? Bucket.of(this.#pages, this) : undefined;
  }
}

/** Buffer's own slicing: undocumented, but what its toString calls, and twice as fast for short texts. */
interface SlicingBuffer extends Buffer {
  utf8Slice(start: number, end: number): string;
}
const textAt = (bytes: Buffer, start: number, end: number): string =>
  (bytes as SlicingBuffer).utf8Slice(start, end);

/** Names of fields come again and again: the last ones of each kind are kept. */
const NAME_BYTES_MAX = 16;
const lastNames: string[] = new Array<string>(256).fill('');

function nameAt({ bytes, view }: Pages, at: number, end: number): string {
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

/** Mostly the first bytes decide. */
function isBefore(pages: Pages, at: number, end: number, nextAt: number, nextEnd: number): boolean {
  const { bytes, view } = pages;
  if (at < end && nextAt < nextEnd && view.getUint8(at) < view.getUint8(nextAt)) return true;
  return bytes.compare(bytes, nextAt, nextEnd, at, end) < 0;
}

type Visit = (entry: Entry) => void;

/** Where elements are: a page, or the value that an inline bucket is in. */
interface Area {
  readonly at: number;
  readonly end: number;
  readonly page: number;
}

export class Bucket {
  readonly #pages: Pages;
  readonly #root: number;
  /** Of an inline bucket. */
  readonly #inline: Area | undefined;
  /** The last number that the bucket gave out. */
  readonly sequence: number;

  private constructor(pages: Pages, root: number, sequence: number, inline: Area | undefined) {
    this.#pages = pages;
    this.#root = root;
    this.sequence = sequence;
    this.#inline = inline;
  }

  /** The bucket of all buckets. Its walks, and those of the buckets in it, are one walk of the file. */
  static root(snapshot: BoltSnapshot): Bucket {
    return new Bucket(new Pages(snapshot), snapshot.meta.root, 0, undefined);
  }

  static of(pages: Pages, { valueAt, valueEnd, page }: Entry): Bucket {
    if (valueEnd - valueAt < BUCKET_BYTES) throw pages.damage('a bucket is cut short', page);
    const root = readPageId(pages.view, valueAt);
    const sequence = readPageId(pages.view, valueAt + 8);
    const inline = root === 0 ? { at: valueAt + BUCKET_BYTES, end: valueEnd, page } : undefined;
    return new Bucket(pages, root, sequence, inline);
  }

  /** Passes on every entry, in key order. */
  each(visit: Visit): void {
    const entry = new Entry(this.#pages);
    if (this.#inline !== undefined) this.#leaf(this.#inline, entry, visit);
    else for (const leaf of this.#leaves()) this.#leaf(leaf, entry, visit);
  }

  /** As `each`, with a step after every page, between which others may run. */
  *inSteps(visit: Visit): Generator<void> {
    if (this.#inline !== undefined) {
      this.each(visit);
      return;
    }
    const entry = new Entry(this.#pages);
    for (const leaf of this.#leaves()) {
      this.#leaf(leaf, entry, visit);
      yield;
    }
  }

  *#leaves(): Generator<Area> {
    const depths: { page: number; depth: number }[] = [{ page: this.#root, depth: 0 }];
    for (let next = depths.pop(); next !== undefined; next = depths.pop()) {
      const { page, depth } = next;
      const area = { at: page * this.#pages.pageSize, end: this.#pages.enter(page), page };
      const flags = this.#pages.view.getUint16(area.at + 8, true);
      if (flags === PageFlag.leaf) yield area;
      else if (flags !== PageFlag.branch || depth >= DEPTH_MAX)
        throw this.#pages.damage('it is not a page of a bucket', page);
      else for (const child of this.#children(area).reverse()) depths.push({ page: child, depth: depth + 1 });
    }
  }

  /** Calls `visit` with the entry of a key, if there is one. Enters no page: a walk may follow. */
  find(key: string, visit: Visit): boolean {
    const wanted = Buffer.from(key);
    const entry = new Entry(this.#pages);
    let found = false;
    const look = (area: Area): void =>
      this.#leaf(area, entry, (one) => {
        if (found || wanted.compare(one.bytes, one.keyAt, one.keyEnd) !== 0) return;
        found = true;
        visit(one);
      });
    if (this.#inline !== undefined) {
      look(this.#inline);
      return found;
    }
    let page = this.#root;
    for (let depth = 0; depth <= DEPTH_MAX; depth++) {
      const area = { at: page * this.#pages.pageSize, end: this.#pages.endOf(page), page };
      const flags = this.#pages.view.getUint16(area.at + 8, true);
      if (flags === PageFlag.leaf) {
        look(area);
        return found;
      }
      if (flags !== PageFlag.branch) break;
      page = this.#childFor(area, wanted);
    }
    throw this.#pages.damage('it is not a page of a bucket', page);
  }

  #leaf({ at, end, page }: Area, entry: Entry, visit: Visit): void {
    const { view } = this.#pages;
    const count = this.#count(at, end, page);
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
        throw this.#pages.damage(`entry ${i} of ${count} is outside of it`, page);
      if (i > 0 && !isBefore(this.#pages, lastAt, lastEnd, keyAt, keyEnd))
        throw this.#pages.damage(`entry ${i} of ${count} is not in order`, page);
      lastAt = keyAt;
      lastEnd = keyEnd;
      data = valueEnd;
      entry.page = page;
      entry.moveTo((flags & BUCKET_FLAG) !== 0, keyAt, keyEnd, valueEnd);
      visit(entry);
    }
  }

  /** Elements that a page, or an inline bucket, has room for. */
  #count(at: number, end: number, page: number): number {
    if (end - at < PAGE_HEADER_BYTES) throw this.#pages.damage('a bucket in it is cut short', page);
    const count = this.#pages.view.getUint16(at + 10, true);
    if (at + PAGE_HEADER_BYTES + count * ELEMENT_BYTES > end)
      throw this.#pages.damage(`it has no room for ${count} entries`, page);
    return count;
  }

  #children(area: Area): number[] {
    const { view } = this.#pages;
    const count = this.#count(area.at, area.end, area.page);
    if (count === 0) throw this.#pages.damage('it is a branch without children', area.page);
    return Array.from({ length: count }, (_, i) =>
      readPageId(view, area.at + PAGE_HEADER_BYTES + i * ELEMENT_BYTES + 8),
    );
  }

  /** The last child whose first key is not after the wanted one. */
  #childFor(area: Area, wanted: Buffer): number {
    const { bytes, view } = this.#pages;
    const children = this.#children(area);
    let found = present(children[0], 'the first child');
    for (const [i, child] of children.entries()) {
      const element = area.at + PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      const keyAt = element + view.getUint32(element, true);
      const keyEnd = keyAt + view.getUint32(element + 4, true);
      if (keyEnd > area.end) throw this.#pages.damage(`entry ${i} is outside of it`, area.page);
      if (i > 0 && wanted.compare(bytes, keyAt, keyEnd) < 0) break;
      found = child;
    }
    return found;
  }
}

export const rootBucket = (snapshot: BoltSnapshot): Bucket => Bucket.root(snapshot);
