/** Random access to one blob of the content directory. Reads overlap freely; close once they are done. */
import { type FileHandle, open } from 'node:fs/promises';
import { failedPrecondition, invalidArgument, notFound } from '../../errors.js';
import type { BlobReader } from '../contract.js';
import { fsError, isAbsent } from '../fs-errors.js';

const CHUNK_BYTES = 256 * 1024;

export class FileReader implements BlobReader {
  readonly size: number;
  readonly #path: string;
  readonly #handle: FileHandle;
  #closing: Promise<void> | undefined;

  private constructor(path: string, handle: FileHandle, size: number) {
    this.#path = path;
    this.#handle = handle;
    this.size = size;
  }

  /** NotFound when the blob's file is absent. */
  static async open(path: string, digest: string): Promise<FileReader> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, 'r');
      const { size } = await handle.stat();
      return new FileReader(path, handle, size);
    } catch (error) {
      await handle?.close();
      if (isAbsent(error))
        throw notFound(`content ${digest} does not exist`, { object: digest, cause: error });
      throw fsError('open', path, error);
    }
  }

  async read(buffer: Uint8Array, position: number): Promise<number> {
    if (!Number.isSafeInteger(position) || position < 0) {
      throw invalidArgument(`invalid position ${position}`, { object: this.#path });
    }
    let filled = 0;
    while (filled < buffer.length) {
      this.#assertOpen();
      const { bytesRead } = await this.#read(buffer, filled, position + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return filled;
  }

  async #read(buffer: Uint8Array, from: number, position: number): Promise<{ bytesRead: number }> {
    try {
      return await this.#handle.read(buffer, from, buffer.length - from, position);
    } catch (error) {
      throw fsError('read', this.#path, error);
    }
  }

  /** Every chunk is a buffer of its own, the caller's to keep. */
  async *stream(start = 0, end = this.size): AsyncIterable<Uint8Array> {
    const stop = Math.min(end, this.size);
    for (let position = start; position < stop; ) {
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, stop - position));
      const bytes = await this.read(chunk, position);
      if (bytes === 0) return;
      position += bytes;
      yield bytes === chunk.length ? chunk : chunk.subarray(0, bytes);
    }
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw failedPrecondition('the reader is closed', { object: this.#path });
  }

  /** Again: no error. */
  close(): Promise<void> {
    this.#closing ??= this.#handle.close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
