/**
 * Content.Read: a range of a blob as a stream. The next piece is read from disk while the last one is on its way; a
 * client that reads slowly keeps two pieces in memory, one that goes away early ends the reading.
 */
import type { BlobReader } from '../../backends/contract.js';
import type { DB } from '../../db.js';
import { unknownError } from '../../errors.js';
import { validateDigest } from '../../model/digest.js';
import type { Call, Send } from '../call.js';
import type { ReadResponse } from '../messages.js';
import { outOfRange } from '../status.js';

interface ReadRequest {
  digest: string;
  offset: number;
  /** Bytes; 0 and less: to the end. */
  size: number;
}

const PIECE_BYTES = 1024 * 1024;

/** Offsets of the answers count from the start of the range, as containerd's do. */
export async function readContent(
  store: Pick<DB['content'], 'readerAt'>,
  request: ReadRequest,
  call: Call,
  send: Send<ReadResponse>,
): Promise<void> {
  validateDigest(request.digest);
  await using reader = await store.readerAt(call.context, request.digest);
  const start = Math.max(0, request.offset);
  if (start > reader.size) throw outOfRange(`read past object length ${reader.size} bytes`);
  const rest = reader.size - start;
  const size = request.size <= 0 || request.size > rest ? rest : request.size;
  if (size === 0) return;
  const range = { start, end: start + size };
  const pieceBytes = Math.min(PIECE_BYTES, size);
  // Sending encodes a piece before it returns, so two buffers are enough for pieces that overlap.
  let [buffer, spare] = [Buffer.allocUnsafe(pieceBytes), Buffer.allocUnsafe(pieceBytes)];
  let next = readPiece(reader, buffer, range.start, range.end);
  for (let position = start; position < range.end; ) {
    const data = await next;
    if (data.length === 0) throw unknownError(`content ${request.digest} ends early`);
    const offset = position - start;
    position += data.length;
    [buffer, spare] = [spare, buffer];
    const sent = send({ offset, data });
    next = readPiece(reader, buffer, position, range.end);
    next.catch(() => undefined);
    await sent.catch(async (error: unknown) => {
      // The reader is closed on the way out, which must not happen under a read.
      await next.catch(() => undefined);
      throw error;
    });
  }
}

async function readPiece(
  reader: BlobReader,
  buffer: Buffer,
  position: number,
  end: number,
): Promise<Uint8Array> {
  const wanted = Math.min(buffer.length, end - position);
  if (wanted <= 0) return buffer.subarray(0, 0);
  const target = buffer.subarray(0, wanted);
  const count = await reader.read(target, position);
  return count === wanted ? target : target.subarray(0, count);
}
