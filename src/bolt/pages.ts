/**
 * The pages that a reading found, of each only the bytes that are used: containerd's have 4 KiB for a record of some hundred bytes.
 * Filled by reading.ts in any order, read by bucket.ts. Memory: those bytes, if the heap keeps them there, and some twenty for each page; nothing for what the
 * file has beside them, however long it is, nor for the rest of long values, if that is not asked for.
 */
import { withoutLongValues } from './cut.js';
import { BoltDamage, ELEMENT_BYTES, PAGE_HEADER_BYTES, PageFlag } from './format.js';
import { type Heap, MemoryHeap } from './heap.js';

/** Where elements are: a page with those that it goes on in, or the value that an inline bucket is in. */
export interface Area {
  readonly bytes: Buffer;
  /** Of the same bytes: the fastest way to their numbers. */
  readonly view: DataView;
  readonly at: number;
  readonly end: number;
  readonly page: number;
  /** Of a page, its number among all that were ever kept. */
  readonly slot: number;
}

/** What is known of a page: one of these, or `KEPT` and its slot. */
export const Known = {
  nothing: 0,
  /** Something leads to it, and it was not read yet. */
  wanted: 1,
  /** A page before it goes on in it. */
  inside: 2,
} as const;
const KEPT = 3;

/** Numbers by page, with memory for those parts of a file only that have some. */
class Table {
  readonly #parts: Map<number, Uint32Array>;
  #last: Uint32Array = new Uint32Array(PART_PAGES);
  #lastPart = -1;

  constructor(parts = new Map<number, Uint32Array>()) {
    this.#parts = parts;
  }

  get parts(): ReadonlyMap<number, Uint32Array> {
    return this.#parts;
  }

  get(page: number): number {
    return this.#part(page, false)?.[page % PART_PAGES] ?? 0;
  }

  set(page: number, value: number): void {
    const part = this.#part(page, true);
    if (part !== undefined) part[page % PART_PAGES] = value;
  }

  #part(page: number, isMade: boolean): Uint32Array | undefined {
    const number = Math.floor(page / PART_PAGES);
    if (number === this.#lastPart) return this.#last;
    let part = this.#parts.get(number);
    if (part === undefined && isMade) {
      part = new Uint32Array(PART_PAGES);
      this.#parts.set(number, part);
    }
    if (part === undefined) return undefined;
    this.#last = part;
    this.#lastPart = number;
    return part;
  }
}
const PART_PAGES = 8192;

/** The pages of a reading that has ended, for other threads: their bytes are shared, what is known of them is copied. */
export interface SharedPages {
  readonly path: string;
  readonly pageSize: number;
  readonly limit: number;
  readonly known: ReadonlyMap<number, Uint32Array>;
  readonly places: Float64Array<ArrayBuffer>;
  readonly lengths: Uint32Array<ArrayBuffer>;
  readonly refused: ReadonlyMap<number, string>;
  readonly memory: readonly SharedArrayBuffer[];
}

export class Pages {
  readonly path: string;
  readonly pageSize: number;
  /** One after the last page that the file has room for, and uses. */
  limit = 0;
  readonly #valueBytesMax: number;
  readonly #heap: Heap;
  #known = new Table();
  /** Of each slot: its place on the heap, its length. */
  #placeOf = new Float64Array(1024);
  #lengthOf = new Uint32Array(1024);
  #slots = 0;
  /** Why a page that something leads to is not kept. */
  #refused = new Map<number, string>();

  /** @param valueBytesMax of a value that makes its page go on in others; the rest of a longer one is not kept */
  constructor(
    path: string,
    pageSize: number,
    valueBytesMax = Number.POSITIVE_INFINITY,
    heap: Heap = new MemoryHeap(path),
  ) {
    this.path = path;
    this.pageSize = pageSize;
    this.#valueBytesMax = valueBytesMax;
    this.#heap = heap;
  }

  /** Undefined if they are not kept in memory. */
  share(): SharedPages | undefined {
    if (!(this.#heap instanceof MemoryHeap)) return undefined;
    const { path, pageSize, limit } = this;
    return {
      path,
      pageSize,
      limit,
      known: this.#known.parts,
      places: this.#placeOf.subarray(0, this.#slots),
      lengths: this.#lengthOf.subarray(0, this.#slots),
      refused: this.#refused,
      memory: this.#heap.share(),
    };
  }

  static of({ path, pageSize, limit, known, places, lengths, refused, memory }: SharedPages): Pages {
    const pages = new Pages(path, pageSize, undefined, new MemoryHeap(path, memory));
    pages.limit = limit;
    pages.#known = new Table(new Map(known));
    pages.#placeOf = places;
    pages.#lengthOf = lengths;
    pages.#slots = places.length;
    pages.#refused = new Map(refused);
    return pages;
  }

  /** All that were ever kept: slots are below it. */
  get slots(): number {
    return this.#slots;
  }

  has(id: number): boolean {
    return this.#known.get(id) >= KEPT;
  }

  isWanted(id: number): boolean {
    return this.#known.get(id) === Known.wanted;
  }

  /** Whether it is wanted only since now. Others are refused. */
  want(id: number): boolean {
    if (id < 2 || id >= this.limit) return false;
    const known = this.#known.get(id);
    if (known === Known.inside) this.refuse(id, 'it belongs to two places');
    if (known !== Known.nothing) return false;
    this.#known.set(id, Known.wanted);
    return true;
  }

  refuse(id: number, why: string): void {
    if (this.isWanted(id)) this.#known.set(id, Known.nothing);
    this.#refused.set(id, why);
  }

  /** Nothing leads to it any more. */
  forget(id: number): void {
    this.#refused.delete(id);
    if (this.has(id)) {
      const { view, at } = this.area(id);
      for (let more = view.getUint32(at + 12, true); more > 0; more--)
        this.#known.set(id + more, Known.nothing);
    } else if (!this.isWanted(id)) return;
    this.#known.set(id, Known.nothing);
  }

  /** Keeps a page, with those that it goes on in. REQUIRES: `bytes` has all of it from `at` on. */
  keep(id: number, bytes: Buffer, view: DataView, at: number): void {
    const overflow = view.getUint32(at + 12, true);
    if (!this.#claim(id, overflow)) return;
    const room = (1 + overflow) * this.pageSize;
    const length = Math.min(room, usedBytes(view, at, room));
    const cut = overflow === 0 ? undefined : withoutLongValues(bytes, view, at, room, this.#valueBytesMax);
    this.#add(id, cut ?? bytes.subarray(at, at + length));
  }

  /** The pages that it goes on in are no others. */
  #claim(id: number, overflow: number): boolean {
    for (let page = id + 1; page <= id + overflow; page++)
      if (this.#known.get(page) !== Known.nothing) {
        this.refuse(id, 'it belongs to two places');
        return false;
      }
    for (let page = id + 1; page <= id + overflow; page++) this.#known.set(page, Known.inside);
    return true;
  }

  #add(id: number, bytes: Buffer): void {
    if (this.#slots === this.#lengthOf.length) this.#grow();
    const slot = this.#slots++;
    this.#placeOf[slot] = this.#heap.add(bytes);
    this.#lengthOf[slot] = bytes.length;
    this.#known.set(id, KEPT + slot);
    this.#refused.delete(id);
  }

  #grow(): void {
    const [places, lengths] = [this.#placeOf, this.#lengthOf];
    this.#placeOf = new Float64Array(2 * places.length);
    this.#placeOf.set(places);
    this.#lengthOf = new Uint32Array(2 * lengths.length);
    this.#lengthOf.set(lengths);
  }

  /** The page with those that it goes on in. BoltDamage without such a page. */
  area(id: number): Area {
    const slot = this.#known.get(id) - KEPT;
    if (slot < 0) throw this.damage(this.#refused.get(id) ?? 'there is no such page', id);
    const length = this.#lengthOf[slot] ?? 0;
    const { bytes, view, at } = this.#heap.get(this.#placeOf[slot] ?? 0, length);
    return { bytes, view, at, end: at + length, page: id, slot };
  }

  damage(what: string, page: number): BoltDamage {
    return new BoltDamage(this.path, what, page);
  }
}

/** Up to where the elements of a page, and what they name, go. */
function usedBytes(view: DataView, at: number, room: number): number {
  const flags = view.getUint16(at + 8, true);
  const count = view.getUint16(at + 10, true);
  const isLeaf = flags === PageFlag.leaf;
  if (count === 0 || !(isLeaf || flags === PageFlag.branch)) return PAGE_HEADER_BYTES;
  const last = PAGE_HEADER_BYTES + (count - 1) * ELEMENT_BYTES;
  if (last + ELEMENT_BYTES > room) return room;
  return Math.max(last + ELEMENT_BYTES, last + bytesAfter(view, at + last, flags));
}

/** From an element of a page up to the end of its key and its value. */
export function bytesAfter(view: DataView, element: number, flags: number): number {
  return flags === PageFlag.leaf
    ? view.getUint32(element + 4, true) +
        view.getUint32(element + 8, true) +
        view.getUint32(element + 12, true)
    : view.getUint32(element, true) + view.getUint32(element + 4, true);
}
