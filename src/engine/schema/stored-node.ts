/** A record that is in memory under its key, as `Engine.readNode` shows records. Called by the storages. */
import type { Key, StoredNode } from '../contract.js';
import { asBuffer } from '../core/bytes.js';
import { leaf } from './keys.js';

const SHA256 = /^sha256:[0-9a-f]{64}$/;

export class NodeInMemory implements StoredNode {
  readonly key: Key;
  readonly bytes: Buffer;
  readonly start = 0;
  readonly end: number;

  constructor(key: Key, bytes: Uint8Array) {
    this.key = key;
    this.bytes = asBuffer(bytes);
    this.end = bytes.length;
  }

  copyDigest(target: Uint8Array, at: number): boolean {
    const name = leaf(this.key);
    if (!SHA256.test(name)) return false;
    target.set(Buffer.from(name.slice('sha256:'.length), 'hex'), at);
    return true;
  }
}
