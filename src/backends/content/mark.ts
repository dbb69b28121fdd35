/**
 * The mark of a content directory: one short text, overwritten in place, which needs no space on a full disk.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { fsError } from '../../system/system-errors.js';

/** A pipe in its place must not block, and a link must not be followed. */
const FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_NONBLOCK | constants.O_NOFOLLOW;

/** Not durable: a power cut may leave the previous text, or an unreadable one. */
export async function writeMark(path: string, text: string): Promise<void> {
  try {
    const handle = await open(path, FLAGS, 0o600);
    try {
      await handle.write(text, 0);
      await handle.truncate(Buffer.byteLength(text));
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fsError('write', path, error);
  }
}
