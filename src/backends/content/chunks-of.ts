/**
 * The bytes of a blob for a caller that is done with a chunk when it asks for the next: the buffers are used again, and one is filled
 * while the caller has the other. Called where layers are applied, and images exported.
 */
import { SpareBuffers } from '../../system/spare-buffers.js';
import type { BlobReader } from '../contract.js';
import { FileReader } from './reader.js';

const CHUNK_BYTES = 256 * 1024;
const spare = new SpareBuffers(CHUNK_BYTES, 16);

/** All bytes of a blob. A chunk is valid until the next one is asked for. Of another store, each read may be a call of its own. */
export const chunksOf = (reader: BlobReader): AsyncIterable<Uint8Array> =>
  reader instanceof FileReader ? lent(reader) : reader.stream();

async function* lent(reader: FileReader): AsyncGenerator<Uint8Array, void, void> {
  const { size } = reader;
  const buffers: [Buffer, Buffer] = [spare.take(), spare.take()];
  const read = async (at: number): Promise<Buffer> => {
    const [filling, given] = buffers;
    const chunk = filling.subarray(0, Math.min(CHUNK_BYTES, size - at));
    // All of it, or it throws.
    await reader.read(chunk, at);
    buffers[0] = given;
    buffers[1] = filling;
    return chunk;
  };
  let next: Promise<Buffer> | undefined;
  try {
    for (let at = 0; at < size; at += CHUNK_BYTES) {
      const chunk = await (next ?? read(at));
      const following = at + CHUNK_BYTES;
      next = following < size ? read(following) : undefined;
      // Thrown where it is awaited.
      next?.catch(() => undefined);
      yield chunk;
    }
  } finally {
    // No buffer is given back, and the reader is not closed, while the system writes into it.
    await next?.catch(() => undefined);
    for (const buffer of buffers) spare.giveBack(buffer);
  }
}
