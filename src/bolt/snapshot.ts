/**
 * One state of a bbolt file, read while another process writes it: no lock, no open for writing. Called by readers of
 * other programs' files.
 *
 * bbolt never writes a page that the newest committed transaction can reach, and gives the pages that a transaction freed to the
 * next one at the earliest. So what was read between two looks at the meta pages that show the same newest transaction is of that
 * transaction. Otherwise all is read again, each time beginning after a commit that was just seen, since the next is
 * farthest then. Memory: as much as the file has pages in use.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { failedPrecondition, notFound, throwIfAborted, unavailable } from '../errors.js';
import { errnoOf, fsError, isAbsent } from '../system/system-errors.js';
import { BoltDamage, META_BYTES, type Meta, PAGE_HEADER_BYTES, PAGE_SIZES, parseMeta } from './format.js';

export interface BoltSnapshot {
  /** For messages. */
  readonly path: string;
  /** Pages 0 to `meta.highWater`, or what the file has of them. */
  readonly bytes: Buffer;
  readonly meta: Meta;
  /** Times that the file was read before it stood still. */
  readonly retries: number;
}

export interface SnapshotOptions {
  readonly signal?: AbortSignal | undefined;
  /** Readings before Unavailable. */
  readonly readingsMax?: number;
}

const READINGS_MAX = 60;
const CHUNK_BYTES = 8 * 1024 * 1024;
/** As many threads as Node has for files. */
const LANES = 4;
/** Larger ones are not files that this is for. */
const BYTES_MAX = 16 * 1024 * 1024 * 1024;
/** How long to wait for a commit before the next reading, which then has longest. */
const WAIT_STEP_MS = 2;
const WAIT_STEPS = 25;

/**
 * NotFound; FailedPrecondition for what is not a bbolt file; Unavailable when it never stood still for as long as a reading takes.
 */
export async function readBolt(path: string, options: SnapshotOptions = {}): Promise<BoltSnapshot> {
  const { signal, readingsMax = READINGS_MAX } = options;
  const file = await openQuietly(path);
  try {
    let bytes: Buffer = Buffer.alloc(0);
    for (let retries = 0; retries < readingsMax; retries++) {
      throwIfAborted(signal);
      const meta = await newestMeta(file, path);
      const size = meta.highWater * meta.pageSize;
      if (size > BYTES_MAX)
        throw new BoltDamage(path, `it says that it has ${size} bytes, more than ${BYTES_MAX} are not read`);
      const length = Math.min(size, (await file.stat()).size);
      if (bytes.length < length) bytes = allocate(path, length);
      await readAll(file, bytes.subarray(0, length), signal);
      const after = await newestMeta(file, path);
      if (after.transaction === meta.transaction && after.root === meta.root)
        return { path, bytes: bytes.subarray(0, length), meta, retries };
      await nextCommit(file, path, after);
    }
  } catch (error) {
    if (errnoOf(error) !== undefined) throw fsError('read', path, error);
    throw error;
  } finally {
    await file.close();
  }
  throw unavailable(`${path} was changed each of the ${readingsMax} times that it was read`, {
    object: path,
    remedy: 'try again when its owner commits less, or read a copy that a snapshot of the file system has',
  });
}

/** All bytes of a file without a writer, whatever they are. NotFound; Unavailable without the memory for them. */
export async function readRaw(path: string, signal?: AbortSignal): Promise<Buffer> {
  const file = await openQuietly(path);
  try {
    const bytes = allocate(path, (await file.stat()).size);
    await readAll(file, bytes, signal);
    return bytes;
  } catch (error) {
    if (errnoOf(error) !== undefined) throw fsError('read', path, error);
    throw error;
  } finally {
    await file.close();
  }
}

/** The newest transaction of the file. A cheap way to see whether it changed. */
export async function boltTransaction(path: string): Promise<bigint> {
  const file = await openQuietly(path);
  try {
    return (await newestMeta(file, path)).transaction;
  } finally {
    await file.close();
  }
}

/** Without an access time on the file, where that is allowed; a pipe in its place must not block. */
async function openQuietly(path: string): Promise<FileHandle> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK;
  try {
    const file = await open(path, flags | constants.O_NOATIME).catch((error: unknown) => {
      if (errnoOf(error) !== 'EPERM') throw error;
      return open(path, flags);
    });
    if ((await file.stat()).isFile()) return file;
    await file.close();
  } catch (error) {
    if (isAbsent(error)) throw notFound(`there is no ${path}`, { object: path, cause: error });
    throw fsError('open', path, error);
  }
  throw failedPrecondition(`${path} is not a regular file`, { object: path });
}

/** A page size is known from the other meta only: where the second one is follows from it, unless the first is torn. */
async function newestMeta(file: FileHandle, path: string): Promise<Meta> {
  const first = await metaAt(file, 0);
  const places = first === undefined ? PAGE_SIZES : [first.pageSize];
  let newest = first;
  for (const size of places) {
    const second = await metaAt(file, size);
    if (second === undefined || second.pageSize !== size) continue;
    if (newest === undefined || second.transaction > newest.transaction) newest = second;
  }
  if (newest !== undefined) return newest;
  const { size } = await file.stat();
  if (size === 0) throw failedPrecondition(`${path} is empty: its owner has not begun it`, { object: path });
  throw new BoltDamage(path, 'neither of its meta pages is valid, or it is not a bbolt file');
}

async function metaAt(file: FileHandle, page: number): Promise<Meta | undefined> {
  const bytes = Buffer.alloc(META_BYTES);
  const { bytesRead } = await file.read(bytes, 0, META_BYTES, page + PAGE_HEADER_BYTES);
  return parseMeta(bytes.subarray(0, bytesRead), 0);
}

function allocate(path: string, length: number): Buffer {
  try {
    return Buffer.allocUnsafeSlow(length);
  } catch (error) {
    throw unavailable(`there is no memory for the ${length} bytes of ${path}`, {
      object: path,
      remedy: 'free memory, or read a compacted copy of the file',
      cause: error,
    });
  }
}

/** Several chunks at once: the shorter a reading takes, the fewer commits come between. */
async function readAll(file: FileHandle, bytes: Buffer, signal: AbortSignal | undefined): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let at = next; at < bytes.length; at = next) {
      throwIfAborted(signal);
      next += CHUNK_BYTES;
      await readChunk(file, bytes, at, Math.min(at + CHUNK_BYTES, bytes.length));
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

async function readChunk(file: FileHandle, bytes: Buffer, start: number, end: number): Promise<void> {
  for (let at = start; at < end; ) {
    const { bytesRead } = await file.read(bytes, at, end - at, at);
    if (bytesRead === 0) {
      // Cut short meanwhile: no page beyond is found.
      bytes.fill(0, at, end);
      return;
    }
    at += bytesRead;
  }
}

async function nextCommit(file: FileHandle, path: string, { transaction }: Meta): Promise<void> {
  for (let step = 0; step < WAIT_STEPS; step++) {
    await sleep(WAIT_STEP_MS);
    if ((await newestMeta(file, path)).transaction !== transaction) return;
  }
}
