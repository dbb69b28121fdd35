/** The mark of a content directory: one short text, written over in place, which takes no room on a full disk. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { orAbsent } from '../files.js';
import { fsError } from '../fs-errors.js';

const BYTES_MAX = 4096;
/** A pipe in its place must not make anybody wait, and a link must not lead elsewhere. */
const FLAGS = constants.O_NONBLOCK | constants.O_NOFOLLOW;

/** Null when there is none. */
export async function readMark(path: string): Promise<string | null> {
  return orAbsent(
    withFile(path, constants.O_RDONLY, async (handle) => {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(BYTES_MAX), 0, BYTES_MAX, 0);
      return buffer.toString('utf8', 0, bytesRead);
    }),
  );
}

/** Not durable: a power cut may leave the text before it, or none that can be read. */
export async function writeMark(path: string, text: string): Promise<void> {
  try {
    await withFile(path, constants.O_WRONLY | constants.O_CREAT, async (handle) => {
      await handle.write(text, 0);
      await handle.truncate(Buffer.byteLength(text));
    });
  } catch (error) {
    throw fsError('write', path, error);
  }
}

async function withFile<T>(path: string, flags: number, fn: (handle: FileHandle) => Promise<T>): Promise<T> {
  const handle = await open(path, flags | FLAGS, 0o600);
  try {
    return await fn(handle);
  } finally {
    await handle.close();
  }
}
