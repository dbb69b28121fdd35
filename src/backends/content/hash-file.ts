/** Digests of files with constant memory: the next chunk is read while the last one is hashed. */
import type { FileHandle } from 'node:fs/promises';
import { type Algorithm, Digester } from '../../model/digest.js';

/** Bytes that are hashed at a time: less than a millisecond of the thread. */
export const CHUNK_BYTES = 1024 * 1024;

/** Hashes the bytes [0, end) of a file, or as many as it has; returns how many that were. */
export async function hashFile(
  handle: FileHandle,
  algorithm: Algorithm,
  end = Number.POSITIVE_INFINITY,
): Promise<{ digester: Digester; size: number }> {
  const digester = new Digester(algorithm);
  let [filling, hashing] = [Buffer.allocUnsafe(CHUNK_BYTES), Buffer.allocUnsafe(CHUNK_BYTES)];
  let size = 0;
  const next = (): Promise<number> => {
    const length = Math.min(CHUNK_BYTES, end - size);
    return length === 0 ? Promise.resolve(0) : handle.read(filling, 0, length, size).then((r) => r.bytesRead);
  };
  for (let bytes = await next(); bytes > 0; ) {
    size += bytes;
    [filling, hashing] = [hashing, filling];
    const reading = next();
    digester.update(hashing.subarray(0, bytes));
    bytes = await reading;
  }
  return { digester, size };
}
