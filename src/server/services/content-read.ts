/**
 * Content.Read: a range of a blob as a stream. The next chunk is read from disk while the last one is sent; a
 * client that reads slowly keeps two chunks in memory, and one that disconnects ends the reading.
 */
import type { BlobReader } from '../../backends/contract.js';
import { unknownError } from '../../errors.js';
import { validateDigest } from '../../model/digest.js';
import { SpareBuffers } from '../../system/spare-buffers.js';
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
/** What Go's readers ask for. */
const GO_CHUNK_BYTES = 32 * 1024;
/** Bytes that a read keeps at a time. */
export const READ_BYTES = 2 * (READ_HEAD_BYTES + CHUNK_BYTES);
const large = new SpareBuffers(READ_HEAD_BYTES + CHUNK_BYTES, 8);
const small = new SpareBuffers(READ_HEAD_BYTES + GO_CHUNK_BYTES, 16);

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
    if (end - start > CHUNK_BYTES) await sendRange(reader, start, end, send);
    else if (end > start) await sendOne(reader, start, end - start, send);
  });
}

/** Go's clients ask for each chunk in a call of its own, whose end goes out with its message. */
async function sendOne(reader: BlobReader, start: number, bytes: number, send: Send<Buffer>): Promise<void> {
  const spare = spareFor(bytes);
  const buffer = spare?.take() ?? Buffer.allocUnsafe(READ_HEAD_BYTES + bytes);
  const target = buffer.subarray(READ_HEAD_BYTES, READ_HEAD_BYTES + bytes);
  for (let filled = 0; filled < bytes; ) {
    const count = await reader.read(target.subarray(filled), start + filled);
    if (count === 0) throw endsAt(start + filled, start + bytes);
    filled += count;
  }
  send(frameReadResponse(buffer, 0, bytes)).then(
    () => spare?.giveBack(buffer),
    // The client is gone, and the buffer may still be read from.
    () => undefined,
  );
}

/** What is in flight after the call has ended counts with its bytes, so a buffer has at most twice as many. */
function spareFor(bytes: number): SpareBuffers | undefined {
  if (bytes > CHUNK_BYTES / 2) return large;
  return bytes > GO_CHUNK_BYTES / 2 && bytes <= GO_CHUNK_BYTES ? small : undefined;
}

async function sendRange(reader: BlobReader, start: number, end: number, send: Send<Buffer>): Promise<void> {
  const buffers = [large.take(), large.take()] as const;
  let index: 0 | 1 = 0;
  // A buffer is free again when its message has been sent, so two are enough to read and send at the same
  // time.
  const read = (from: number): Promise<{ buffer: Buffer; count: number }> => {
    const wanted = Math.min(CHUNK_BYTES, end - from);
    const buffer = buffers[index];
    index = index === 0 ? 1 : 0;
    const target = buffer.subarray(READ_HEAD_BYTES, READ_HEAD_BYTES + wanted);
    return reader.read(target, from).then((count) => ({ buffer, count }));
  };
  let next = start < end ? read(start) : undefined;
  for (let position = start; next !== undefined; ) {
    const { buffer, count } = await next;
    if (count === 0) throw endsAt(position, end);
    const sent = send(frameReadResponse(buffer, position - start, count));
    position += count;
    next = position < end ? read(position) : undefined;
    // If sending fails, the reader and the buffers are released, which must not happen during a read.
    const [outcome] = await Promise.allSettled([sent, next]);
    if (outcome.status === 'rejected') throw outcome.reason;
  }
  // Not after a failure: one may still be on its way to the client.
  for (const buffer of buffers) large.giveBack(buffer);
}

const endsAt = (position: number, end: number): Error =>
  unknownError(`the content ends at ${position} of ${end} bytes`);
