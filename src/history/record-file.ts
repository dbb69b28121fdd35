/**
 * A file that keeps the newest of many small JSON documents. It has a fixed size: two halves, filled in turn, so the older
 * one is there while the newer one is written. Called by history.ts.
 *
 * A record (little-endian): magic u32, sequence number u32, payload length u32, CRC-32 u32 of the number, the length and the
 * payload. A half is read up to the first record that is not whole, or whose number does not follow: a process that is
 * killed while it writes leaves a record that is there or not. Nothing is flushed; after a power cut the newest may be missing.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { invalidArgument, unavailable } from '../errors.js';
import { allocate, writeInPlace } from '../system/allocate.js';
import type { HeldDirectory } from '../system/held-directory.js';
import { errnoOf } from '../system/system-errors.js';

const MAGIC = 0x3148_4245;
const HEAD_BYTES = 16;
/** Offset of what the checksum covers, beside itself. */
const CHECKED_FROM = 4;
const CRC_AT = 12;
/** Bytes of one half. */
export const HALF_BYTES = 128 * 1024;

interface Found {
  readonly sequence: number;
  readonly document: unknown;
}

interface Half {
  readonly found: Found[];
  /** Where the next record would be. */
  readonly end: number;
}

export class RecordFile {
  readonly #file: FileHandle;
  #sequence = 0;
  /** Which half is being filled, and where in it the next record goes. */
  #half = 0;
  #end = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /**
   * Makes the file, with its blocks, if there is none. Unavailable: no space for it.
   * @param directory that must still be the one it was opened as
   */
  static async open(directory: HeldDirectory, name: string): Promise<RecordFile> {
    directory.verify();
    const path = join(directory.at, name);
    const file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    try {
      const ring = new RecordFile(file);
      await ring.#start(join(directory.path, name));
      return ring;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #start(path: string): Promise<void> {
    const { size } = await this.#file.stat();
    if (size < 2 * HALF_BYTES) {
      await this.#file.chmod(0o600);
      writeInPlace(this.#file.fd);
      // With its blocks: later it is written on a full disk.
      if (!allocate(this.#file.fd, 0, 2 * HALF_BYTES))
        throw unavailable(`no space for ${path}`, { object: path });
      await this.#file.truncate(2 * HALF_BYTES);
    }
    const halves = await readHalves(this.#file);
    const newest = (half: Half): number => half.found.at(-1)?.sequence ?? 0;
    const at = newest(halves[1]) > newest(halves[0]) ? 1 : 0;
    this.#half = at;
    this.#end = halves[at].end;
    this.#sequence = newest(halves[at]);
  }

  /** REQUIRES: one call at a time. InvalidArgument: longer than a half. */
  async append(document: unknown): Promise<void> {
    const record = encode(this.#sequence + 1, document);
    if (record.length > HALF_BYTES) throw invalidArgument(`a record of ${record.length} bytes is too long`);
    const fits = this.#end + record.length <= HALF_BYTES;
    const half = fits ? this.#half : 1 - this.#half;
    const end = fits ? this.#end : 0;
    await this.#file.write(record, 0, record.length, half * HALF_BYTES + end);
    this.#sequence++;
    this.#half = half;
    this.#end = end + record.length;
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /** The documents, oldest first; none without a file. May be called while another process writes. */
  static async read(path: string): Promise<unknown[]> {
    let file: FileHandle;
    try {
      file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
    try {
      const halves = await readHalves(file);
      return halves
        .flatMap(({ found }) => found)
        .sort((a, b) => a.sequence - b.sequence)
        .map(({ document }) => document);
    } finally {
      await file.close();
    }
  }
}

async function readHalves(file: FileHandle): Promise<[Half, Half]> {
  const bytes = Buffer.alloc(2 * HALF_BYTES);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
  const used = bytes.subarray(0, bytesRead);
  return [decode(used.subarray(0, HALF_BYTES)), decode(used.subarray(HALF_BYTES))];
}

function encode(sequence: number, document: unknown): Buffer {
  const payload = Buffer.from(JSON.stringify(document));
  const record = Buffer.alloc(HEAD_BYTES + payload.length);
  record.writeUInt32LE(MAGIC, 0);
  record.writeUInt32LE(sequence, 4);
  record.writeUInt32LE(payload.length, 8);
  payload.copy(record, HEAD_BYTES);
  record.writeUInt32LE(checksum(record), CRC_AT);
  return record;
}

const checksum = (record: Buffer): number =>
  crc32(record.subarray(HEAD_BYTES), crc32(record.subarray(CHECKED_FROM, CRC_AT)));

function decode(half: Buffer): Half {
  const found: Found[] = [];
  let at = 0;
  while (at + HEAD_BYTES <= half.length && half.readUInt32LE(at) === MAGIC) {
    const sequence = half.readUInt32LE(at + 4);
    const end = at + HEAD_BYTES + half.readUInt32LE(at + 8);
    const previous = found.at(-1)?.sequence;
    if (end > half.length || (previous !== undefined && sequence !== previous + 1)) break;
    const record = half.subarray(at, end);
    if (record.readUInt32LE(CRC_AT) !== checksum(record)) break;
    found.push({ sequence, document: JSON.parse(record.toString('utf8', HEAD_BYTES)) as unknown });
    at = end;
  }
  return { found, end: at };
}
