/**
 * Names of items, each once, under the numbers in which they came: as bytes, without an object for each of millions. Called by
 * items.ts. A digest takes 36 bytes, with its place in the table some 60. Names are chosen by clients, so which place one gets
 * is drawn anew in each process: nobody can choose names that meet in one.
 */
import { randomFillSync } from 'node:crypto';
import type { StoredNode } from '../../engine/contract.js';
import type { SlicingBuffer } from '../../engine/schema/bytes.js';
import { Growing } from './growing.js';

const DIGEST_BYTES = 32;
const DIGEST_WORDS = DIGEST_BYTES / 4;
const SHA256 = 'sha256:';
const DIGEST_LENGTH = SHA256.length + 2 * DIGEST_BYTES;
const DIGEST_TEXT = /^sha256:[0-9a-f]{64}$/;
const CHUNK_BYTES = 1 << 20;
const NONE = 0xffffffff;
/** Bytes of a name that have numbers of their own; then the same come again. */
const DRAWN = 64;
/** So many words of a digest say where it is: nobody finds digests that have these in common. */
const HASHED_WORDS = 4;

let drawn: Int32Array | undefined;

function draw(): Int32Array {
  drawn ??= randomFillSync(new Int32Array(DRAWN * 256));
  return drawn;
}

export class ItemNames {
  /** Names there are. */
  length = 0;
  readonly #drawn = draw();
  /** By number: of a digest, which of them it is; of a text, -1 less which of them. */
  readonly #refs = new Growing(Int32Array);
  readonly #digests = new Growing(Uint32Array);
  readonly #chunks: Buffer[] = [];
  #chunk = Buffer.alloc(0);
  #used = 0;
  /** Of texts: the chunk, where in it, and how long. */
  readonly #chunkOf = new Growing(Uint32Array);
  readonly #starts = new Growing(Uint32Array);
  readonly #sizes = new Growing(Uint32Array);
  /** By hash: the number, and the hash beside it, so that a look at a place is one at the memory. At most half are taken. */
  #places = new Uint32Array(2 * 1024).fill(NONE);
  /** What is looked for: a digest, or so many bytes of a text. */
  readonly #words = new Uint32Array(DIGEST_WORDS);
  readonly #digest = Buffer.from(this.#words.buffer) as SlicingBuffer; // every Buffer has its methods
  #text = Buffer.alloc(256);
  #size = 0;

  /** The number of a name; of a new one what `length` was before. Undefined: the node's key ends in no digest. */
  addDigest(node: Pick<StoredNode, 'copyDigest'>): number | undefined {
    return node.copyDigest(this.#digest, 0) ? this.#addDigest() : undefined;
  }

  /** As `addDigest`, of any name. */
  add(name: string): number {
    return this.#write(name) ? this.#addDigest() : this.#addText();
  }

  /** Undefined: it was never added. */
  find(name: string): number | undefined {
    const place = this.#write(name)
      ? this.#placeOfDigest(this.#hashOfDigest())
      : this.#placeOfText(this.#hashOfText());
    const found = this.#places[place] ?? NONE;
    return found === NONE ? undefined : found;
  }

  at(item: number): string {
    if (item >= this.length) return '';
    const ref = this.#refs.at(item);
    if (ref < 0) {
      const start = this.#starts.at(-1 - ref);
      const end = start + this.#sizes.at(-1 - ref);
      return this.#chunks[this.#chunkOf.at(-1 - ref)]?.toString('utf8', start, end) ?? '';
    }
    for (let i = 0; i < DIGEST_WORDS; i++) this.#words[i] = this.#digests.at(ref * DIGEST_WORDS + i);
    return SHA256 + this.#digest.hexSlice(0, DIGEST_BYTES);
  }

  /** Makes it what is looked for; whether it is a digest. */
  #write(name: string): boolean {
    if (name.length === DIGEST_LENGTH && DIGEST_TEXT.test(name)) {
      this.#digest.write(name.slice(SHA256.length), 'hex');
      return true;
    }
    if (this.#text.length < 3 * name.length) this.#text = Buffer.alloc(6 * name.length);
    this.#size = this.#text.write(name, 'utf8');
    return false;
  }

  #addDigest(): number {
    const hash = this.#hashOfDigest();
    const place = this.#placeOfDigest(hash);
    const known = this.#places[place] ?? NONE;
    if (known !== NONE) return known;
    const ref = this.#digests.length / DIGEST_WORDS;
    for (let i = 0; i < DIGEST_WORDS; i++) this.#digests.push(this.#words[i] ?? 0);
    return this.#take(place, hash, ref);
  }

  #addText(): number {
    const hash = this.#hashOfText();
    const place = this.#placeOfText(hash);
    const known = this.#places[place] ?? NONE;
    if (known !== NONE) return known;
    const size = this.#size;
    if (this.#chunk.length - this.#used < size) {
      this.#chunk = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, size));
      this.#chunks.push(this.#chunk);
      this.#used = 0;
    }
    // Byte by byte: a call would cost more.
    for (let i = 0; i < size; i++) this.#chunk[this.#used + i] = this.#text[i] ?? 0;
    const ref = -1 - this.#starts.length;
    this.#chunkOf.push(Math.max(0, this.#chunks.length - 1));
    this.#starts.push(this.#used);
    this.#sizes.push(size);
    this.#used += size;
    return this.#take(place, hash, ref);
  }

  /** Gives the place to a new name. */
  #take(place: number, hash: number, ref: number): number {
    this.#refs.push(ref);
    this.#places[place] = this.length;
    this.#places[place + 1] = hash;
    if (++this.length * 4 > this.#places.length) this.#widen();
    return this.length - 1;
  }

  #hashOfDigest(): number {
    const numbers = this.#drawn;
    let hash = 0;
    for (let i = 0; i < HASHED_WORDS; i++) {
      const word = this.#words[i] ?? 0;
      const row = i << 10;
      hash ^= (numbers[row | (word & 255)] ?? 0) ^ (numbers[row | 256 | ((word >>> 8) & 255)] ?? 0);
      hash ^= (numbers[row | 512 | ((word >>> 16) & 255)] ?? 0) ^ (numbers[row | 768 | (word >>> 24)] ?? 0);
    }
    return hash >>> 0;
  }

  #hashOfText(): number {
    const text = this.#text;
    const numbers = this.#drawn;
    let hash = this.#size;
    for (let i = 0; i < this.#size; i++) {
      hash ^= numbers[((i % DRAWN) << 8) | (text[i] ?? 0)] ?? 0;
      if (i % DRAWN === DRAWN - 1) hash = Math.imul(hash, (numbers[0] ?? 0) | 1);
    }
    return hash >>> 0;
  }

  /** Where the digest is, or belongs. */
  #placeOfDigest(hash: number): number {
    const places = this.#places;
    const last = places.length - 1;
    for (let place = (2 * hash) & last; ; place = (place + 2) & last) {
      const item = places[place] ?? NONE;
      if (item === NONE || (places[place + 1] === hash && this.#isDigest(item))) return place;
    }
  }

  #placeOfText(hash: number): number {
    const places = this.#places;
    const last = places.length - 1;
    for (let place = (2 * hash) & last; ; place = (place + 2) & last) {
      const item = places[place] ?? NONE;
      if (item === NONE || (places[place + 1] === hash && this.#isText(item))) return place;
    }
  }

  #isDigest(item: number): boolean {
    const start = this.#refs.at(item) * DIGEST_WORDS;
    if (start < 0) return false;
    for (let i = 0; i < DIGEST_WORDS; i++) if (this.#digests.at(start + i) !== this.#words[i]) return false;
    return true;
  }

  #isText(item: number): boolean {
    const ref = -1 - this.#refs.at(item);
    if (ref < 0 || this.#sizes.at(ref) !== this.#size) return false;
    const chunk = this.#chunks[this.#chunkOf.at(ref)];
    const start = this.#starts.at(ref);
    for (let i = 0; i < this.#size; i++) if (chunk?.[start + i] !== this.#text[i]) return false;
    return true;
  }

  #widen(): void {
    const before = this.#places;
    const places = new Uint32Array(2 * before.length).fill(NONE);
    const last = places.length - 1;
    for (let at = 0; at < before.length; at += 2) {
      const item = before[at] ?? NONE;
      if (item === NONE) continue;
      const hash = before[at + 1] ?? 0;
      let place = (2 * hash) & last;
      while (places[place] !== NONE) place = (place + 2) & last;
      places[place] = item;
      places[place + 1] = hash;
    }
    this.#places = places;
  }
}
