/** A record that is in memory under its key, as `Engine.readNode` shows records. Called by the storages. */
import type { Key, StoredNode } from '../contract.js';
import { leaf } from '../schema/keys.js';
import { asBuffer } from './bytes.js';

const SHA256 = 'sha256:';
const DIGEST_LENGTH = SHA256.length + 64;
/** By character code; more than four bits for what is not a hexadecimal digit in lower case. */
const DIGITS = Uint8Array.from({ length: 128 }, (_, code) => {
  const digit = '0123456789abcdef'.indexOf(String.fromCharCode(code));
  return digit < 0 ? 0xff : digit;
});
const digitAt = (text: string, at: number): number => DIGITS[text.charCodeAt(at)] ?? 0xff;

export class NodeInMemory implements StoredNode {
  readonly key: Key;
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;

  constructor(key: Key, bytes: Uint8Array, start = 0, end = bytes.length) {
    this.key = key;
    this.bytes = asBuffer(bytes);
    this.start = start;
    this.end = end;
  }

  get leaf(): string {
    return leaf(this.key);
  }

  get parent(): string {
    return this.key.slice(0, this.key.length - this.leaf.length);
  }

  /** A loop: it is asked for each blob of a store. */
  copyDigest(target: Uint8Array, at: number): boolean {
    const name = leaf(this.key);
    if (name.length !== DIGEST_LENGTH || !name.startsWith(SHA256)) return false;
    for (let from = SHA256.length, to = at; from < DIGEST_LENGTH; from += 2, to++) {
      const [high, low] = [digitAt(name, from), digitAt(name, from + 1)];
      if ((high | low) > 0xf) return false;
      target[to] = (high << 4) | low;
    }
    return true;
  }
}
