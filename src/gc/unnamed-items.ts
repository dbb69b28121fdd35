/**
 * Backend items that no record may name any more, in the order they were told. There may be millions at the end of a
 * collection, so they are kept as bytes beside JavaScript's heap and made into objects again a few at a time.
 * Used by dirty.ts.
 */
import type { UnnamedContent, UnnamedSnapshot } from '../stores/host.js';

/** A backend item whose last known record went. */
export type BackendItem = UnnamedContent | UnnamedSnapshot;

const FIRST_BYTES = 4096;
/** UTF-16 takes at most so many bytes of UTF-8 a unit. */
const BYTES_A_UNIT = 3;

const LENGTH_BYTES = 4;

const Kind = { blob: 0, ingest: 1, snapshot: 2, snapshotOf: 3 } as const;

export class UnnamedItems implements Iterable<BackendItem> {
  #bytes: Buffer = Buffer.alloc(0);
  #end = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Bytes they take. */
  get size(): number {
    return this.#end;
  }

  push(item: BackendItem): void {
    this.#length++;
    if (item.kind === 'blob') this.#write(Kind.blob, item.digest);
    else if (item.kind === 'ingest') this.#write(Kind.ingest, item.ref);
    else if (item.parent === undefined) this.#write(Kind.snapshot, item.snapshotter, item.name);
    else this.#write(Kind.snapshotOf, item.snapshotter, item.name, item.parent);
  }

  *[Symbol.iterator](): Generator<BackendItem> {
    for (let at = 0; at < this.#end; ) {
      const kind = this.#bytes[at++];
      const text = (): string => {
        const size = this.#bytes.readUInt32LE(at);
        at += LENGTH_BYTES + size;
        return this.#bytes.toString('utf8', at - size, at);
      };
      if (kind === Kind.blob) yield { kind: 'blob', digest: text() };
      else if (kind === Kind.ingest) yield { kind: 'ingest', ref: text() };
      else if (kind === Kind.snapshot) yield { kind: 'snapshot', snapshotter: text(), name: text() };
      else yield { kind: 'snapshot', snapshotter: text(), name: text(), parent: text() };
    }
  }

  #write(kind: number, ...texts: string[]): void {
    let most = 1;
    for (const text of texts) most += LENGTH_BYTES + BYTES_A_UNIT * text.length;
    this.#reserve(most);
    this.#bytes[this.#end++] = kind;
    for (const text of texts) {
      const size = this.#bytes.write(text, this.#end + LENGTH_BYTES, 'utf8');
      this.#bytes.writeUInt32LE(size, this.#end);
      this.#end += LENGTH_BYTES + size;
    }
  }

  #reserve(bytes: number): void {
    if (this.#end + bytes <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, 2 * this.#bytes.length, this.#end + bytes));
    larger.set(this.#bytes.subarray(0, this.#end));
    this.#bytes = larger;
  }
}
