/**
 * Content.Read: a range of a blob as a stream. The next chunk is read from disk while the last one is sent; a
 * client that reads slowly keeps two chunks in memory, and one that disconnects ends the reading.
 */
import type { BlobReader } from '../../backends/contract.js';
import { unknownError } from '../../errors.js';
import { validateDigest } from '../../model/digest.js';
import type { Call, Send } from '../call.js';
import { frameReadResponse, READ_HEAD_BYTES } from '../messages/content-codec.js';
import type { OpenReaders } from '../open-readers.js';
import { outOfRange } from '../status.js';

export interface ReadRequest {
  digest: string;
  offset: number;
  /** In bytes; 0 or less: to the end. */
  size: number;
}

const CHUNK_BYTES = 1024 * 1024;
const BUFFER_BYTES = READ_HEAD_BYTES + CHUNK_BYTES;
/** Bytes that a read keeps at a time. */
export const READ_BYTES = 2 * BUFFER_BYTES;

/**
 * Offsets in the responses count from the start of the range, as containerd's do. The messages are encoded
 * already.
 */
export async function readContent(
  readers: OpenReaders,
  request: ReadRequest,
  call: Call,
  send: Send<Buffer>,
): Promise<void> {
  validateDigest(request.digest);
  await readers.use(call.context, request.digest, async (reader) => {
    const start = Math.max(0, request.offset);
    if (start > reader.size) throw outOfRange(`read past object length ${reader.size} bytes`);
    const rest = reader.size - start;
    const end = start + (request.size <= 0 || request.size > rest ? rest : request.size);
    const buffers: Buffer[] = [];
    await sendRange(reader, start, end, send, buffers);
    // Not after a failure: the last one may still be on its way to the client.
    giveBack(buffers);
  });
}

async function sendRange(
  reader: BlobReader,
  start: number,
  end: number,
  send: Send<Buffer>,
  buffers: Buffer[],
): Promise<void> {
  let index = 0;
  // A buffer is free again when its message has been sent, so two are enough to read and send at the same
  // time.
  const read = (from: number): Promise<{ buffer: Buffer; count: number }> => {
    const wanted = Math.min(CHUNK_BYTES, end - from);
    const buffer = buffers[index] ?? takeBuffer(wanted);
    buffers[index] = buffer;
    index = 1 - index;
    const target = buffer.subarray(READ_HEAD_BYTES, READ_HEAD_BYTES + wanted);
    return reader.read(target, from).then((count) => ({ buffer, count }));
  };
  let next = start < end ? read(start) : undefined;
  for (let position = start; next !== undefined; ) {
    const { buffer, count } = await next;
    if (count === 0) throw unknownError(`the content ends at ${position} of ${end} bytes`);
    const sent = send(frameReadResponse(buffer, position - start, count));
    position += count;
    next = position < end ? read(position) : undefined;
    // If sending fails, the reader and the buffers are released, which must not happen during a read.
    const [outcome] = await Promise.allSettled([sent, next]);
    if (outcome.status === 'rejected') throw outcome.reason;
  }
}

/** Chunk buffers are reused: allocating one costs more than filling it. */
const spare: Buffer[] = [];
const SPARE_MAX = 8;

function takeBuffer(bytes: number): Buffer {
  if (bytes < CHUNK_BYTES) return Buffer.allocUnsafe(READ_HEAD_BYTES + bytes);
  return spare.pop() ?? Buffer.allocUnsafe(BUFFER_BYTES);
}

function giveBack(buffers: readonly Buffer[]): void {
  for (const buffer of buffers) {
    if (buffer.length === BUFFER_BYTES && spare.length < SPARE_MAX) spare.push(buffer);
  }
}
