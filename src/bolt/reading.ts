/**
 * Reads the tree of one transaction while another process commits. Called by snapshot.ts.
 *
 * Pages are read level by level from the root, each level in the order of the file. Between any two reads the meta pages are looked at.
 * bbolt writes no page that the newest transaction can reach. So
 *
 *   - what was read while V was the newest is of V, as far as V's tree leads to it;
 *   - the transaction after V wrote none of V's pages: of its tree, a page that was read as one of V's is unchanged, with
 *     everything below it. Only the others on the way down are read then, some for each commit; what nothing leads to any more is forgotten.
 *
 * Several reads may be under way. What one of them has is of the newest transaction if the page was wanted all the time: then each
 * transaction in between had it, and wrote it not.
 *
 * So a reading follows commits, and ends with the whole tree of the transaction that is the newest then. It has to see each:
 * of two that came between two looks, the second may have written pages that the first one freed. Then it is `Overtaken`, and
 * all that was read is of no use.
 *
 * Nothing is trusted: what is not as it must be is not followed, and a walk of the pages says so. Each page is read once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { present } from '../errors.js';
import { allocate, type Piece, pieceOf, viewOf } from './bytes.js';
import type { BoltSource } from './file.js';
import {
  BUCKET_BYTES,
  BUCKET_FLAG,
  ELEMENT_BYTES,
  type Meta,
  PAGE_HEADER_BYTES,
  PageFlag,
  readPageId,
} from './format.js';
import { type Heap, MemoryHeap } from './heap.js';
import { Pages } from './pages.js';

/** At most so much between two looks: a tenth of a millisecond. */
const CHUNK_BYTES = 512 * 1024;
/** Reading what is between two pages takes no longer than beginning another read. */
const GAP_BYTES = 16 * 1024;
/** A commit changes ten or twenty pages. */
const FOLLOWED_MAX = 256;
/** Of the pages below one that changed: more are those that were not read yet. */
const FOLLOWED_CHILDREN_MAX = 8;

/** While it is waited for room. */
const LOOK_MS = 1;

/** Two commits came between two looks. */
export class Overtaken extends Error {}

/** Pages that lie close to one another. */
interface Run {
  readonly chunk: Piece;
  readonly ids: readonly number[];
  /** The first page, and the one after the last. */
  readonly start: number;
  readonly end: number;
  /** Commits that were followed when the read began. */
  readonly since: number;
  readonly read: Promise<unknown> | undefined;
}

export interface ReadingOptions {
  readonly valueBytesMax?: number | undefined;
  /** REQUIRES: nothing is on it. Default: memory. */
  readonly heap?: Heap | undefined;
  /** Reads at once, by other threads. One: by this one, with the least time between two looks. */
  readonly lanes?: number;
  /** Read at once. */
  readonly chunkBytes?: number;
  /** Pages that are read at once when a commit was seen: the rest is read in its turn. */
  readonly followedMax?: number;
}

export class Reading {
  readonly pages: Pages;
  readonly #source: BoltSource;
  readonly #heap: Heap;
  readonly #chunks: Piece[];
  readonly #isAlone: boolean;
  readonly #followedMax: number;
  #meta: Meta;
  /** The pages of the next level. */
  #wanted: number[] = [];
  #commits = 0;
  #isFollowing = false;
  /** Of pages that a commit made wanted: which. A read that began before is not of them. */
  readonly #wantedBy = new Map<number, number>();

  constructor(
    source: BoltSource,
    {
      valueBytesMax,
      heap = new MemoryHeap(source.path),
      lanes = 1,
      chunkBytes = CHUNK_BYTES,
      followedMax = FOLLOWED_MAX,
    }: ReadingOptions = {},
  ) {
    this.#source = source;
    this.#meta = source.newest();
    this.#heap = heap;
    this.pages = new Pages(source.path, this.#meta.pageSize, valueBytesMax, heap);
    this.#isAlone = lanes === 1;
    this.#followedMax = followedMax;
    this.#chunks = Array.from({ length: lanes }, () =>
      pieceOf(allocate(source.path, Math.max(chunkBytes, this.#meta.pageSize))),
    );
  }

  /** The transaction that the pages are of. */
  get meta(): Meta {
    return this.#meta;
  }

  /** Commits that were followed. */
  get commits(): number {
    return this.#commits;
  }

  /** A step after every read. Throws `Overtaken`. */
  async *steps(): AsyncGenerator<void> {
    this.#limit();
    this.#want(this.#meta.root);
    while (this.#wanted.length > 0) {
      const ids = Float64Array.from(this.#wanted).sort();
      this.#wanted = [];
      yield* this.#sweep(ids);
    }
  }

  async *#sweep(ids: Float64Array): AsyncGenerator<void> {
    const runs: Run[] = [];
    try {
      for (let from = 0; ; ) {
        while (this.#chunks.length > 0 && from < ids.length) from = this.#begin(ids, from, runs);
        const run = runs[0];
        if (run === undefined) return;
        if (run.read !== undefined) await run.read;
        runs.shift();
        this.#end(run);
        this.#chunks.push(run.chunk);
        for (let wait = this.#heap.drain(); wait !== undefined; wait = this.#heap.drain()) {
          await Promise.race([wait, sleep(LOOK_MS)]);
          this.#look();
        }
        yield;
      }
    } finally {
      // Not after the file is closed.
      await Promise.allSettled(runs.map(({ read }) => read));
    }
  }

  #limit(): void {
    const { highWater, pageSize } = this.#meta;
    this.pages.limit = Math.min(highWater, Math.floor(this.#source.length() / pageSize));
  }

  #want(id: number): void {
    if (!this.pages.want(id)) return;
    this.#wanted.push(id);
    if (this.#isFollowing) this.#wantedBy.set(id, this.#commits);
  }

  /** Begins to read as many pages as lie close to one another. Returns the first one that was not looked at. */
  #begin(ids: Float64Array, from: number, runs: Run[]): number {
    const { pages } = this;
    const { pageSize } = pages;
    const chunk = present(this.#chunks.pop(), 'a chunk');
    const start = ids[from] ?? 0;
    const read: number[] = [];
    let to = from;
    let end = start;
    for (let id = start; to < ids.length; id = ids[++to] ?? 0) {
      if ((id + 1 - start) * pageSize > chunk.bytes.length || (id - end) * pageSize > GAP_BYTES) break;
      // Not any more, after a commit that freed it.
      if (!pages.isWanted(id)) continue;
      read.push(id);
      end = id + 1;
    }
    if (read.length === 0) {
      this.#chunks.push(chunk);
      return to;
    }
    const bytes = chunk.bytes.subarray(0, (end - start) * pageSize);
    const reading = this.#isAlone
      ? void this.#source.read(bytes, start * pageSize)
      : this.#source.readBeside(bytes, start * pageSize);
    // The error is that of the one that is waited for.
    reading?.catch(() => undefined);
    runs.push({ chunk, ids: read, start, end, since: this.#commits, read: reading });
    return to;
  }

  #end({ chunk, ids, start, end, since }: Run): void {
    this.#look();
    const { pages } = this;
    // Not what a commit made wanted meanwhile: it may have been written since.
    for (const id of ids)
      if (pages.isWanted(id) && (this.#wantedBy.get(id) ?? 0) <= since)
        this.#take(id, chunk, (id - start) * pages.pageSize, end - id);
  }

  /** @param room pages that the chunk has from this one on */
  #take(id: number, { bytes, view }: Piece, at: number, room: number): void {
    const { pages } = this;
    if (readPageId(view, at) !== id) {
      pages.refuse(id, 'it has the number of another page');
      return;
    }
    const overflow = view.getUint32(at + 12, true);
    if (id + overflow >= pages.limit) pages.refuse(id, `it goes on for ${overflow} pages`);
    else if (overflow < room) this.#keep(id, bytes, view, at);
    else this.#takeLong(id, (1 + overflow) * pages.pageSize);
  }

  /** A page that goes on for longer than the chunk. */
  #takeLong(id: number, length: number): void {
    const { pages } = this;
    const bytes = allocate(pages.path, length);
    for (let at = 0; at < length; at += CHUNK_BYTES) {
      this.#source.read(bytes.subarray(at, at + CHUNK_BYTES), id * pages.pageSize + at);
      this.#look();
      if (!pages.isWanted(id)) return;
    }
    this.#keep(id, bytes, viewOf(bytes), 0);
  }

  #keep(id: number, bytes: Buffer, view: DataView, at: number): void {
    this.pages.keep(id, bytes, view, at);
    if (!this.pages.has(id)) return;
    const end = at + (1 + view.getUint32(at + 12, true)) * this.pages.pageSize;
    eachChild(view, at, end, (child) => this.#want(child));
  }

  /** What was read before is of the newest transaction, or of the one before it, whose pages that one left as they are. */
  #look(): void {
    const newest = this.#source.newest();
    if (!isSame(newest, this.#meta)) this.#follow(newest);
  }

  #follow(meta: Meta): void {
    const { pages } = this;
    if (meta.transaction !== this.#meta.transaction + 1n || meta.pageSize !== pages.pageSize)
      throw new Overtaken();
    const { read, unchanged, left } = this.#changedPages(meta);
    if (!isSame(this.#source.newest(), meta)) throw new Overtaken();
    // What is still to be read stays wanted, so that what a read under way has of it counts.
    this.#forgetBelow(this.#meta.root, new Set([...unchanged, ...left]));
    this.#meta = meta;
    this.#commits++;
    this.#limit();
    this.#isFollowing = true;
    for (const id of left) this.#want(id);
    for (const [id, bytes] of read) {
      pages.want(id);
      if (pages.isWanted(id)) this.#keep(id, bytes, viewOf(bytes), 0);
    }
    this.#isFollowing = false;
  }

  /** The pages on the way from the root of the next transaction down to those that are as before. */
  #changedPages({ root, highWater }: Meta): {
    read: Map<number, Buffer>;
    unchanged: Set<number>;
    left: number[];
  } {
    const { pages } = this;
    const read = new Map<number, Buffer>();
    const unchanged = new Set<number>();
    const left: number[] = [];
    const rest = [root];
    for (let id = rest.pop(); id !== undefined; id = rest.pop()) {
      if (read.has(id)) continue;
      if (pages.has(id)) {
        unchanged.add(id);
        continue;
      }
      const bytes = read.size < this.#followedMax && id < highWater ? this.#singlePage(id) : undefined;
      if (bytes === undefined) {
        left.push(id);
        continue;
      }
      read.set(id, bytes);
      const others: number[] = [];
      eachChild(viewOf(bytes), 0, bytes.length, (child) => {
        if (pages.has(child)) unchanged.add(child);
        else others.push(child);
      });
      (others.length <= FOLLOWED_CHILDREN_MAX ? rest : left).push(...others);
    }
    return { read, unchanged, left };
  }

  /** Undefined for what is not a page, or goes on in others. */
  #singlePage(id: number): Buffer | undefined {
    const { pageSize } = this.pages;
    const bytes = Buffer.allocUnsafe(pageSize);
    this.#source.read(bytes, id * pageSize);
    const view = viewOf(bytes);
    return readPageId(view, 0) === id && view.getUint32(12, true) === 0 ? bytes : undefined;
  }

  /** What only the last transaction led to. */
  #forgetBelow(root: number, kept: ReadonlySet<number>): void {
    const { pages } = this;
    const rest = [root];
    for (let id = rest.pop(); id !== undefined; id = rest.pop()) {
      if (kept.has(id)) continue;
      if (pages.has(id)) {
        const { view, at, end } = pages.area(id);
        eachChild(view, at, end, (child) => rest.push(child));
      }
      pages.forget(id);
    }
  }
}

const isSame = (a: Meta, b: Meta): boolean =>
  a.transaction === b.transaction &&
  a.root === b.root &&
  a.highWater === b.highWater &&
  a.pageSize === b.pageSize;

/** The pages that a page leads to: its children, or the roots of the buckets in it. An inline bucket has no buckets. */
function eachChild(view: DataView, at: number, end: number, visit: (page: number) => void): void {
  const flags = view.getUint16(at + 8, true);
  const first = at + PAGE_HEADER_BYTES;
  const last = Math.min(first + view.getUint16(at + 10, true) * ELEMENT_BYTES, end - ELEMENT_BYTES + 1);
  if (flags === PageFlag.branch)
    for (let element = first; element < last; element += ELEMENT_BYTES) visit(readPageId(view, element + 8));
  else if (flags === PageFlag.leaf)
    for (let element = first; element < last; element += ELEMENT_BYTES) {
      if ((view.getUint32(element, true) & BUCKET_FLAG) === 0) continue;
      const value = element + view.getUint32(element + 4, true) + view.getUint32(element + 8, true);
      if (value + BUCKET_BYTES > end) continue;
      const root = readPageId(view, value);
      if (root !== 0) visit(root);
    }
}
