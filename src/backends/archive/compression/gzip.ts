/**
 * Gzip in bounded memory, decoded off the caller's thread: by the zlib of Node itself (native/host/gzip.cc) where the addon
 * loads, into buffers that are used again; else by Node's own stream over it, which takes twice the processor time.
 */
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { EbbtideError, invalidArgument } from '../../../errors.js';
import { loadAddon } from '../../../system/addon.js';
import { SpareBuffers } from '../../../system/spare-buffers.js';

/** What native/host/gzip.cc exports. */
interface Decoder {
  run(input: Uint8Array, output: Uint8Array): Promise<number>;
  close(): void;
  readonly consumed: number;
  readonly ended: boolean;
}

const Gunzip = (loadAddon('ebbtide_sys') as { Gunzip?: new () => Decoder } | undefined)?.Gunzip;

const OUTPUT_BYTES = 256 * 1024;
const spare = new SpareBuffers(OUTPUT_BYTES, 16);
const NOTHING = new Uint8Array();

/** The decompressed content of the source's members. A chunk is valid until the next one is asked for. */
export const gunzip = (source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, void> =>
  Gunzip === undefined ? gunzipStream(source) : new Members(new Gunzip(), source).chunks();

/** With the addon. One piece is decoded ahead of the caller, of what has come; the source is asked when that is used up. */
class Members {
  readonly #decoder: Decoder;
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #buffers: readonly [Buffer, Buffer] = [spare.take(), spare.take()];
  #input: Uint8Array = NOTHING;
  #sourceEnded = false;
  #underWay: Promise<number> | undefined;

  constructor(decoder: Decoder, source: AsyncIterable<Uint8Array>) {
    this.#decoder = decoder;
    this.#source = source[Symbol.asyncIterator]();
  }

  async *chunks(): AsyncGenerator<Uint8Array, void, void> {
    try {
      for (let turn = 0; ; turn++) {
        const output = this.#buffers[turn & 1] ?? this.#buffers[0];
        if (this.#underWay === undefined) {
          await this.#fetch();
          this.#begin(output);
        }
        const written = await this.#taken();
        // A full buffer may not be all that the input gives.
        const hasMore = this.#input.length > 0 || written === OUTPUT_BYTES;
        if (hasMore) this.#begin(this.#buffers[(turn + 1) & 1] ?? output);
        if (written > 0) yield output.subarray(0, written);
        if (!hasMore && this.#sourceEnded) break;
      }
      if (!this.#decoder.ended) throw damaged('unexpected end of file');
    } finally {
      await this.#underWay?.catch(() => undefined);
      this.#decoder.close();
      for (const buffer of this.#buffers) spare.giveBack(buffer);
      await this.#source.return?.();
    }
  }

  async #fetch(): Promise<void> {
    const { done, value } = await this.#source.next();
    if (done) this.#sourceEnded = true;
    else this.#input = value;
  }

  #begin(output: Buffer): void {
    this.#underWay = this.#decoder.run(this.#input, output);
    // Thrown where it is awaited.
    this.#underWay.catch(() => undefined);
  }

  async #taken(): Promise<number> {
    try {
      const written = (await this.#underWay) ?? 0;
      this.#input = this.#input.subarray(this.#decoder.consumed);
      return written;
    } catch (error) {
      throw damaged(error instanceof Error ? error.message : String(error), error);
    } finally {
      this.#underWay = undefined;
    }
  }
}

async function* gunzipStream(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, void> {
  const unpacker = createGunzip({ chunkSize: OUTPUT_BYTES });
  const input = Readable.from(source, { objectMode: true });
  // Errors of the source arrive through the decompressor, which the pipeline destroys with them.
  pipeline(input, unpacker, () => undefined);
  try {
    for await (const chunk of unpacker) yield chunk;
  } catch (error) {
    if (error instanceof EbbtideError) throw error;
    throw damaged(error instanceof Error ? error.message : String(error), error);
  } finally {
    input.destroy();
    unpacker.destroy();
  }
}

const damaged = (why: string, cause?: unknown): EbbtideError =>
  invalidArgument(`damaged gzip data: ${why}`, { cause, remedy: 'fetch or build the archive again' });
