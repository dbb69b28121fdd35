/** Buffers, with the fastest way to the numbers in them. Called by the other files of this room. */
import type { FileHandle } from 'node:fs/promises';
import { unavailable } from '../errors.js';

export interface Piece {
  readonly bytes: Buffer;
  /** Of the same bytes. */
  readonly view: DataView;
}

export const viewOf = ({ buffer, byteOffset, length }: Buffer): DataView =>
  new DataView(buffer, byteOffset, length);

export const pieceOf = (bytes: Buffer): Piece => ({ bytes, view: viewOf(bytes) });

/** Unavailable without the memory. `path`: what the bytes are of. */
export const allocate = (path: string, length: number): Buffer =>
  withMemoryFor(path, length, () => Buffer.allocUnsafeSlow(length));

/** As `allocate`, for bytes that other threads read as well. */
export const allocateShared = (path: string, length: number): Buffer =>
  Buffer.from(withMemoryFor(path, length, () => new SharedArrayBuffer(length)));

function withMemoryFor<T>(path: string, length: number, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw unavailable(`there is no memory for ${length} bytes of ${path}`, {
      object: path,
      remedy: 'free memory, or read a compacted copy of the file',
      cause: error,
    });
  }
}

/** Node writes no more at once. */
const WRITE_BYTES_MAX = 1024 * 1024 * 1024;

export async function writeAll(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, WRITE_BYTES_MAX);
    done += (await file.write(bytes, done, length, at + done)).bytesWritten;
  }
}
