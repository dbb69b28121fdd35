/**
 * The pages of a file that bbolt does not open any more, one by one: which of them are whole, and what is in them. Called to
 * bring back what can be read.
 *
 * bbolt has no checksum of a page. A page counts as whole when it is as bbolt writes it, to the byte: its own number (a page that stands in
 * another's place is found by its number), keys in order, the elements and then their bytes without a gap or a
 * sector that was set to zeros, then zeros up to its end. Bytes that changed within a value are not seen.
 *
 * REQUIRES: no process writes to the file. Memory: some tens of MiB, and what the caller keeps of the leaves that it asks for.
 */
import { inTurns, type Steps } from '../system/turns.js';
import { allocate, type Piece, pieceOf, viewOf } from './bytes.js';
import { BoltFile } from './file.js';
import {
  BUCKET_BYTES,
  BUCKET_FLAG,
  ELEMENT_BYTES,
  invalidTransaction,
  META_BYTES,
  type Meta,
  PAGE_HEADER_BYTES,
  PAGE_SIZES,
  PageFlag,
  parseMeta,
  readPageId,
} from './format.js';
import { bytesAfter } from './pages.js';

const roundUp = (at: number): number => Math.ceil(at / SECTOR_BYTES) * SECTOR_BYTES;

/** Of a file that does not say it. */
const PAGE_SIZE = 4096;
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

/** Nearly all pages are asked for in the order of keys, which is any order in the file: more would be read for nothing. */
const CHUNK_BYTES = 16 * 1024;
const CHUNKS_MAX = 2048;
/** That a page is looked for in, which costs as much where there is none: values of containerd are shorter. */
const LONG_PAGES_MAX = 512;
/** Pages are copied into one until it is full: to allocate each by itself takes longer than to read it. */
const SLAB_BYTES = 512 * 1024;

/** Bytes, and where in them what was asked for begins. */
interface Place extends Piece {
  readonly at: number;
  /** Nothing else is in these bytes. */
  readonly isOwn: boolean;
}

export class PageScan implements Disposable {
  readonly path: string;
  pageSize: number;
  /** No page from this number on counts as whole: the caller knows that it is of no commit. */
  end = Number.POSITIVE_INFINITY;
  /** Valid ones, the newest first. */
  readonly metas: readonly Meta[];
  /**
   * Whether no transaction after that of the newest meta was finished. bbolt writes the metas in turn, so a later one would have written
   * over the one before, which has to be there: valid, or with its number.
   */
  readonly hasNewest: boolean;
  /** Numbers of the whole pages that were found. */
  readonly ids: number[] = [];
  readonly #file: BoltFile;
  readonly #length: number;
  /** Parts of the file that were needed last, by their numbers, the last one at the end. */
  readonly #chunks = new Map<number, Piece>();
  #lastChunk = -1;
  #slab: Piece = pieceOf(Buffer.alloc(0));
  #slabEnd = 0;
  /** Where a page is that does not stand in its place. */
  readonly #elsewhere = new Map<number, number>();

  /** With its metas, and no page found. */
  constructor(path: string) {
    this.path = path;
    this.#file = new BoltFile(path);
    this.#length = this.#file.length();
    const metas = [0, ...PAGE_SIZES].flatMap((at) => {
      const { bytes, at: place } = this.#piece(at, at + PAGE_HEADER_BYTES + META_BYTES);
      const meta = parseMeta(bytes, place + PAGE_HEADER_BYTES);
      return meta !== undefined && (at === 0 || at === meta.pageSize) ? [meta] : [];
    });
    this.metas = metas.sort((a, b) => (a.transaction < b.transaction ? 1 : -1));
    this.pageSize = this.metas[0]?.pageSize ?? PAGE_SIZE;
    this.hasNewest = this.#hasNewest();
  }

  #hasNewest(): boolean {
    const [last, before] = this.metas;
    if (last === undefined) return false;
    const other = Number((last.transaction + 1n) % 2n) * last.pageSize;
    const { bytes, at } = this.#piece(other, other + PAGE_HEADER_BYTES + META_BYTES);
    const transaction =
      before?.transaction ?? invalidTransaction(bytes, at + PAGE_HEADER_BYTES, last.transaction + 1n);
    return transaction === last.transaction - 1n;
  }

  /** Looks at every page. */
  static async read(path: string, signal?: AbortSignal): Promise<PageScan> {
    const scan = new PageScan(path);
    try {
      await inTurns(scan.find(), signal);
      return scan;
    } catch (error) {
      scan[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }

  /** Pages that the file has room for. */
  get pages(): number {
    return Math.floor(this.#length / this.pageSize);
  }

  /** Undefined for what is not whole. */
  page(id: number): LeafPage | BranchPage | undefined {
    if (!this.#mayBe(id)) return undefined;
    return this.#parse(id * this.pageSize, id, true) ?? this.#parse(this.#elsewhere.get(id) ?? -1, id, true);
  }

  bucket(value: Buffer): BucketValue | undefined {
    if (value.length < BUCKET_BYTES) return undefined;
    const view = viewOf(value);
    const page = readPageId(view, 0);
    // Larger ones are damaged: no bucket has had so many entries.
    const last = readPageId(view, 8);
    const sequence = Number.isSafeInteger(last) ? last : 0;
    if (page !== 0) return { page, sequence, entries: undefined };
    const isLeaf =
      value.length >= BUCKET_BYTES + PAGE_HEADER_BYTES &&
      view.getUint16(BUCKET_BYTES + 8, true) === PageFlag.leaf;
    const entries = isLeaf ? leafIn({ bytes: value, view }, BUCKET_BYTES, value.length) : undefined;
    return { page, sequence, entries };
  }

  /** Each size that there is, by how many pages have their own number where they would stand. */
  *#likelyPageSize(): Steps<number> {
    let best = { size: PAGE_SIZE, found: 0 };
    for (const size of PAGE_SIZES) {
      let found = 0;
      for (let id = 2; (id + 1) * size <= this.#length; id++) {
        if (this.#idAt(id * size) === id) found++;
        yield;
      }
      if (found > 0 && found >= best.found) best = { size, found };
    }
    return best.size;
  }

  /**
   * Looks at every place of the file. From then on pages that stand in another's place are known as well.
   * @param isKnown whether the page of a place was read, so that it is not again
   * @param visit gets the other ones, whose bytes are there until the next page is read
   */
  *find(
    isKnown: (id: number) => boolean = () => false,
    visit: (page: LeafPage | BranchPage) => void = () => undefined,
  ): Steps {
    if (this.metas.length === 0) this.pageSize = yield* this.#likelyPageSize();
    for (let place = 2; place < this.pages; place++) {
      yield;
      if (isKnown(place)) {
        this.ids.push(place);
        continue;
      }
      const at = place * this.pageSize;
      const id = this.#idAt(at);
      const page = this.#mayBe(id) ? this.#parse(at, id) : undefined;
      if (page === undefined || (id !== place && !this.#strays(at, id))) continue;
      this.ids.push(id);
      visit(page);
    }
  }

  /** Whether a whole page that begins before it goes on in it. */
  isInside(id: number): boolean {
    // Damage may give any number.
    if (id >= this.pages) return false;
    for (let before = id - 1; before >= Math.max(2, id - LONG_PAGES_MAX); before--) {
      const at = before * this.pageSize;
      if (this.#idAt(at) !== before || !this.#mayBe(before)) continue;
      const { view, at: place } = this.#piece(at, at + PAGE_HEADER_BYTES);
      if (!KINDS.includes(view.getUint16(place + 8, true))) continue;
      // The first one that is a page: what is before it does not go on behind it.
      return view.getUint32(place + 12, true) >= id - before && this.#parse(at, before) !== undefined;
    }
    return false;
  }

  /** Whether pages were found that do not stand in their own places. */
  get hasMoved(): boolean {
    return this.#elsewhere.size > 0;
  }

  #mayBe(id: number): boolean {
    return id >= 2 && id < this.end && Number.isSafeInteger(id);
  }

  /** A page in another's place, of which there is no whole one in its own, nor in a place before. */
  #strays(at: number, id: number): boolean {
    if (this.#parse(id * this.pageSize, id) !== undefined) return false;
    const isFirst = !this.#elsewhere.has(id);
    this.#elsewhere.set(id, at);
    return isFirst;
  }

  #idAt(at: number): number {
    const { view, at: place } = this.#piece(at, at + 8);
    return readPageId(view, place);
  }

  /** The bytes of the file from `at` to `end`, zeros after its end. */
  #piece(at: number, end: number): Place {
    const number = Math.floor(at / CHUNK_BYTES);
    const start = number * CHUNK_BYTES;
    if (end > start + CHUNK_BYTES) {
      const bytes = allocate(this.path, end - at);
      this.#file.read(bytes, at);
      return { bytes, view: viewOf(bytes), at: 0, isOwn: true };
    }
    const { bytes, view } = this.#chunk(number);
    return { bytes, view, at: at - start, isOwn: false };
  }

  /** The same, which stays when the bytes of other pages come. */
  #copy(place: Place, length: number): Place {
    if (place.isOwn) return place;
    if (this.#slabEnd + length > this.#slab.bytes.length) {
      this.#slab = pieceOf(allocate(this.path, SLAB_BYTES));
      this.#slabEnd = 0;
    }
    const start = this.#slabEnd;
    this.#slabEnd += length;
    place.bytes.copy(this.#slab.bytes, start, place.at, place.at + length);
    return { ...this.#slab, at: start, isOwn: false };
  }

  #chunk(number: number): Piece {
    let chunk = this.#chunks.get(number);
    if (number === this.#lastChunk && chunk !== undefined) return chunk;
    if (chunk === undefined) {
      // The one that was not needed for longest makes room: no piece of it is in use.
      const [oldest] = this.#chunks.size < CHUNKS_MAX ? [] : this.#chunks.keys();
      chunk = oldest === undefined ? undefined : this.#chunks.get(oldest);
      if (oldest !== undefined) this.#chunks.delete(oldest);
      chunk ??= pieceOf(allocate(this.path, CHUNK_BYTES));
      this.#file.read(chunk.bytes, number * CHUNK_BYTES);
    } else this.#chunks.delete(number);
    this.#chunks.set(number, chunk);
    this.#lastChunk = number;
    return chunk;
  }

  /** @param isKept whether the entries stay when the bytes of other pages come */
  #parse(at: number, id: number, isKept = false): LeafPage | BranchPage | undefined {
    if (at < 0 || at + this.pageSize > this.#length) return undefined;
    const first = this.#piece(at, at + this.pageSize);
    const { view, at: start } = first;
    if (readPageId(view, start) !== id) return undefined;
    const flags = view.getUint16(start + 8, true);
    if (flags !== PageFlag.leaf && flags !== PageFlag.branch) return undefined;
    const overflow = view.getUint32(start + 12, true);
    const length = (1 + overflow) * this.pageSize;
    const pages = this.#usedAt(at, first, flags) / this.pageSize;
    // No page more than bbolt takes for that.
    if (overflow !== Math.floor(pages) && overflow !== Math.ceil(pages) - 1) return undefined;
    if (at + length > this.#length || this.#isCovered(at, at + length, id)) return undefined;
    const found = overflow === 0 ? first : this.#piece(at, at + length);
    const piece = isKept ? this.#copy(found, length) : found;
    if (flags === PageFlag.leaf) {
      const entries = leafIn(piece, piece.at, piece.at + length);
      return entries && { kind: 'leaf', id, entries };
    }
    const children = branchIn(piece, piece.at, piece.at + length);
    return children && { kind: 'branch', id, children };
  }

  /** How many bytes the elements of a page, and what they name, take. */
  #usedAt(at: number, first: Place, flags: number): number {
    const count = first.view.getUint16(first.at + 10, true);
    if (count === 0) return PAGE_HEADER_BYTES;
    const last = PAGE_HEADER_BYTES + (count - 1) * ELEMENT_BYTES;
    const isInFirst = last + ELEMENT_BYTES <= this.pageSize;
    const { view, at: place } = isInFirst ? first : this.#piece(at + last, at + last + ELEMENT_BYTES);
    return last + bytesAfter(view, isInFirst ? place + last : place, flags);
  }

  /** Whether one of the pages that belong to a long one has become a page of its own. */
  #isCovered(at: number, end: number, id: number): boolean {
    for (let n = 1; at + n * this.pageSize < end; n++) {
      const own = at + n * this.pageSize;
      if (this.#idAt(own) !== id + n) continue;
      const { view, at: place } = this.#piece(own, own + PAGE_HEADER_BYTES);
      if (KINDS.includes(view.getUint16(place + 8, true))) return true;
    }
    return false;
  }
}

function leafIn({ bytes, view }: Piece, at: number, end: number): LeafEntry[] | undefined {
  const count = view.getUint16(at + 10, true);
  const entries: LeafEntry[] = [];
  let data = at + PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
  let last = '';
  for (let n = 0; n < count; n++) {
    const element = at + PAGE_HEADER_BYTES + n * ELEMENT_BYTES;
    if (element + ELEMENT_BYTES > end) return undefined;
    const flags = view.getUint32(element, true);
    const keyEnd = data + view.getUint32(element + 8, true);
    const valueEnd = keyEnd + view.getUint32(element + 12, true);
    if (flags > BUCKET_FLAG || element + view.getUint32(element + 4, true) !== data || valueEnd > end)
      return undefined;
    const key = bytes.toString('latin1', data, keyEnd);
    // No key is empty, the first one neither.
    if (last >= key) return undefined;
    last = key;
    entries.push({ key, isBucket: flags === BUCKET_FLAG, value: bytes.subarray(keyEnd, valueEnd) });
    data = valueEnd;
  }
  return isZero(bytes, data, end) && !hasHole(bytes, at, data) ? entries : undefined;
}

/**
 * Zeros that begin and end where sectors do: they were written over what was there. Zeros of a value begin and end
 * anywhere.
 */
function hasHole(bytes: Buffer, start: number, end: number): boolean {
  for (let at = roundUp(start); at + SECTOR_BYTES <= end; at += SECTOR_BYTES) {
    if (!isZero(bytes, at, at + SECTOR_BYTES)) continue;
    const isBegun = bytes[at - 1] === 0;
    while (at < end && bytes[at] === 0) at++;
    if (!isBegun && (at === end || at % SECTOR_BYTES === 0)) return true;
    at = roundUp(at) - SECTOR_BYTES;
  }
  return false;
}

function branchIn(
  { bytes, view }: Piece,
  at: number,
  end: number,
): { key: string; page: number }[] | undefined {
  const count = view.getUint16(at + 10, true);
  const children: { key: string; page: number }[] = [];
  let data = at + PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
  let last = '';
  for (let n = 0; n < count; n++) {
    const element = at + PAGE_HEADER_BYTES + n * ELEMENT_BYTES;
    if (element + ELEMENT_BYTES > end) return undefined;
    const keyEnd = data + view.getUint32(element + 4, true);
    if (element + view.getUint32(element, true) !== data || keyEnd > end) return undefined;
    const key = bytes.toString('latin1', data, keyEnd);
    // No key is empty, the first one neither.
    if (last >= key) return undefined;
    last = key;
    children.push({ key, page: readPageId(view, element + 8) });
    data = keyEnd;
  }
  return count > 0 && isZero(bytes, data, end) ? children : undefined;
}

function isZero(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at] !== 0) return false;
  return true;
}
