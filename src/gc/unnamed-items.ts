/**
 * Backend items that no record may name any more, in the order they were told. There may be millions at the end of a
 * collection, so they are kept as bytes beside JavaScript's heap and made into objects again a few at a time.
 * Used by dirty.ts.
 */
import type { UnnamedContent, UnnamedSnapshot } from '../stores/host.js';

/** A backend item whose last known record went. */
export type BackendItem = UnnamedContent | UnnamedSnapshot;

const FIRST_BYTES = 4096;
const CHUNK_BYTES = 1024 * 1024;
/** UTF-16 takes at most so many bytes of UTF-8 a unit. */
const BYTES_A_UNIT = 3;

const LENGTH_BYTES = 4;

const Kind = { blob: 0, ingest: 1, snapshot: 2, snapshotOf: 3 } as const;

/** Some of the items. Neither an item nor a chunk is ever moved: making room by copying would hold the thread. */
interface Chunk {
  readonly bytes: Buffer;
  end: number;
}

export class UnnamedItems implements Iterable<BackendItem> {
  readonly #chunks: Chunk[] = [];
  #size = 0;
  #length = 0;

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
    else if (item.parent === undefined) this.#write(Kind.snapshot, item.snapshotter, item.name);
    else this.#write(Kind.snapshotOf, item.snapshotter, item.name, item.parent);
  }

  *[Symbol.iterator](): Generator<BackendItem> {
    for (const chunk of this.#chunks) yield* itemsIn(chunk);
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
    else yield { kind: 'snapshot', snapshotter: text(), name: text(), parent: text() };
  }
}
