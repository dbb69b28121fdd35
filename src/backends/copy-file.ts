/**
 * The bytes of an open file under a new name. By the system's own copy, which shares blocks where the file system can; read and
 * written where a filter of system calls refuses that: Docker's before 18.09 answers EPERM to calls that it does not know.
 */
import { constants, copyFile, type FileHandle, open } from 'node:fs/promises';
import { descriptorPath } from '../held-paths.js';
import { errnoOf } from '../system/system-errors.js';

const PIECE_BYTES = 128 * 1024;

/** `flags` are those of `copyFile`. From the open file: a symlink that has replaced its name is not followed. */
export async function copyOpen(source: FileHandle, to: string | Buffer, flags: number): Promise<void> {
  try {
    await copyFile(descriptorPath(source.fd), to, flags);
  } catch (error) {
    if (errnoOf(error) !== 'EPERM') throw error;
    await copyPieces(source, to);
  }
}

/** Reads and writes; blocks of zeros become holes. */
export async function copyPieces(source: FileHandle, to: string | Buffer): Promise<void> {
  let target: FileHandle | undefined;
  try {
    target = await open(to, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    const piece = Buffer.allocUnsafe(PIECE_BYTES);
    const zeros = Buffer.alloc(PIECE_BYTES);
    let position = 0;
    for (;;) {
      const { bytesRead } = await source.read(piece, 0, PIECE_BYTES, position);
      if (bytesRead === 0) break;
      const bytes = piece.subarray(0, bytesRead);
      if (!bytes.equals(zeros.subarray(0, bytesRead))) await writeAll(target, bytes, position);
      position += bytesRead;
    }
    await target.truncate(position);
  } finally {
    await target?.close();
  }
}

async function writeAll(target: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await target.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
