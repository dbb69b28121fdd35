/**
 * The data of an open ingest, by its descriptor: what steps (steps.ts) and single calls work on alike. Made by the content
 * directory, used by one writer. Closed once, whoever does it.
 */
import { close, ftruncate, read, write } from 'node:fs';
import { promisify } from 'node:util';
import { type Step, step } from '../steps.js';

const closeFile = promisify(close);
const truncateFile = promisify(ftruncate);
const CLOSED = -1;

export class DataFile {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** EBADF once it is closed, instead of somebody else's file. */
  get fd(): number {
    if (this.#fd !== CLOSED) return this.#fd;
    throw Object.assign(new Error('EBADF: the file is closed'), { errno: -9, code: 'EBADF' });
  }

  /** Resolves when the system has all of the bytes. */
  async write(bytes: Uint8Array, position: number): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      at += await new Promise<number>((resolve, reject) => {
        write(this.fd, bytes, at, bytes.length - at, position + at, (error, count) =>
          error ? reject(error) : resolve(count),
        );
      });
    }
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }> {
    return new Promise((resolve, reject) => {
      read(this.fd, buffer, offset, length, position, (error, bytesRead) =>
        error ? reject(error) : resolve({ bytesRead }),
      );
    });
  }

  async truncate(size: number): Promise<void> {
    await truncateFile(this.fd, size);
  }

  /** A step that closes it. Say `closed` when it was carried out, whatever its outcome. */
  closing(): Step {
    return step.close(this.fd);
  }

  closed(): void {
    this.#fd = CLOSED;
  }

  /** Again: nothing. */
  async close(): Promise<void> {
    if (this.#fd === CLOSED) return;
    const fd = this.#fd;
    this.#fd = CLOSED;
    await closeFile(fd);
  }
}
