/** A record that is in memory under its key, as `Engine.readNode` shows records. Called by the storages. */
import type { Key, StoredNode } from '../contract.js';
import { leaf } from '../schema/keys.js';
import { copyDigestOf } from '../schema/name-table.js';
import { asBuffer } from './bytes.js';

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

  copyDigest(target: Uint8Array, at: number): boolean {
    return copyDigestOf(this.key, this.key.length - this.leaf.length, target, at);
  }
}
