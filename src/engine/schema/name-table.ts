/**
 * Names, each once, under the numbers in which they came: as bytes, without an object for each of millions. A digest takes 40 bytes,
 * with its place in the table some 65. Names are chosen by clients, so which place one gets is drawn anew in each process: nobody can
 * choose names that meet in one. Called by memory/key-table.ts, and by what reads whole stores for reports.
 */
import { randomFillSync } from 'node:crypto';
import type { StoredNode } from '../contract.js';
import type { SlicingBuffer } from './bytes.js';

const DIGEST_BYTES = 32;
const DIGEST_WORDS = DIGEST_BYTES / 4;
const SHA256 = 'sha256:';
const DIGEST_LENGTH = SHA256.length + 2 * DIGEST_BYTES;
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

/** By character code; more than four bits for what is not a hexadecimal digit in lower case. */
const DIGITS = Uint8Array.from({ length: 128 }, (_, code) => {
  const digit = '0123456789abcdef'.indexOf(String.fromCharCode(code));
  return digit < 0 ? 0xff : digit;
});
const digitAt = (text: string, at: number): number => DIGITS[text.charCodeAt(at)] ?? 0xff;

/** Copies the 32 bytes of the `sha256:` digest that a text is from `start` on; false when that is none. A loop: it is asked for each blob of a store. */
export function copyDigestOf(text: string, start: number, target: Uint8Array, at: number): boolean {
  if (text.length - start !== DIGEST_LENGTH || !text.startsWith(SHA256, start)) return false;
  for (let from = start + SHA256.length, to = at; from < text.length; from += 2, to++) {
    const [high, low] = [digitAt(text, from), digitAt(text, from + 1)];
    if ((high | low) > 0xf) return false;
    target[to] = (high << 4) | low;
  }
  return true;
}

/** Words of a name, side by side: its group, how long a text is (`DIGEST` for a digest), and the digest, or where a text is. */
const WORDS = 2 + DIGEST_WORDS;
const SIZE = 1;
const WHAT = 2;
const DIGEST = NONE;

/** What a table has, for another thread. */
export interface NameColumns {
  readonly items: Uint32Array;
  readonly chunks: readonly Uint8Array[];
}

export class NameTable {
  /** Names there are. */
  length = 0;
  readonly #drawn = draw();
  #items = new Uint32Array(1024 * WORDS);
  /** Texts: the chunk, and where in it. */
  readonly #chunks: Buffer[] = [];
  #chunk = Buffer.alloc(0);
  #used = 0;
  /** By hash: the number, and the hash beside it, so that a look at a place is one at the memory. At most half are taken. */
  #places = new Uint32Array(2 * 1024).fill(NONE);
  /** What is looked for: its group, and a digest, or so many bytes of a text. */
  #group = 0;
  readonly #words = new Uint32Array(DIGEST_WORDS);
  readonly #digest = Buffer.from(this.#words.buffer) as SlicingBuffer; // every Buffer has its methods
  #text = Buffer.alloc(256);
  #size = 0;

  /** The number of a name; of a new one what `length` was before. Undefined: the node's key ends in no digest. */
  addDigest(node: Pick<StoredNode, 'copyDigest'>): number | undefined {
    this.#group = 0;
    return node.copyDigest(this.#digest, 0) ? this.#addDigest() : undefined;
  }

  /** As `addDigest`, of any name. The same name in another group is another one. @param start of the name in the text */
  add(text: string, group = 0, start = 0): number {
    this.#group = group;
    return this.#write(text, start) ? this.#addDigest() : this.#addText();
  }

  /** Undefined: it was never added. */
  find(text: string, group = 0, start = 0): number | undefined {
    this.#group = group;
    const place = this.#write(text, start)
      ? this.#placeOfDigest(this.#hashOfDigest())
      : this.#placeOfText(this.#hashOfText());
    const found = this.#places[place] ?? NONE;
    return found === NONE ? undefined : found;
  }

  /** Adds all of another table in their order; returns their numbers here. @param groupOf the groups here by those there */
  addAll({ items, chunks }: NameColumns, groupOf: ArrayLike<number>): Uint32Array {
    const numbers = new Uint32Array(items.length / WORDS);
    for (let item = 0, at = 0; item < numbers.length; item++, at += WORDS) {
      this.#group = groupOf[items[at] ?? 0] ?? 0;
      this.#size = items[at + SIZE] ?? 0;
      if (this.#size === DIGEST) {
        for (let i = 0; i < DIGEST_WORDS; i++) this.#words[i] = items[at + WHAT + i] ?? 0;
        numbers[item] = this.#addDigest();
        continue;
      }
      const chunk = chunks[items[at + WHAT] ?? 0];
      const start = items[at + WHAT + 1] ?? 0;
      this.#makeRoom(this.#size);
      for (let i = 0; i < this.#size; i++) this.#text[i] = chunk?.[start + i] ?? 0;
      numbers[item] = this.#addText();
    }
    return numbers;
  }

  /** Views, good until the next one is added. */
  columns(): NameColumns {
    return { items: this.#items.subarray(0, this.length * WORDS), chunks: this.#chunks };
  }

  groupOf(item: number): number {
    return this.#items[item * WORDS] ?? 0;
  }

  at(item: number): string {
    if (item >= this.length) return '';
    const at = item * WORDS;
    const size = this.#items[at + SIZE] ?? 0;
    if (size !== DIGEST) {
      const start = this.#items[at + WHAT + 1] ?? 0;
      return this.#chunks[this.#items[at + WHAT] ?? 0]?.toString('utf8', start, start + size) ?? '';
    }
    this.#read(at);
    return SHA256 + this.#digest.hexSlice(0, DIGEST_BYTES);
  }

  /** As `StoredNode.copyDigest`. */
  copyDigest(item: number, target: Uint8Array, at: number): boolean {
    if (this.#items[item * WORDS + SIZE] !== DIGEST) return false;
    this.#read(item * WORDS);
    for (let i = 0; i < DIGEST_BYTES; i++) target[at + i] = this.#digest[i] ?? 0;
    return true;
  }

  #read(at: number): void {
    for (let i = 0; i < DIGEST_WORDS; i++) this.#words[i] = this.#items[at + WHAT + i] ?? 0;
  }

  /** Makes it what is looked for; whether it is a digest. */
  #write(text: string, start: number): boolean {
    if (copyDigestOf(text, start, this.#digest, 0)) return true;
    const length = text.length - start;
    this.#makeRoom(3 * length);
    for (let i = 0; i < length; i++) {
      const unit = text.charCodeAt(start + i);
      if (unit > 0x7f) {
        this.#size = this.#text.write(text.slice(start), 'utf8');
        return false;
      }
      this.#text[i] = unit;
    }
    this.#size = length;
    return false;
  }

  #makeRoom(size: number): void {
    if (this.#text.length < size) this.#text = Buffer.alloc(2 * size);
  }

  #addDigest(): number {
    const hash = this.#hashOfDigest();
    const place = this.#placeOfDigest(hash);
    const known = this.#places[place] ?? NONE;
    if (known !== NONE) return known;
    const at = this.#take(place, hash, DIGEST);
    for (let i = 0; i < DIGEST_WORDS; i++) this.#items[at + WHAT + i] = this.#words[i] ?? 0;
    return this.length - 1;
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
    const at = this.#take(place, hash, size);
    this.#items[at + WHAT] = Math.max(0, this.#chunks.length - 1);
    this.#items[at + WHAT + 1] = this.#used;
    this.#used += size;
    return this.length - 1;
  }

  /** Gives the place to a new name; returns where its words are. */
  #take(place: number, hash: number, size: number): number {
    const at = this.length * WORDS;
    if (at === this.#items.length) {
      const items = new Uint32Array(2 * at);
      items.set(this.#items);
      this.#items = items;
    }
    this.#items[at] = this.#group;
    this.#items[at + SIZE] = size;
    this.#places[place] = this.length;
    this.#places[place + 1] = hash;
    if (++this.length * 4 > this.#places.length) this.#widen();
    return at;
  }

  #hashOfDigest(): number {
    const numbers = this.#drawn;
    let hash = this.#hashOfGroup();
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
    let hash = this.#size ^ this.#hashOfGroup();
    for (let i = 0; i < this.#size; i++) {
      hash ^= numbers[((i % DRAWN) << 8) | (text[i] ?? 0)] ?? 0;
      if (i % DRAWN === DRAWN - 1) hash = Math.imul(hash, (numbers[0] ?? 0) | 1);
    }
    return hash >>> 0;
  }

  #hashOfGroup(): number {
    return Math.imul(this.#group, (this.#drawn[1] ?? 0) | 1);
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
    const at = item * WORDS;
    const items = this.#items;
    if (items[at] !== this.#group || items[at + SIZE] !== DIGEST) return false;
    for (let i = 0; i < DIGEST_WORDS; i++) if (items[at + WHAT + i] !== this.#words[i]) return false;
    return true;
  }

  #isText(item: number): boolean {
    const at = item * WORDS;
    const items = this.#items;
    if (items[at] !== this.#group || items[at + SIZE] !== this.#size) return false;
    const chunk = this.#chunks[items[at + WHAT] ?? 0];
    const start = items[at + WHAT + 1] ?? 0;
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
