/**
 * Where a reading keeps the bytes of pages: in memory, or, for a caller that goes through them once, in a file without a name.
 * Filled and read by pages.ts. What is added stays as it is.
 */
import { readSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { unavailable } from '../errors.js';
import { fsError } from '../system/system-errors.js';
import { allocate, allocateShared, type Piece, pieceOf, writeAll } from './bytes.js';

export interface Place extends Piece {
  readonly at: number;
}

export interface Heap {
  /** Returns the place of the bytes. REQUIRES: those that are longer than a segment are not changed any more. */
  add(bytes: Buffer): number;
  get(place: number, length: number): Place;
  /** To be waited for, if it is a promise, before more is added. */
  drain(): Promise<void> | undefined;
}

/** Bytes are kept in buffers of this size; what is longer gets its own. */
const SEGMENT_BYTES = 4 * 1024 * 1024;
/** What begins at a word of shared memory is copied there by words, else byte by byte. */
const WORD_BYTES = 8;

/** A place is the number of a segment, and where in it. */
export class MemoryHeap implements Heap {
  /** What the bytes are of. */
  readonly #path: string;
  readonly #segments: Piece[];
  /** The segment that is filled now, and how far. */
  #open = -1;
  #used = SEGMENT_BYTES;

  /** @param shared what another thread's has */
  constructor(path: string, shared: readonly SharedArrayBuffer[] = []) {
    this.#path = path;
    this.#segments = shared.map((memory) => pieceOf(Buffer.from(memory)));
  }

  /** For other threads, as long as nothing is added. */
  share(): SharedArrayBuffer[] {
    return this.#segments.map(({ bytes }) => bytes.buffer as SharedArrayBuffer);
  }

  add(bytes: Buffer): number {
    const { length } = bytes;
    if (this.#used + length > SEGMENT_BYTES) {
      const segment = allocateShared(this.#path, Math.max(SEGMENT_BYTES, length));
      this.#open = this.#segments.push(pieceOf(segment)) - 1;
      this.#used = 0;
    }
    const at = this.#used;
    this.#segments[this.#open]?.bytes.set(bytes, at);
    this.#used += Math.ceil(length / WORD_BYTES) * WORD_BYTES;
    return this.#open * SEGMENT_BYTES + at;
  }

  get(place: number): Place {
    const { bytes, view } = this.#segments[Math.floor(place / SEGMENT_BYTES)] ?? NOTHING;
    return { bytes, view, at: place % SEGMENT_BYTES };
  }

  drain(): undefined {}
}
const NOTHING = pieceOf(Buffer.alloc(0));

/** Bytes that wait to be written. */
const PENDING_BYTES_MAX = 8 * SEGMENT_BYTES;

interface Pending extends Piece {
  /** In the file. */
  readonly at: number;
  used: number;
}

/**
 * A place is where the bytes are in the file. Another thread writes it, because a reading has no time to lose; memory: what waits for that.
 */
export class FileHeap implements Heap, AsyncDisposable {
  readonly #path: string;
  readonly #file: FileHandle;
  /** What is not in the file yet, in its order; the last one may have room. */
  #pending: Pending[] = [];
  #pendingBytes = 0;
  #length = 0;
  #writing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  /** @param path a name that its file has until it is open */
  static async create(path: string): Promise<FileHeap> {
    try {
      const file = await open(path, 'wx+', 0o600);
      await rm(path);
      return new FileHeap(path, file);
    } catch (error) {
      throw fsError('write', path, error);
    }
  }

  /** Nothing that was added is asked for any more. */
  async clear(): Promise<void> {
    await this.#writing;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#length = 0;
  }

  add(bytes: Buffer): number {
    const at = this.#length;
    const { length } = bytes;
    if (length > SEGMENT_BYTES) this.#pending.push({ ...pieceOf(bytes), at, used: length });
    else {
      let last = this.#pending.at(-1);
      if (last === undefined || last.used + length > last.bytes.length) {
        last = { ...pieceOf(allocate(this.#path, SEGMENT_BYTES)), at, used: 0 };
        this.#pending.push(last);
      }
      last.bytes.set(bytes, last.used);
      last.used += length;
    }
    this.#length += length;
    this.#pendingBytes += length;
    if (this.#pending.length > 1) this.#writing ??= this.#write();
    return at;
  }

  get(place: number, length: number): Place {
    const pending = this.#pending.find(({ at, used }) => at <= place && place < at + used);
    if (pending !== undefined) {
      const { bytes, view, at } = pending;
      return { bytes, view, at: place - at };
    }
    const bytes = allocate(this.#path, length);
    for (let done = 0; done < length; ) {
      const more = readSync(this.#file.fd, bytes, done, length - done, place + done);
      if (more === 0) throw unavailable(`${this.#path} is shorter than what was written to it`);
      done += more;
    }
    return { ...pieceOf(bytes), at: 0 };
  }

  drain(): Promise<void> | undefined {
    if (this.#failure !== undefined) throw fsError('write', this.#path, this.#failure.error);
    return this.#pendingBytes > PENDING_BYTES_MAX ? this.#writing : undefined;
  }

  async #write(): Promise<void> {
    try {
      for (;;) {
        const [first, next] = this.#pending;
        if (first === undefined || next === undefined) return;
        await writeAll(this.#file, first.bytes.subarray(0, first.used), first.at);
        this.#pending.shift();
        this.#pendingBytes -= first.used;
      }
    } catch (error) {
      this.#failure = { error };
    } finally {
      this.#writing = undefined;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing;
    await this.#file.close();
  }
}
