/**
 * The pages of a file that bbolt does not open any more, one by one: which of them are whole, and what is in them. Called to
 * bring back what can be read.
 *
 * bbolt has no checksum of a page. A page counts as whole when it is as bbolt writes it, to the byte: its own number (a page that stands in
 * another's place is found by its number), keys in order, the elements and then their bytes without a gap or a
 * sector that was set to zeros, then zeros up to its end. Bytes that changed within a value are not seen.
 */

import {
  BUCKET_BYTES,
  BUCKET_FLAG,
  ELEMENT_BYTES,
  type Meta,
  PAGE_HEADER_BYTES,
  PAGE_SIZES,
  PageFlag,
  parseMeta,
  readPageId,
} from './format.js';
import { readRaw } from './snapshot.js';

const roundUp = (at: number): number => Math.ceil(at / SECTOR_BYTES) * SECTOR_BYTES;

const KINDS: readonly number[] = Object.values(PageFlag);
/** What a disk writes as a whole. */
const SECTOR_BYTES = 512;

/** An entry of a leaf. Keys are bytes as Latin-1 text, whose order is that of the bytes. */
export interface LeafEntry {
  readonly key: string;
  readonly isBucket: boolean;
  readonly value: Buffer;
}

export interface LeafPage {
  readonly kind: 'leaf';
  readonly id: number;
  readonly entries: readonly LeafEntry[];
}

export interface BranchPage {
  readonly kind: 'branch';
  readonly id: number;
  readonly children: readonly { readonly key: string; readonly page: number }[];
}

/** A bucket as its entry has it. */
export interface BucketValue {
  /** 0: inline. */
  readonly page: number;
  readonly sequence: number;
  /** Of an inline bucket, undefined if it is damaged. */
  readonly entries: readonly LeafEntry[] | undefined;
}

export class PageScan {
  readonly path: string;
  readonly pageSize: number;
  /** Valid ones, the newest first. */
  readonly metas: readonly Meta[];
  /** Numbers of all whole pages. */
  readonly ids: readonly number[];
  readonly #bytes: Buffer;
  readonly #view: DataView;
  /** Where a page is that does not stand in its place. */
  readonly #elsewhere = new Map<number, number>();

  private constructor(path: string, bytes: Buffer) {
    this.path = path;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const metas = [0, ...PAGE_SIZES].flatMap((at) => {
      const meta = parseMeta(bytes, at + PAGE_HEADER_BYTES);
      return meta !== undefined && (at === 0 || at === meta.pageSize) ? [meta] : [];
    });
    this.metas = metas.sort((a, b) => (a.transaction < b.transaction ? 1 : -1));
    this.pageSize = this.metas[0]?.pageSize ?? this.#likelyPageSize();
    this.ids = this.#find();
  }

  /** All of a file without a writer. */
  static async read(path: string, signal?: AbortSignal): Promise<PageScan> {
    return new PageScan(path, await readRaw(path, signal));
  }

  /** Pages that the file has room for. */
  get pages(): number {
    return Math.floor(this.#bytes.length / this.pageSize);
  }

  /** Undefined for what is not whole. */
  page(id: number): LeafPage | BranchPage | undefined {
    if (id < 2 || !Number.isSafeInteger(id)) return undefined;
    return this.#parse(id * this.pageSize, id) ?? this.#parse(this.#elsewhere.get(id) ?? -1, id);
  }

  bucket(value: Buffer): BucketValue | undefined {
    if (value.length < BUCKET_BYTES) return undefined;
    const view = new DataView(value.buffer, value.byteOffset, value.length);
    const page = readPageId(view, 0);
    const sequence = readPageId(view, 8);
    if (page !== 0) return { page, sequence, entries: undefined };
    const at = value.byteOffset - this.#bytes.byteOffset + BUCKET_BYTES;
    const end = at + value.length - BUCKET_BYTES;
    const isLeaf = end - at >= PAGE_HEADER_BYTES && this.#view.getUint16(at + 8, true) === PageFlag.leaf;
    return { page, sequence, entries: isLeaf ? this.#leaf(at, end) : undefined };
  }

  /** Each size that there is, by how many pages have their own number where they would stand. */
  #likelyPageSize(): number {
    const hits = PAGE_SIZES.map((size) => {
      let found = 0;
      for (let id = 2; (id + 1) * size <= this.#bytes.length; id++)
        if (readPageId(this.#view, id * size) === id) found++;
      return { size, found };
    });
    const [best] = hits.filter(({ found }) => found > 0).sort((a, b) => b.found - a.found || b.size - a.size);
    return best?.size ?? 4096;
  }

  #find(): number[] {
    const ids = new Set<number>();
    for (let place = 2; place < this.pages; place++) {
      const at = place * this.pageSize;
      const id = readPageId(this.#view, at);
      if (id < 2 || !Number.isSafeInteger(id)) continue;
      if (id === place ? this.#parse(at, id) === undefined : !this.#strays(at, id)) continue;
      ids.add(id);
    }
    return [...ids];
  }

  /** A page in another's place, of which there is no whole one in its own. */
  #strays(at: number, id: number): boolean {
    if (this.#parse(at, id) === undefined || this.#parse(id * this.pageSize, id) !== undefined) return false;
    this.#elsewhere.set(id, at);
    return true;
  }

  #parse(at: number, id: number): LeafPage | BranchPage | undefined {
    if (at < 0 || at + this.pageSize > this.#bytes.length || readPageId(this.#view, at) !== id)
      return undefined;
    const flags = this.#view.getUint16(at + 8, true);
    const end = at + (1 + this.#view.getUint32(at + 12, true)) * this.pageSize;
    if (end > this.#bytes.length || this.#isCovered(at, end, id)) return undefined;
    if (flags === PageFlag.leaf) {
      const entries = this.#leaf(at, end);
      return entries && { kind: 'leaf', id, entries };
    }
    if (flags !== PageFlag.branch) return undefined;
    const children = this.#branch(at, end);
    return children && { kind: 'branch', id, children };
  }

  /** Whether one of the pages that belong to a long one has become a page of its own. */
  #isCovered(at: number, end: number, id: number): boolean {
    for (let n = 1; at + n * this.pageSize < end; n++) {
      const own = at + n * this.pageSize;
      if (readPageId(this.#view, own) === id + n && KINDS.includes(this.#view.getUint16(own + 8, true)))
        return true;
    }
    return false;
  }

  #leaf(at: number, end: number): LeafEntry[] | undefined {
    const count = this.#view.getUint16(at + 10, true);
    const entries: LeafEntry[] = [];
    let data = at + PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
    let last = '';
    for (let n = 0; n < count; n++) {
      const element = at + PAGE_HEADER_BYTES + n * ELEMENT_BYTES;
      if (element + ELEMENT_BYTES > end) return undefined;
      const flags = this.#view.getUint32(element, true);
      const keyEnd = data + this.#view.getUint32(element + 8, true);
      const valueEnd = keyEnd + this.#view.getUint32(element + 12, true);
      if (flags > BUCKET_FLAG || element + this.#view.getUint32(element + 4, true) !== data || valueEnd > end)
        return undefined;
      const key = this.#bytes.toString('latin1', data, keyEnd);
      // No key is empty, the first one neither.
      if (last >= key) return undefined;
      last = key;
      entries.push({ key, isBucket: flags === BUCKET_FLAG, value: this.#bytes.subarray(keyEnd, valueEnd) });
      data = valueEnd;
    }
    return this.#isZero(data, end) && !this.#hasHole(at, data) ? entries : undefined;
  }

  /**
   * Zeros that begin and end where sectors do: they were written over what was there. Zeros of a value begin and end
   * anywhere.
   */
  #hasHole(start: number, end: number): boolean {
    for (let at = roundUp(start); at + SECTOR_BYTES <= end; at += SECTOR_BYTES) {
      if (!this.#isZero(at, at + SECTOR_BYTES)) continue;
      const isBegun = this.#bytes[at - 1] === 0;
      while (at < end && this.#bytes[at] === 0) at++;
      if (!isBegun && (at === end || at % SECTOR_BYTES === 0)) return true;
      at = roundUp(at) - SECTOR_BYTES;
    }
    return false;
  }

  #branch(at: number, end: number): { key: string; page: number }[] | undefined {
    const count = this.#view.getUint16(at + 10, true);
    const children: { key: string; page: number }[] = [];
    let data = at + PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
    let last = '';
    for (let n = 0; n < count; n++) {
      const element = at + PAGE_HEADER_BYTES + n * ELEMENT_BYTES;
      if (element + ELEMENT_BYTES > end) return undefined;
      const keyEnd = data + this.#view.getUint32(element + 4, true);
      if (element + this.#view.getUint32(element, true) !== data || keyEnd > end) return undefined;
      const key = this.#bytes.toString('latin1', data, keyEnd);
      // No key is empty, the first one neither.
      if (last >= key) return undefined;
      last = key;
      children.push({ key, page: readPageId(this.#view, element + 8) });
      data = keyEnd;
    }
    return count > 0 && this.#isZero(data, end) ? children : undefined;
  }

  #isZero(start: number, end: number): boolean {
    for (let at = start; at < end; at++) if (this.#bytes[at] !== 0) return false;
    return true;
  }
}
