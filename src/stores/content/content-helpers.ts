/**
 * Helpers around content writers: waiting for a locked ref, copying a source with resumption, writing and
 * reading whole blobs. Called by image import, the servers and embedders; works with every content store.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { BlobReader, WriterDescriptor } from '../../backends/contract.js';
import type { CallContext } from '../../context.js';
import { EbbtideError, isAlreadyExists, isKind, throwIfAborted, unknownError, wrap } from '../../errors.js';
import { digestOf, parseDigest } from '../../model/digest.js';
import { messageOf } from '../../system/system-errors.js';
import { type Positioned, positioned, type Source } from './content-source.js';
import type { CommitOptions, ContentWriter } from './content-writer.js';
import { Gathered } from './gathered.js';

export type { RandomAccessSource, SeekableSource, Source } from './content-source.js';

/** Opens writers: the content store, or anything like it. */
export interface Ingester {
  /** As the content store's. */
  writer(ctx: CallContext, ref: string, descriptor?: WriterDescriptor): Promise<ContentWriter>;
}

/** Opens blobs for reading. */
export interface Provider {
  /** As the content store's. */
  readerAt(ctx: CallContext, content: string | { readonly digest: string }): Promise<BlobReader>;
}

/** A descriptor that may carry its bytes. */
export interface ReadDescriptor {
  /** Which blob. */
  digest: string;
  /** In bytes; only used for inline data. */
  size?: number | undefined;
  /** The bytes themselves, where the descriptor has them. */
  data?: Uint8Array | undefined;
}

/** Bounds of the random delay between two attempts to open a locked ref, in milliseconds. */
const FIRST_PAUSE_MS_MAX = 16;
const LAST_PAUSE_MS_MAX = 2048;

/**
 * Thrown by a writer that lost some of its bytes: the source has to be sent again from the offset in its
 * status.
 */
export class WriterReset extends EbbtideError {
  constructor(message = 'writer has been reset') {
    super('Unavailable', message, { remedy: 'send the source again from the offset of the status' });
  }
}

/**
 * Opens a writer; waits while the ref is locked ("ref … locked"), but for nothing else. If the context's
 * signal is aborted: Unavailable.
 */
export async function openWriter(
  store: Ingester,
  ctx: CallContext,
  ref: string,
  descriptor: WriterDescriptor = {},
): Promise<ContentWriter> {
  for (let bound = FIRST_PAUSE_MS_MAX; ; bound = Math.min(bound * 2, LAST_PAUSE_MS_MAX)) {
    try {
      return await store.writer(ctx, ref, descriptor);
    } catch (busy) {
      if (!isLocked(busy)) throw busy;
      await pause(Math.random() * bound, ctx.signal);
      // The error says what the caller waited for.
      if (ctx.signal?.aborted) throw busy;
    }
  }
}

/**
 * Not every Unavailable: there is no waiting for a disk that is full or fails. Recognised by the text, which
 * is all that a daemon sends.
 */
const isLocked = (error: unknown): boolean =>
  isKind(error, 'Unavailable') && /\bref .*locked\b/s.test(messageOf(error));

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, signal && { signal }).catch(() => undefined);
}

/** Writes a whole blob from its source. If the blob exists, its source is not read. */
export async function writeBlob(
  store: Ingester,
  ctx: CallContext,
  ref: string,
  source: Source,
  descriptor: WriterDescriptor = {},
  options: CommitOptions = {},
): Promise<void> {
  let writer: ContentWriter;
  try {
    writer = await openWriter(store, ctx, ref, descriptor);
  } catch (error) {
    if (isAlreadyExists(error)) return;
    throw error;
  }
  try {
    await copy(writer, ctx, source, descriptor.size ?? 0, descriptor.digest ?? '', options);
  } finally {
    await writer.close();
  }
}

/**
 * Sends the source from the writer's offset on, then commits (AlreadyExists is ignored). Restarts at the
 * writer's offset whenever it throws `WriterReset`. A source that ends before `size` bytes (if known) is an
 * error, and nothing is committed.
 */
export async function copy(
  writer: ContentWriter,
  ctx: CallContext,
  source: Source,
  size: number,
  expected: string,
  options: CommitOptions = {},
): Promise<void> {
  const from = positioned(source);
  const gathered = new Gathered();
  try {
    while (!(await copyOnce(writer, ctx, from, gathered, size, expected, options)))
      throwIfAborted(ctx.signal);
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
  } finally {
    gathered.end();
    await from.close?.();
  }
}

/** Returns false if the writer was reset. */
async function copyOnce(
  writer: ContentWriter,
  ctx: CallContext,
  from: Positioned,
  gathered: Gathered,
  size: number,
  expected: string,
  options: CommitOptions,
): Promise<boolean> {
  try {
    const { offset } = await writer.status();
    const end = offset + (await pump(writer, from, offset, gathered, ctx.signal));
    if (size !== 0 && end < size) {
      throw unknownError(
        `source of ingest "${writer.ref}" ended at ${end} of ${size} bytes: unexpected EOF`,
        {
          object: writer.ref,
          remedy: 'the ref keeps what was sent; send the rest',
        },
      );
    }
    await writer.commit(size, expected, options, ctx);
    return true;
  } catch (error) {
    if (error instanceof WriterReset) return false;
    throw error;
  }
}

/** Sends what follows an offset, small chunks together; returns how much it was. */
async function pump(
  writer: ContentWriter,
  from: Positioned,
  offset: number,
  gathered: Gathered,
  signal: AbortSignal | undefined,
): Promise<number> {
  let sent = 0;
  const write = async (bytes: Uint8Array): Promise<void> => {
    if (bytes.length > 0) sent += await writer.write(bytes);
  };
  const flush = async (): Promise<void> => {
    await write(gathered.bytes);
    gathered.clear();
  };
  // What a writer that was reset did not take; a plain source does not give it again.
  gathered.dropBefore(offset);
  const start = offset + gathered.bytes.length;
  await flush();
  const chunks = from.chunks(start)[Symbol.asyncIterator]();
  const nextChunk = async (): Promise<Uint8Array | undefined> => {
    try {
      const next = await chunks.next();
      if (next.done === true) return undefined;
      throwIfAborted(signal);
      return next.value;
    } catch (error) {
      // A source that breaks off goes on from here the next time.
      await flush().catch(() => undefined);
      throw error;
    }
  };
  try {
    for (let at = start, chunk = await nextChunk(); chunk !== undefined; chunk = await nextChunk()) {
      at += chunk.length;
      if (gathered.add(chunk, at)) continue;
      await flush();
      if (!gathered.add(chunk, at)) await write(chunk);
    }
    await flush();
  } finally {
    await chunks.return?.();
  }
  return sent;
}

/** All bytes of a blob at once; from the descriptor's inline data if that matches the descriptor. */
export async function readBlob(
  store: Provider,
  ctx: CallContext,
  descriptor: ReadDescriptor,
): Promise<Buffer> {
  const { data, digest, size } = descriptor;
  if (
    data !== undefined &&
    data.length === size &&
    digestOf(data, parseDigest(digest).algorithm) === digest
  ) {
    return Buffer.from(data);
  }
  const reader = await store.readerAt(ctx, digest);
  try {
    const bytes = Buffer.allocUnsafe(reader.size);
    for (let at = 0; at < bytes.length; ) {
      throwIfAborted(ctx.signal);
      const count = await reader.read(bytes.subarray(at), at);
      if (count === 0) {
        throw unknownError(`content "${digest}" ended at ${at} of ${bytes.length} bytes: unexpected EOF`, {
          object: digest,
        });
      }
      at += count;
    }
    return bytes;
  } catch (error) {
    throw wrap(`cannot read content "${digest}"`, error, { object: digest });
  } finally {
    await reader.close();
  }
}
