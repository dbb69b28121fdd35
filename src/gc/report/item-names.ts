/**
 * Names of items, each once, under the numbers in which they came: as bytes, without an object for each of millions. Called by
 * items.ts. A digest takes 40 bytes, with its place in the table some 60. Names are chosen by clients, so which place one gets
 * is drawn anew in each process: nobody can choose names that meet in one.
 */
import { randomFillSync } from 'node:crypto';
import type { StoredNode } from '../../engine/contract.js';
import { Growing } from './growing.js';

/** First byte of a name: what follows. */
const Form = { digest: 0, text: 1 } as const;
const DIGEST_BYTES = 32;
const SHA256 = 'sha256:';
const DIGEST_LENGTH = SHA256.length + 2 * DIGEST_BYTES;
const DIGEST_TEXT = /^sha256:[0-9a-f]{64}$/;
const CHUNK_BYTES = 1 << 20;
const NONE = 0xffffffff;
/** Bytes of a name that have numbers of their own; then the same come again. */
const DRAWN = 64;
/** So many bytes of a digest say where it is: nobody finds digests that have these in common. */
const HASHED_OF_DIGEST = 16;

let drawn: Int32Array | undefined;

function draw(): Int32Array {
  drawn ??= randomFillSync(new Int32Array(DRAWN * 256));
  return drawn;
}

export class ItemNames {
  /** Names there are. */
  length = 0;
  readonly #drawn = draw();
  readonly #chunks: Buffer[] = [];
  #chunk = Buffer.alloc(0);
  #used = 0;
  /** By number: the chunk, where in it, and how long. */
  readonly #chunkOf = new Growing(Uint32Array);
  readonly #starts = new Growing(Uint32Array);
  readonly #sizes = new Growing(Uint32Array);
  /** By hash: the number, and the hash beside it, so that a look at a place is one at the memory. At most half are taken. */
  #places = new Uint32Array(2 * 1024).fill(NONE);
  #name = Buffer.alloc(256);

  /** The number of a name; of a new one what `length` was before. Undefined: the node's key ends in no digest. */
  addDigest(node: Pick<StoredNode, 'copyDigest'>): number | undefined {
    if (!node.copyDigest(this.#name, 1)) return undefined;
    this.#name[0] = Form.digest;
    return this.#add(1 + DIGEST_BYTES);
  }

  /** As `addDigest`, of any name. */
  add(name: string): number {
    return this.#add(this.#write(name));
  }

  /** Undefined: it was never added. */
  find(name: string): number | undefined {
    const size = this.#write(name);
    const found = this.#places[this.#placeOf(size, this.#hash(size))] ?? NONE;
    return found === NONE ? undefined : found;
  }

  at(item: number): string {
    const chunk = this.#chunks[this.#chunkOf.at(item)];
    const start = this.#starts.at(item);
    const end = start + this.#sizes.at(item);
    if (chunk === undefined) return '';
    return chunk[start] === Form.digest
      ? SHA256 + chunk.toString('hex', start + 1, end)
      : chunk.toString('utf8', start + 1, end);
  }

  #write(name: string): number {
    if (name.length === DIGEST_LENGTH && DIGEST_TEXT.test(name)) {
      this.#name[0] = Form.digest;
      return 1 + this.#name.write(name.slice(SHA256.length), 1, 'hex');
    }
    if (this.#name.length <= 3 * name.length) this.#name = Buffer.alloc(6 * name.length);
    this.#name[0] = Form.text;
    return 1 + this.#name.write(name, 1, 'utf8');
  }

  #add(size: number): number {
    const hash = this.#hash(size);
    const place = this.#placeOf(size, hash);
    const known = this.#places[place] ?? NONE;
    if (known !== NONE) return known;
    if (this.#chunk.length - this.#used < size) {
      this.#chunk = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, size));
      this.#chunks.push(this.#chunk);
      this.#used = 0;
    }
    const name = this.#name;
    const chunk = this.#chunk;
    const start = this.#used;
    for (let i = 0; i < size; i++) chunk[start + i] = name[i] ?? 0;
    this.#chunkOf.push(this.#chunks.length - 1);
    this.#starts.push(start);
    this.#sizes.push(size);
    this.#used += size;
    this.#places[place] = this.length;
    this.#places[place + 1] = hash;
    if (++this.length * 4 > this.#places.length) this.#widen();
    return this.length - 1;
  }

  /** Of the name that was written last. */
  #hash(size: number): number {
    const name = this.#name;
    const numbers = this.#drawn;
    let hash = size;
    const hashed = name[0] === Form.digest ? 1 + HASHED_OF_DIGEST : size;
    for (let i = 0; i < hashed; i++) {
      hash ^= numbers[((i % DRAWN) << 8) | (name[i] ?? 0)] ?? 0;
      if (i % DRAWN === DRAWN - 1) hash = Math.imul(hash, (numbers[0] ?? 0) | 1);
    }
    return hash >>> 0;
  }

  /** Where the name that was written last is, or belongs. */
  #placeOf(size: number, hash: number): number {
    const places = this.#places;
    const last = places.length - 1;
    for (let place = (2 * hash) & last; ; place = (place + 2) & last) {
      const item = places[place] ?? NONE;
      if (item === NONE || (places[place + 1] === hash && this.#isAt(item, size))) return place;
    }
  }

  #isAt(item: number, size: number): boolean {
    const chunk = this.#chunks[this.#chunkOf.at(item)];
    if (chunk === undefined || this.#sizes.at(item) !== size) return false;
    const start = this.#starts.at(item);
    for (let i = 0; i < size; i++) if (chunk[start + i] !== this.#name[i]) return false;
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
