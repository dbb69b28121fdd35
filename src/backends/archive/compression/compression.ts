/**
 * Compressed archives: detected by their first bytes, not by a media type. Output is limited while it
 * streams, so that a bomb stops early. Nothing here keeps more than a few chunks.
 */
import { throwIfAborted } from '../../../errors.js';
import { ChunkReader } from '../chunks.js';
import { type ArchiveLimits, RATIO_FREE_BYTES, tooMuch } from '../limits.js';
import { gunzip } from './gzip.js';
import { isZstdMagic, unzstd } from './zstd.js';

export type Compression = 'none' | 'gzip' | 'zstd';

/** Bytes of a stream's start that `detectCompression` needs. */
export const MAGIC_BYTES = 4;

export function detectCompression(head: Uint8Array): Compression {
  if (head[0] === 0x1f && head[1] === 0x8b && head[2] === 0x08) return 'gzip';
  if (head.length < MAGIC_BYTES) return 'none';
  return isZstdMagic(new DataView(head.buffer, head.byteOffset, 4).getUint32(0, true)) ? 'zstd' : 'none';
}

export interface DecompressOptions {
  limits: Pick<ArchiveLimits, 'maxBytes' | 'maxRatio'>;
  /** The stream's name in errors. */
  name: string;
  signal?: AbortSignal | undefined;
  /** Called with the compressed bytes read so far. */
  onRead?: ((bytes: number) => void) | undefined;
}

export interface Decompressed {
  compression: Compression;
  chunks: AsyncIterable<Uint8Array>;
}

/**
 * The uncompressed form of a stream. InvalidArgument while reading when it is damaged. A chunk is valid until the next one is asked for, and
 * so may those of the source be.
 */
export async function decompress(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions,
): Promise<Decompressed> {
  const meter = { read: 0 };
  const reader = new ChunkReader(metered(source, meter, options));
  const head = Buffer.from(await reader.exactly(MAGIC_BYTES));
  const compression = detectCompression(head);
  const whole = replay(head, reader);
  if (compression === 'none') return { compression, chunks: limited(whole, meter, options) };
  const plain = compression === 'gzip' ? gunzip(whole) : unzstd(new ChunkReader(whole));
  return { compression, chunks: limited(plain, meter, options) };
}

async function* metered(
  source: AsyncIterable<Uint8Array>,
  meter: { read: number },
  options: DecompressOptions,
): AsyncGenerator<Uint8Array, void, void> {
  for await (const chunk of source) {
    throwIfAborted(options.signal);
    meter.read += chunk.length;
    options.onRead?.(meter.read);
    yield chunk;
  }
}

async function* replay(head: Buffer, reader: ChunkReader): AsyncGenerator<Uint8Array, void, void> {
  try {
    if (head.length > 0) yield head;
    for (let part = await reader.some(2 ** 20); part !== undefined; part = await reader.some(2 ** 20))
      yield part;
  } finally {
    await reader.close();
  }
}

async function* limited(
  chunks: AsyncIterable<Uint8Array>,
  meter: { read: number },
  { limits, name, signal }: DecompressOptions,
): AsyncGenerator<Uint8Array, void, void> {
  let out = 0;
  for await (const chunk of chunks) {
    throwIfAborted(signal);
    out += chunk.length;
    if (out > limits.maxBytes)
      throw tooMuch(`decompresses to more than ${limits.maxBytes} bytes`, name, 'maxBytes');
    if (out > RATIO_FREE_BYTES && out > meter.read * limits.maxRatio) {
      throw tooMuch(`decompresses to more than ${limits.maxRatio} times its size`, name, 'maxRatio');
    }
    yield chunk;
  }
}
