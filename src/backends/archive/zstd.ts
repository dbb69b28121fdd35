/**
 * Zstandard in constant memory: frames and blocks are cut here and handed to fzstd one block at a time, because
 * one push of a whole chunk could unfold to gigabytes at once. Windows above 128 MiB (zstd's own default limit)
 * and dictionaries are refused; skippable frames (zstd:chunked, seekable) are passed over.
 *
 * Unfolding runs on a thread of its own, one for each stream. That keeps the caller's thread free, and a hostile
 * block that makes the decoder spin (fzstd does not bound the work of a block) costs a thread and ends in an error.
 * Frame checksums are not compared: whoever reads a layer compares the digest of what came out.
 */
import { Worker } from 'node:worker_threads';
import { invalidArgument } from '../../errors.js';
import type { ChunkReader } from './chunks.js';
import type { BlockAnswer, BlockRequest } from './zstd-worker.js';

const MAGIC = 0xfd2fb528;
const magicBytes = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const SKIPPABLE = 0x184d2a50;
const MAX_WINDOW = 128 * 2 ** 20;
const MAX_BLOCK = 128 * 1024;
/** An honest block takes milliseconds. */
const BLOCK_TIMEOUT_MS = 30_000;
/** Blocks on their way to the thread and back. */
const BLOCKS_AHEAD = 4;

const BlockType = { raw: 0, rle: 1, compressed: 2 } as const;

export const isZstdMagic = (word: number): boolean =>
  word === MAGIC || (word & 0xfffffff0) >>> 0 === SKIPPABLE;

const damaged = (what: string, cause?: unknown) =>
  invalidArgument(`damaged zstd data: ${what}`, { cause, remedy: 'fetch or build the archive again' });

/** What the frames of the source unfold to. */
export async function* unzstd(
  source: ChunkReader,
  blockTimeoutMs = BLOCK_TIMEOUT_MS,
): AsyncGenerator<Uint8Array, void, void> {
  const thread = new DecoderThread(blockTimeoutMs);
  try {
    for (;;) {
      const word = await source.exactly(4);
      if (word.length === 0) break;
      if (word.length < 4) throw damaged('it ends early');
      const magic = word.readUInt32LE(0);
      if (magic === MAGIC) yield* frame(source, thread);
      else if (isZstdMagic(magic)) await skipFrame(source);
      else throw damaged('a frame does not begin where it should');
    }
  } finally {
    await thread.close();
  }
}

async function skipFrame(source: ChunkReader): Promise<void> {
  const size = (await exactly(source, 4)).readUInt32LE(0);
  if ((await source.skip(size)) < size) throw damaged('it ends early');
}

async function* frame(source: ChunkReader, thread: DecoderThread): AsyncGenerator<Uint8Array, void, void> {
  const { header, blockMax, checksum } = await frameHeader(source);
  const ahead: Promise<Uint8Array>[] = [];
  for (let first = true, last = false; !last; first = false) {
    const head = Buffer.from(await exactly(source, 3));
    const bits = head.readUIntLE(0, 3);
    last = (bits & 1) === 1;
    const type = (bits >> 1) & 3;
    const size = bits >> 3;
    if (size > blockMax || type > BlockType.compressed)
      throw damaged('a block is larger than its frame allows');
    const body = Buffer.from(await exactly(source, type === BlockType.rle ? 1 : size));
    const tail = last && checksum ? await exactly(source, 4) : Buffer.alloc(0);
    const bytes = Buffer.concat([...(first ? [header] : []), head, body, tail]);
    const answer = thread.unfold({ bytes, first, last });
    // Waited for below; until then a failure must not count as unhandled.
    answer.catch(() => undefined);
    ahead.push(answer);
    if (ahead.length >= BLOCKS_AHEAD) yield* nonEmpty(await ahead.shift()!);
  }
  for (const answer of ahead) yield* nonEmpty(await answer);
}

const nonEmpty = (data: Uint8Array): Uint8Array[] => (data.length === 0 ? [] : [data]);

interface Waiting {
  resolve: (data: Uint8Array) => void;
  reject: (error: unknown) => void;
}

/** Started with the first block. */
class DecoderThread {
  readonly #timeoutMs: number;
  readonly #waiting: Waiting[] = [];
  #worker: Worker | undefined;
  #watchdog: NodeJS.Timeout | undefined;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  unfold(request: BlockRequest): Promise<Uint8Array> {
    this.#worker ??= this.#start();
    const worker = this.#worker;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#watchdog ??= this.#watch();
      worker.postMessage(request);
    });
  }

  async close(): Promise<void> {
    this.#failAll(damaged('reading it was given up'));
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(new URL('./zstd-worker.js', import.meta.url), { execArgv: [] });
    worker.on('message', (answer: BlockAnswer) => this.#answered(answer));
    worker.on('error', (error) => this.#failAll(error));
    worker.on('exit', () => this.#failAll(new Error('the zstd thread ended')));
    return worker;
  }

  #answered(answer: BlockAnswer): void {
    clearTimeout(this.#watchdog);
    const waiting = this.#waiting.shift();
    this.#watchdog = this.#waiting.length > 0 ? this.#watch() : undefined;
    if ('data' in answer) waiting?.resolve(answer.data);
    else waiting?.reject(damaged(answer.error));
  }

  #watch(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#failAll(damaged(`one block took longer than ${this.#timeoutMs} ms to unfold`));
      void this.#worker?.terminate();
    }, this.#timeoutMs);
  }

  #failAll(error: unknown): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = undefined;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

interface FrameHeader {
  header: Buffer;
  blockMax: number;
  checksum: boolean;
}

async function frameHeader(source: ChunkReader): Promise<FrameHeader> {
  const descriptor = Buffer.from(await exactly(source, 1));
  const bits = descriptor[0]!;
  const single = (bits & 0x20) !== 0;
  if ((bits & 0x08) !== 0) throw damaged('a reserved bit is set');
  if ((bits & 0x03) !== 0) throw damaged('it needs a dictionary');
  const sizeCode = bits >> 6;
  const sizeBytes = sizeCode === 0 ? (single ? 1 : 0) : 1 << sizeCode;
  const rest = Buffer.from(await exactly(source, (single ? 0 : 1) + sizeBytes));
  const window = single ? contentSize(rest, sizeBytes) : windowSize(rest[0]!);
  if (window > BigInt(MAX_WINDOW)) {
    throw damaged(`a window of ${window} bytes is above the limit of ${MAX_WINDOW}`);
  }
  const blockMax = Math.min(MAX_BLOCK, Math.max(Number(window), 1));
  return { header: Buffer.concat([magicBytes, descriptor, rest]), blockMax, checksum: (bits & 0x04) !== 0 };
}

function contentSize(bytes: Buffer, length: number): bigint {
  let size = 0n;
  for (let i = length - 1; i >= 0; i--) size = (size << 8n) | BigInt(bytes[i]!);
  return length === 2 ? size + 256n : size;
}

function windowSize(byte: number): bigint {
  const base = 1n << BigInt(10 + (byte >> 3));
  return base + (base >> 3n) * BigInt(byte & 7);
}

async function exactly(source: ChunkReader, size: number): Promise<Buffer> {
  const bytes = await source.exactly(size);
  if (bytes.length < size) throw damaged('it ends early');
  return bytes;
}
