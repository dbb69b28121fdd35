/**
 * Zstandard in constant memory: frames and blocks are cut here and handed to fzstd one block at a time, because
 * one push of a whole chunk could unfold to gigabytes at once. Windows above 128 MiB (zstd's own default limit)
 * and dictionaries are refused; skippable frames (zstd:chunked, seekable) are passed over.
 *
 * Runs in the calling thread and lets other work in between blocks. Frame checksums are not compared: whoever
 * reads a layer compares the digest of what came out.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Decompress } from 'fzstd';
import { invalidArgument } from '../../errors.js';
import type { ChunkReader } from './chunks.js';

const MAGIC = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;
const MAX_WINDOW = 128 * 2 ** 20;
const MAX_BLOCK = 128 * 1024;
const SLICE_MS = 8;

const BlockType = { raw: 0, rle: 1, compressed: 2 } as const;

export const isZstdMagic = (word: number): boolean =>
  word === MAGIC || (word & 0xfffffff0) >>> 0 === SKIPPABLE;

const damaged = (what: string, cause?: unknown) =>
  invalidArgument(`damaged zstd data: ${what}`, { cause, remedy: 'fetch or build the archive again' });

/** What the frames of the source unfold to. */
export async function* unzstd(source: ChunkReader): AsyncGenerator<Uint8Array, void, void> {
  for (;;) {
    const word = await source.exactly(4);
    if (word.length === 0) return;
    if (word.length < 4) throw damaged('it ends early');
    const magic = word.readUInt32LE(0);
    if (magic === MAGIC) yield* frame(source, Buffer.from(word));
    else if (isZstdMagic(magic)) await skipFrame(source);
    else throw damaged('a frame does not begin where it should');
  }
}

async function skipFrame(source: ChunkReader): Promise<void> {
  const size = (await exactly(source, 4)).readUInt32LE(0);
  if ((await source.skip(size)) < size) throw damaged('it ends early');
}

async function* frame(source: ChunkReader, magic: Buffer): AsyncGenerator<Uint8Array, void, void> {
  const { header, blockMax, checksum } = await frameHeader(source);
  const out: Uint8Array[] = [];
  const decoder = new Decompress((chunk) => {
    if (chunk.length > 0) out.push(chunk);
  });
  const push = (bytes: Uint8Array, final: boolean) => {
    try {
      decoder.push(bytes, final);
    } catch (error) {
      throw damaged(error instanceof Error ? error.message : String(error), error);
    }
  };
  push(Buffer.concat([magic, header]), false);
  let since = performance.now();
  for (let last = false; !last; ) {
    const head = Buffer.from(await exactly(source, 3));
    const bits = head.readUIntLE(0, 3);
    last = (bits & 1) === 1;
    const type = (bits >> 1) & 3;
    const size = bits >> 3;
    if (size > blockMax || type > BlockType.compressed)
      throw damaged('a block is larger than its frame allows');
    const body = Buffer.from(await exactly(source, type === BlockType.rle ? 1 : size));
    const tail = last && checksum ? await exactly(source, 4) : Buffer.alloc(0);
    push(Buffer.concat([head, body, tail]), last);
    for (const chunk of out.splice(0)) yield chunk;
    if (performance.now() - since > SLICE_MS) {
      await nextTurn();
      since = performance.now();
    }
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
  return { header: Buffer.concat([descriptor, rest]), blockMax, checksum: (bits & 0x04) !== 0 };
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
