/** Random access to one blob of the content directory. Reads may overlap; close after they are done. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { failedPrecondition, invalidArgument, notFound } from '../../errors.js';
import { errnoOf, fsError, isAbsent } from '../../system/system-errors.js';
import type { BlobReader } from '../contract.js';
import { DamagedContent, WRITE_AGAIN } from '../damaged.js';
import { readNow } from '../sys.js';

const CHUNK_BYTES = 256 * 1024;
/** Up to this size bytes that the system has in memory are read at once: another thread and back would cost more. */
const NOW_BYTES_MAX = 64 * 1024;
/** A pipe in the blob's place must not block, and a link must not be followed. */
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;

export class FileReader implements BlobReader {
  readonly size: number;
  readonly #path: string;
  readonly #digest: string;
  readonly #handle: FileHandle;
  #closing: Promise<void> | undefined;
  /** Whether the file system says what is in memory. */
  #knowsCached = true;

  private constructor(path: string, digest: string, handle: FileHandle, size: number) {
    this.#path = path;
    this.#digest = digest;
    this.#handle = handle;
    this.size = size;
  }

  /** NotFound when the blob's file is absent; `DamagedContent` when something else is in its place. */
  static async open(path: string, digest: string): Promise<FileReader> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, FLAGS);
      const stats = await handle.stat();
      if (!stats.isFile()) throw noFile(digest, path);
      return new FileReader(path, digest, handle, stats.size);
    } catch (error) {
      await handle?.close();
      if (isAbsent(error))
        throw notFound(`content ${digest} does not exist`, {
          object: digest,
          remedy: WRITE_AGAIN,
          cause: error,
        });
      if (['ELOOP', 'ENXIO'].includes(errnoOf(error) ?? '')) throw noFile(digest, path);
      throw error instanceof DamagedContent ? error : fsError('open', path, error);
    }
  }

  /** `DamagedContent` when the file ends before the size that it had when it was opened. */
  async read(buffer: Uint8Array, position: number): Promise<number> {
    if (!Number.isSafeInteger(position) || position < 0) {
      throw invalidArgument(`invalid position ${position}`, { object: this.#path });
    }
    const wanted = Math.max(0, Math.min(buffer.length, this.size - position));
    this.#assertOpen();
    for (let filled = 0; filled < wanted; ) {
      this.#assertOpen();
      const bytesRead =
        this.#readNow(buffer.subarray(filled, wanted), position + filled) ||
        (await this.#read(buffer, filled, wanted - filled, position + filled));
      if (bytesRead === 0) {
        throw new DamagedContent(this.#digest, `its file ends at ${position + filled} of ${this.size} bytes`);
      }
      filled += bytesRead;
    }
    return wanted;
  }

  /** 0: it has to be read as usual. */
  #readNow(into: Uint8Array, position: number): number {
    if (!this.#knowsCached || into.length > NOW_BYTES_MAX) return 0;
    const count = readNow(this.#handle.fd, into, position);
    this.#knowsCached = count !== 'never';
    return typeof count === 'number' ? count : 0;
  }

  async #read(buffer: Uint8Array, from: number, length: number, position: number): Promise<number> {
    try {
      return (await this.#handle.read(buffer, from, length, position)).bytesRead;
    } catch (error) {
      throw fsError(`read content ${this.#digest} at ${position} from`, this.#path, error);
    }
  }

  /** Every chunk is a buffer of its own, which belongs to the caller. */
  async *stream(start = 0, end = this.size): AsyncIterable<Uint8Array> {
    const stop = Math.min(end, this.size);
    for (let position = start; position < stop; position += CHUNK_BYTES) {
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, stop - position));
      await this.read(chunk, position);
      yield chunk;
    }
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw failedPrecondition('the reader is closed', { object: this.#path });
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#handle.close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

const noFile = (digest: string, path: string): DamagedContent =>
  new DamagedContent(digest, `${path} is not a regular file`);
