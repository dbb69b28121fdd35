/**
 * Backend items that no record may name any more, in the order they were added. There may be millions at the end of a
 * collection, so they are kept as bytes beside JavaScript's heap and made objects again a few at a time.
 * Used by dirty.ts.
 */
import type { RemovedContent, RemovedSnapshot } from '../../stores/host.js';

/** A backend item whose last known record went. */
export type BackendItem = RemovedContent | RemovedSnapshot;

/** Bytes of items that are kept for one backend: about two million blobs. Beyond that it is walked. */
export const ITEMS_BYTES_MAX = 150 * 1024 * 1024;

const FIRST_BYTES = 4096;
const CHUNK_BYTES = 1024 * 1024;
/** UTF-16 takes at most so many bytes of UTF-8 a unit. */
const BYTES_A_UNIT = 3;

const LENGTH_BYTES = 4;

const Kind = { blob: 0, ingest: 1, snapshot: 2, snapshotOf: 3, goneSnapshot: 4 } as const;
/** Texts of an item by its kind. */
const TEXTS: readonly number[] = [1, 1, 2, 3, 3];

/** Digits by which digests are put in order, in bits, at most. */
const ORDER_BITS = 16;
/** Items that are only looked at in one step. */
const LOOKS_PER_STEP = 4096;

/** Value of a hex digit by its code, 0 for anything else. */
const hexValues = new Uint8Array(256);
for (let i = 0; i < 16; i++) hexValues[i.toString(16).charCodeAt(0)] = i;

/** Some of the items. Neither an item nor a chunk is ever moved: making room by copying would hold the thread. */
interface Chunk {
  readonly bytes: Buffer;
  end: number;
}

export class OrphanCandidates implements Iterable<BackendItem> {
  readonly #chunks: Chunk[] = [];
  #size = 0;
  #length = 0;

  static of(items: Iterable<BackendItem>): OrphanCandidates {
    const all = new OrphanCandidates();
    for (const item of items) all.push(item);
    return all;
  }

  get length(): number {
    return this.#length;
  }

  /** Bytes they take. */
  get size(): number {
    return this.#size;
  }

  push(item: BackendItem): void {
    this.#length++;
    if (item.kind === 'blob') this.#write(Kind.blob, item.digest);
    else if (item.kind === 'ingest') this.#write(Kind.ingest, item.ref);
    else if (item.goneSince !== undefined)
      this.#write(Kind.goneSnapshot, item.snapshotter, item.name, String(item.goneSince));
    else if (item.parent === undefined) this.#write(Kind.snapshot, item.snapshotter, item.name);
    else this.#write(Kind.snapshotOf, item.snapshotter, item.name, item.parent);
  }

  *[Symbol.iterator](): Generator<BackendItem> {
    for (const chunk of this.#chunks) yield* itemsIn(chunk);
  }

  /** The refs of the ingests in order. Undefined comes between two steps of work. */
  *refs(): Generator<string | undefined> {
    let found: string[] = [];
    for (const _ of this.#look(Kind.ingest, (chunk, at) => found.push(this.#textAt(chunk, at)))) {
      yield* found;
      yield undefined;
      found = [];
    }
    yield* found;
  }

  /**
   * The digests of the blobs in lists of about `size`, in the order of their first digits from list to list and of all
   * digits within each, where none comes twice. Undefined comes between two steps of work that yield no list.
   */
  *digests(size: number): Generator<string[] | undefined> {
    const bits = Math.min(ORDER_BITS, Math.max(0, Math.ceil(Math.log2(this.#length / size))));
    const ends = new Uint32Array(1 << bits);
    const bucketOf = (chunk: number, at: number): number =>
      firstDigits(this.#chunks[chunk]!.bytes, at) >>> (ORDER_BITS - bits);
    let count = 0;
    yield* this.#look(Kind.blob, (chunk, at) => {
      ends[bucketOf(chunk, at)]!++;
      count++;
    });
    for (let bucket = 1; bucket < ends.length; bucket++) ends[bucket]! += ends[bucket - 1]!;
    // Filled from the end of each bucket, which is its beginning when all are in.
    const starts = ends.slice();
    const chunks = new Uint32Array(count);
    const places = new Uint32Array(count);
    yield* this.#look(Kind.blob, (chunk, at) => {
      const place = --starts[bucketOf(chunk, at)]!;
      chunks[place] = chunk;
      places[place] = at;
    });
    const most = 2 * size;
    for (const [bucket, end] of ends.entries()) {
      // More than that only when the digests were chosen for it: they are not sorted all at once.
      for (let from = starts[bucket]!; from < end; from += most) {
        const digests: string[] = [];
        for (let i = from; i < Math.min(end, from + most); i++) {
          digests.push(this.#textAt(chunks[i]!, places[i]!));
        }
        digests.sort();
        yield digests.filter((digest, i) => digest !== digests[i - 1]);
      }
    }
  }

  /** Calls `visit` with the place of the first text of each item of a kind; yields between two steps of work. */
  *#look(kind: number, visit: (chunk: number, at: number) => void): Generator<undefined> {
    let looks = 0;
    for (const [chunk, { bytes, end }] of this.#chunks.entries()) {
      for (let at = 0; at < end; ) {
        const found = bytes[at++]!;
        if (found === kind) visit(chunk, at);
        for (let left = TEXTS[found]!; left > 0; left--) at += LENGTH_BYTES + bytes.readUInt32LE(at);
        if (++looks % LOOKS_PER_STEP === 0) yield undefined;
      }
    }
  }

  #textAt(chunk: number, at: number): string {
    const { bytes } = this.#chunks[chunk]!;
    const start = at + LENGTH_BYTES;
    return bytes.toString('utf8', start, start + bytes.readUInt32LE(at));
  }

  #write(kind: number, ...texts: string[]): void {
    let most = 1;
    for (const text of texts) most += LENGTH_BYTES + BYTES_A_UNIT * text.length;
    const chunk = this.#chunkFor(most);
    const { bytes, end } = chunk;
    bytes[chunk.end++] = kind;
    for (const text of texts) {
      const size = bytes.write(text, chunk.end + LENGTH_BYTES, 'utf8');
      bytes.writeUInt32LE(size, chunk.end);
      chunk.end += LENGTH_BYTES + size;
    }
    this.#size += chunk.end - end;
  }

  #chunkFor(bytes: number): Chunk {
    const last = this.#chunks[this.#chunks.length - 1];
    if (last !== undefined && last.end + bytes <= last.bytes.length) return last;
    const size = Math.max(FIRST_BYTES, Math.min(CHUNK_BYTES, 2 * (last?.bytes.length ?? 0)), bytes);
    const chunk = { bytes: Buffer.allocUnsafeSlow(size), end: 0 };
    this.#chunks.push(chunk);
    return chunk;
  }
}

function* itemsIn({ bytes, end }: Chunk): Generator<BackendItem> {
  for (let at = 0; at < end; ) {
    const kind = bytes[at++];
    const text = (): string => {
      const size = bytes.readUInt32LE(at);
      at += LENGTH_BYTES + size;
      return bytes.toString('utf8', at - size, at);
    };
    if (kind === Kind.blob) yield { kind: 'blob', digest: text() };
    else if (kind === Kind.ingest) yield { kind: 'ingest', ref: text() };
    else if (kind === Kind.snapshot) yield { kind: 'snapshot', snapshotter: text(), name: text() };
    else if (kind === Kind.snapshotOf)
      yield { kind: 'snapshot', snapshotter: text(), name: text(), parent: text() };
    else yield { kind: 'snapshot', snapshotter: text(), name: text(), goneSince: Number(text()) };
  }
}

/** The first four digits after the colon of a digest's text; of something else, any number. */
function firstDigits(bytes: Buffer, at: number): number {
  const start = bytes.indexOf(COLON, at + LENGTH_BYTES) + 1;
  let digits = 0;
  for (let i = start; i < start + ORDER_BITS / 4; i++) digits = (digits << 4) | hexValues[bytes[i] ?? 0]!;
  return digits;
}
const COLON = 0x3a;
