/** Requests whose messages are compressed. Answers never are: the socket is on this machine. */
import { promisify } from 'node:util';
import { gunzip, inflate, type ZlibOptions } from 'node:zlib';
import { internal } from '../status.js';
import { tooLarge } from './message-reader.js';

export const encodings = ['identity', 'deflate', 'gzip'] as const;
export type MessageEncoding = (typeof encodings)[number];
export const isEncoding = (name: string): name is MessageEncoding =>
  (encodings as readonly string[]).includes(name);

const decoders = {
  deflate: promisify<Buffer, ZlibOptions, Buffer>(inflate),
  gzip: promisify<Buffer, ZlibOptions, Buffer>(gunzip),
};

/** The message itself. ResourceExhausted when it would be over the limit, Internal when it is damaged. */
export async function expand(bytes: Buffer, encoding: MessageEncoding, bytesMax: number): Promise<Buffer> {
  if (encoding === 'identity') throw internal('a compressed message without grpc-encoding');
  try {
    return await decoders[encoding](bytes, { maxOutputLength: bytesMax });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge('received', bytesMax + 1, bytesMax);
    throw internal(`a message that is no ${encoding}: ${message}`);
  }
}
