/**
 * Numbers and bytes one after the other: a writer that grows and a reader that checks its bounds. Below the codecs of
 * records, nodes, batches and the journal. A varint is an unsigned number up to 2^53 - 1, seven bits a byte, the lowest first;
 * all else is little-endian.
 */

/** The bytes end early, or are not what was written. The codec says of what. */
export class DamagedBytes extends Error {}

const VARINT_32_BYTES_MAX = 5;

export class ByteWriter {
  protected buffer: Buffer;
  /** Of the same bytes: compiled to a store, as Buffer's own methods for large numbers are not. */
  #view: DataView;
  /** Bytes written. */
  length = 0;

  constructor(capacity = 4096) {
    // Not of the pool: it is kept.
    this.buffer = Buffer.allocUnsafeSlow(capacity);
    this.#view = new DataView(this.buffer.buffer);
  }

  get capacity(): number {
    return this.buffer.length;
  }

  clear(): void {
    this.length = 0;
  }

  /** A copy of what was written. */
  take(): Uint8Array {
    const copy = Buffer.allocUnsafe(this.length);
    this.copyTo(copy, 0);
    return copy;
  }

  copyTo(target: Buffer, offset: number): void {
    this.buffer.copy(target, offset, 0, this.length);
  }

  byte(value: number): void {
    this.reserve(1);
    this.buffer[this.length++] = value;
  }

  varint(value: number): void {
    this.reserve(8);
    let rest = value;
    while (rest > 0x7f) {
      this.buffer[this.length++] = (rest & 0x7f) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.buffer[this.length++] = rest;
  }

  varints(values: Uint32Array): void {
    this.reserve(values.length * VARINT_32_BYTES_MAX);
    const { buffer } = this;
    let at = this.length;
    for (let rest of values) {
      for (; rest > 0x7f; rest >>>= 7) buffer[at++] = (rest & 0x7f) | 0x80;
      buffer[at++] = rest;
    }
    this.length = at;
  }

  double(value: number): void {
    this.reserve(8);
    this.length = this.buffer.writeDoubleLE(value, this.length);
  }

  i64(value: bigint): void {
    this.reserve(8);
    this.#view.setBigInt64(this.length, value, true);
    this.length += 8;
  }

  bytes(value: Uint8Array): void {
    this.reserve(value.length);
    this.buffer.set(value, this.length);
    this.length += value.length;
  }

  protected reserve(size: number): void {
    if (this.length + size <= this.buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.buffer.length * 2, this.length + size));
    this.copyTo(larger, 0);
    this.buffer = larger;
    this.#view = new DataView(larger.buffer);
  }
}

const STORE_CHUNK_BYTES = 1024 * 1024;
const LENGTH_BYTES = 4;
const NO_BYTES = Buffer.alloc(LENGTH_BYTES);

/** Many short byte strings that stay, without an object for each. */
export class ByteStore {
  readonly #chunks: Buffer[] = [];
  #last = NO_BYTES;
  /** Of the first byte of the last one. */
  #lastPlace = 0;
  #used = STORE_CHUNK_BYTES;

  get chunks(): readonly Buffer[] {
    return this.#chunks;
  }

  /** Copies what was written; returns its place. */
  add(writer: ByteWriter): number {
    const size = LENGTH_BYTES + writer.length;
    if (this.#used + size > STORE_CHUNK_BYTES) {
      this.#last = Buffer.allocUnsafeSlow(Math.max(STORE_CHUNK_BYTES, size));
      this.#lastPlace = this.append([this.#last]);
      this.#used = 0;
    }
    const at = this.#used;
    this.#last.writeUInt32LE(writer.length, at);
    writer.copyTo(this.#last, at + LENGTH_BYTES);
    this.#used += size;
    return this.#lastPlace + at;
  }

  /** Takes the chunks of another store; returns by how much places there are less than here. */
  append(chunks: readonly Uint8Array[]): number {
    const first = this.#chunks.length;
    for (const { buffer, byteOffset, length } of chunks)
      this.#chunks.push(Buffer.from(buffer, byteOffset, length));
    return first * STORE_CHUNK_BYTES;
  }

  /** What was added at a place; never written to. */
  at(place: number): Buffer {
    const { chunk, start, end } = this.slice(place);
    return chunk.subarray(start, end);
  }

  /** Where that is. */
  slice(place: number): { readonly chunk: Buffer; readonly start: number; readonly end: number } {
    const chunk = this.#chunks[Math.floor(place / STORE_CHUNK_BYTES)] ?? NO_BYTES;
    const at = place % STORE_CHUNK_BYTES;
    const start = at + LENGTH_BYTES;
    return { chunk, start, end: start + chunk.readUInt32LE(at) };
  }
}

/** Buffer's own slicing methods: undocumented, but what its toString calls, and twice as fast for short texts. */
export interface SlicingBuffer extends Buffer {
  utf8Slice(start: number, end: number): string;
  hexSlice(start: number, end: number): string;
}

/** Reads past the end are DamagedBytes. */
export class ByteReader {
  protected buffer = Buffer.alloc(0) as unknown as SlicingBuffer; // every Buffer has the two methods
  /** Of the same bytes, once it was needed: see ByteWriter. Most readers stay with one buffer. */
  #view: DataView | undefined;
  /** Where it reads; may be set to what it was. */
  position = 0;
  protected end = 0;

  /** Reads `buffer` from `start` to `end` from now on. */
  over(buffer: Buffer, start: number, end: number): void {
    if (buffer !== this.buffer) this.#view = undefined;
    this.buffer = buffer as SlicingBuffer;
    this.position = start;
    this.end = end;
  }

  /** Bytes that have not been read. */
  get left(): number {
    return this.end - this.position;
  }

  get atEnd(): boolean {
    return this.position >= this.end;
  }

  byte(): number {
    const at = this.position;
    if (at >= this.end) throw new DamagedBytes('it ends early');
    this.position = at + 1;
    return this.buffer[at] ?? 0;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (let count = 0; count < 8; count++) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
    throw new DamagedBytes('a number has no end');
  }

  double(): number {
    return this.buffer.readDoubleLE(this.skip(8));
  }

  i64(): bigint {
    const at = this.skip(8);
    this.#view ??= new DataView(this.buffer.buffer, this.buffer.byteOffset);
    return this.#view.getBigInt64(at, true);
  }

  /** A copy. */
  bytes(size: number): Uint8Array {
    return new Uint8Array(this.slice(size));
  }

  /** A part of the buffer. */
  slice(size: number): Buffer {
    const start = this.skip(size);
    return this.buffer.subarray(start, start + size);
  }

  /** Passes over bytes; returns where they begin. */
  skip(size: number): number {
    const start = this.position;
    if (start + size > this.end) throw new DamagedBytes('it ends early');
    this.position = start + size;
    return start;
  }
}
