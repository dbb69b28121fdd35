/**
 * The pages of one moment of a file, of each only the bytes that are used: containerd's have 4 KiB for a record of some hundred bytes.
 * Filled by snapshot.ts in the order of the file, read by bucket.ts.
 *
 * Nothing here is trusted: whether a page belongs to what is in use shows only in a walk. So a page is kept whole where any page
 * before it, in use or not, says that it goes on there.
 */
import { unavailable } from '../errors.js';
import { BoltDamage, ELEMENT_BYTES, type Meta, PAGE_HEADER_BYTES, PageFlag, readPageId } from './format.js';

const SEGMENT_BYTES = 4 * 1024 * 1024;

/** Where elements are: a page with those that it goes on in, or the value that an inline bucket is in. */
export interface Area {
  readonly bytes: Buffer;
  /** Of the same bytes: the fastest way to their numbers. */
  readonly view: DataView;
  readonly at: number;
  readonly end: number;
  readonly page: number;
}

export const viewOf = ({ buffer, byteOffset, length }: Buffer): DataView =>
  new DataView(buffer, byteOffset, length);

export function allocate(path: string, length: number): Buffer {
  try {
    return Buffer.allocUnsafeSlow(length);
  } catch (error) {
    throw unavailable(`there is no memory for ${length} bytes of ${path}`, {
      object: path,
      remedy: 'free memory, or read a compacted copy of the file',
      cause: error,
    });
  }
}

interface Segment {
  readonly bytes: Buffer;
  readonly view: DataView;
}

export class Pages {
  readonly path: string;
  readonly pageSize: number;
  /** One after the last page. */
  readonly limit: number;
  readonly #segments: Segment[] = [];
  /** Of each page: its segment and its place in it, as one number; where it ends. */
  readonly #places: Float64Array;
  readonly #ends: Uint32Array;
  /** Used of the last segment. */
  #used = SEGMENT_BYTES;
  #kept = 0;
  /** One after the last page that some page before goes on in. */
  #claimed = 0;

  /** @param length bytes that there are of the file */
  constructor(path: string, { pageSize, highWater }: Meta, length: number) {
    this.path = path;
    this.pageSize = pageSize;
    this.limit = Math.min(highWater, Math.floor(length / pageSize));
    this.#places = new Float64Array(this.limit);
    this.#ends = new Uint32Array(this.limit);
  }

  /** Keeps the next pages, as many as the bytes have. */
  keep(bytes: Buffer): void {
    const view = viewOf(bytes);
    for (let at = 0; at + this.pageSize <= bytes.length && this.#kept < this.limit; at += this.pageSize)
      this.#keep(bytes, at, this.#usedOf(view, at));
  }

  #keep(bytes: Buffer, at: number, length: number): void {
    if (this.#used + length > SEGMENT_BYTES) {
      const left = (this.limit - this.#kept) * this.pageSize;
      const segment = allocate(this.path, Math.min(SEGMENT_BYTES, left));
      this.#segments.push({ bytes: segment, view: viewOf(segment) });
      this.#used = 0;
    }
    const number = this.#segments.length - 1;
    this.#segments[number]?.bytes.set(bytes.subarray(at, at + length), this.#used);
    this.#places[this.#kept] = number * SEGMENT_BYTES + this.#used;
    this.#used += length;
    this.#ends[this.#kept++] = this.#used;
  }

  /** How many bytes of the next page are kept. */
  #usedOf(view: DataView, at: number): number {
    const page = this.#kept;
    let isWhole = page < this.#claimed;
    // No other page is entered.
    const isNamed = readPageId(view, at) === page;
    if (isNamed) {
      const overflow = view.getUint32(at + 12, true);
      if (overflow > 0 && page + overflow < this.limit) {
        isWhole = true;
        this.#claimed = Math.max(this.#claimed, page + overflow + 1);
      }
    }
    if (isWhole) return this.pageSize;
    return isNamed ? Math.min(this.pageSize, usedBytes(view, at, this.pageSize)) : PAGE_HEADER_BYTES;
  }

  /** The page with those that it goes on in. BoltDamage without such a page. */
  area(id: number): Area {
    if (id < 2 || id >= this.limit) throw this.damage('there is no such page', id);
    const place = this.#places[id] ?? 0;
    const segment = this.#segments[Math.floor(place / SEGMENT_BYTES)];
    const at = place % SEGMENT_BYTES;
    if (segment === undefined || readPageId(segment.view, at) !== id)
      throw this.damage('it has the number of another page', id);
    const { bytes, view } = segment;
    const overflow = view.getUint32(at + 12, true);
    if (id + overflow >= this.limit) throw this.damage(`it goes on for ${overflow} pages`, id);
    const more = overflow * this.pageSize;
    const isOnePiece =
      overflow === 0 ||
      ((this.#places[id + overflow] ?? 0) - place === more && at + more + this.pageSize <= SEGMENT_BYTES);
    if (isOnePiece) return { bytes, view, at, end: (this.#ends[id] ?? 0) + more, page: id };
    return this.#joined(id, overflow);
  }

  /** Its pages are whole, and in several segments. */
  #joined(page: number, overflow: number): Area {
    const parts: Buffer[] = [];
    for (let id = page; id <= page + overflow; id++) {
      const end = this.#ends[id] ?? 0;
      const segment = this.#segments[Math.floor((this.#places[id] ?? 0) / SEGMENT_BYTES)];
      if (segment !== undefined) parts.push(segment.bytes.subarray(end - this.pageSize, end));
    }
    const bytes = Buffer.concat(parts);
    return { bytes, view: viewOf(bytes), at: 0, end: bytes.length, page };
  }

  damage(what: string, page: number): BoltDamage {
    return new BoltDamage(this.path, what, page);
  }
}

/** Up to where the elements of a page, and what they name, go. */
function usedBytes(view: DataView, at: number, pageSize: number): number {
  const flags = view.getUint16(at + 8, true);
  const count = view.getUint16(at + 10, true);
  const isLeaf = flags === PageFlag.leaf;
  if (count === 0 || !(isLeaf || flags === PageFlag.branch)) return PAGE_HEADER_BYTES;
  const last = PAGE_HEADER_BYTES + (count - 1) * ELEMENT_BYTES;
  if (last + ELEMENT_BYTES > pageSize) return pageSize;
  const element = at + last;
  const end = isLeaf
    ? view.getUint32(element + 4, true) +
      view.getUint32(element + 8, true) +
      view.getUint32(element + 12, true)
    : view.getUint32(element, true) + view.getUint32(element + 4, true);
  return Math.max(last + ELEMENT_BYTES, last + end);
}
