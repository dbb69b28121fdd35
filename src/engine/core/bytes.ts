/** Buffers of other kinds and sizes than they say. Called by the core and the storages; pure. */
// Not the global one, which is looked up at each use.

import { Buffer } from 'node:buffer';

/** The same bytes, with Buffer's methods. */
export function asBuffer(bytes: Uint8Array): Buffer;
export function asBuffer(bytes: Uint8Array | undefined): Buffer | undefined;
export function asBuffer(bytes: Uint8Array | undefined): Buffer | undefined {
  if (bytes === undefined || Buffer.isBuffer(bytes)) return bytes;
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

/**
 * A copy from the pool of small buffers. Not by `copy`: the buffer of a fast read is longer than its `length` says,
 * which `copy` trusts when it is asked for all of it.
 */
export function copyOf(bytes: Buffer, start: number, end: number): Buffer {
  const copy = Buffer.allocUnsafe(end - start);
  copy.set(bytes.subarray(start, end));
  return copy;
}

/** The least bytes after everything that begins with `prefix`; undefined when there are none. */
export function successor(prefix: Buffer): Buffer | undefined {
  let last = prefix.length - 1;
  while (last >= 0 && prefix[last] === 0xff) last--;
  if (last < 0) return undefined;
  const next = Buffer.from(prefix.subarray(0, last + 1));
  next[last] = prefix.readUInt8(last) + 1;
  return next;
}
