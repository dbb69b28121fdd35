/**
 * Zstandard in bounded memory. Frames and blocks are split here and decoded a few blocks at a time, off the
 * caller's thread: by libzstd (zstd-native.ts) where its addon loads, else by a decoder in JavaScript
 * (zstd-fallback.ts), which takes four times the processor time. Windows above 128 MiB (zstd's own default
 * limit) and dictionaries are refused; skippable frames (zstd:chunked, seekable) are skipped. A stream takes
 * its frames' window and a few blocks of memory.
 */
import type { ChunkReader } from '../chunks.js';
import { type BlockDecoder, type Blocks, damaged } from './zstd-blocks.js';
import { FallbackDecoder } from './zstd-fallback.js';
import { NativeDecoder, nativeZstd } from './zstd-native.js';

const newDecoder = (): BlockDecoder =>
  nativeZstd.version === undefined ? new FallbackDecoder() : new NativeDecoder(MAX_WINDOW_LOG);

const MAGIC = 0xfd2fb528;
const magicBytes = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const SKIPPABLE = 0x184d2a50;
const MAX_WINDOW_LOG = 27;
const MAX_WINDOW = 2 ** MAX_WINDOW_LOG;
const MAX_BLOCK = 128 * 1024;
/**
 * Blocks are decoded in batches, many small ones or a few large ones: a batch ends when its input, or its
 * decompressed size, reaches this.
 */
const BATCH_BYTES = 512 * 1024;
/** Batches that are decoded ahead of the caller. */
const BATCHES_AHEAD = 2;

const BlockType = { raw: 0, rle: 1, compressed: 2 } as const;

export const isZstdMagic = (word: number): boolean =>
  word === MAGIC || (word & 0xfffffff0) >>> 0 === SKIPPABLE;

/** The decompressed content of the source's frames. */
export async function* unzstd(
  source: ChunkReader,
  decoder: BlockDecoder = newDecoder(),
): AsyncGenerator<Uint8Array, void, void> {
  try {
    for (;;) {
      const word = await source.exactly(4);
      if (word.length === 0) break;
      if (word.length < 4) throw damaged('it ends early');
      const magic = word.readUInt32LE(0);
      if (magic === MAGIC) yield* frame(source, decoder);
      else if (isZstdMagic(magic)) await skipFrame(source);
      else throw damaged('a frame does not begin where expected');
    }
  } finally {
    await decoder.close();
  }
}

async function skipFrame(source: ChunkReader): Promise<void> {
  const size = (await exactly(source, 4)).readUInt32LE(0);
  if ((await source.skip(size)) < size) throw damaged('it ends early');
}

async function* frame(source: ChunkReader, decoder: BlockDecoder): AsyncGenerator<Uint8Array, void, void> {
  const header = await frameHeader(source);
  const ahead: Promise<Uint8Array>[] = [];
  for (let first = true, last = false; !last; first = false) {
    const batch = await nextBatch(source, header, first);
    last = batch.last;
    const decoded = decoder.decode(batch);
    // Awaited below; until then a failure must not be an unhandled rejection.
    decoded.catch(() => undefined);
    ahead.push(decoded);
    const due = ahead.length >= BATCHES_AHEAD ? ahead.shift() : undefined;
    if (due !== undefined) yield* nonEmpty(await due);
  }
  for (const decoded of ahead) yield* nonEmpty(await decoded);
}

async function nextBatch(source: ChunkReader, header: FrameHeader, first: boolean): Promise<Blocks> {
  const parts = first ? [header.bytes] : [];
  let maxBytes = 0;
  let last = false;
  for (let length = 0; !last && length < BATCH_BYTES && maxBytes < BATCH_BYTES; ) {
    const head = Buffer.from(await exactly(source, 3));
    const bits = head.readUIntLE(0, 3);
    last = (bits & 1) === 1;
    const type = (bits >> 1) & 3;
    const size = bits >> 3;
    if (size > header.blockMax || type > BlockType.compressed)
      throw damaged('a block is larger than its frame allows');
    const body = Buffer.from(await exactly(source, type === BlockType.rle ? 1 : size));
    maxBytes += type === BlockType.compressed ? header.blockMax : size;
    length += head.length + body.length;
    parts.push(head, body);
  }
  if (last && header.checksum) parts.push(await exactly(source, 4));
  return { bytes: Buffer.concat(parts), maxBytes, first, last };
}

const nonEmpty = (data: Uint8Array): Uint8Array[] => (data.length === 0 ? [] : [data]);

interface FrameHeader {
  bytes: Buffer;
  blockMax: number;
  checksum: boolean;
}

async function frameHeader(source: ChunkReader): Promise<FrameHeader> {
  const descriptor = Buffer.from(await exactly(source, 1));
  const bits = descriptor.readUInt8(0);
  const single = (bits & 0x20) !== 0;
  if ((bits & 0x08) !== 0) throw damaged('a reserved bit is set');
  if ((bits & 0x03) !== 0) throw damaged('it needs a dictionary');
  const sizeCode = bits >> 6;
  const sizeBytes = sizeCode === 0 ? (single ? 1 : 0) : 1 << sizeCode;
  const rest = Buffer.from(await exactly(source, (single ? 0 : 1) + sizeBytes));
  const window = single ? contentSize(rest, sizeBytes) : windowSize(rest.readUInt8(0));
  if (window > BigInt(MAX_WINDOW)) {
    throw damaged(`a window of ${window} bytes is above the limit of ${MAX_WINDOW}`);
  }
  const blockMax = Math.min(MAX_BLOCK, Math.max(Number(window), 1));
  return { bytes: Buffer.concat([magicBytes, descriptor, rest]), blockMax, checksum: (bits & 0x04) !== 0 };
}

function contentSize(bytes: Buffer, length: number): bigint {
  let size = 0n;
  for (let i = length - 1; i >= 0; i--) size = (size << 8n) | BigInt(bytes.readUInt8(i));
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
