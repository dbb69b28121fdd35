/** Decompresses request messages. Responses are never compressed: the socket is local. */

import { promisify } from 'node:util';
import { gunzip, inflate, type ZlibOptions } from 'node:zlib';
import { canceled } from '../../errors.js';
import type { Account } from '../connections/ledger.js';
import { internal, resourceExhausted } from '../status.js';
import { tooLarge } from './message-reader.js';

export const encodings = ['identity', 'deflate', 'gzip'] as const;
export type MessageEncoding = (typeof encodings)[number];
export const isEncoding = (name: string): name is MessageEncoding =>
  (encodings as readonly string[]).includes(name);

const decoders = {
  deflate: promisify<Buffer, ZlibOptions, Buffer>(inflate),
  gzip: promisify<Buffer, ZlibOptions, Buffer>(gunzip),
};

/** The highest expansion ratio of these encodings. */
const RATIO_MAX = 1032;
/** Concurrent decompressions, for all connections: the thread pool is also needed for the disk. */
const EXPANDED_MAX = 2;
let expanding = 0;
const waiting: (() => void)[] = [];

/**
 * The decompressed message, whose bytes are taken from the account. ResourceExhausted when it exceeds the
 * limit or there is no room for it, Internal when it is damaged, Canceled when the call is `gone` before its turn.
 */
export async function expand(
  bytes: Buffer,
  encoding: MessageEncoding,
  bytesMax: number,
  memory: Account,
  gone: () => boolean,
): Promise<Buffer> {
  if (encoding === 'identity') throw internal('a compressed message without grpc-encoding');
  while (expanding >= EXPANDED_MAX) await new Promise<void>((resolve) => waiting.push(resolve));
  if (gone()) {
    waiting.shift()?.();
    throw canceled('context canceled');
  }
  expanding++;
  const most = Math.min(bytesMax, bytes.length * RATIO_MAX);
  const taken = memory.take(most);
  let used = 0;
  try {
    if (!taken) throw resourceExhausted('the connection has too much under way');
    const message = await decoders[encoding](bytes, { maxOutputLength: most });
    used = message.length;
    return message;
  } catch (error) {
    if (!taken) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge('received', bytesMax + 1, bytesMax);
    throw internal(`the message is not valid ${encoding}: ${message}`);
  } finally {
    if (taken) memory.give(most - used);
    expanding--;
    waiting.shift()?.();
  }
}
