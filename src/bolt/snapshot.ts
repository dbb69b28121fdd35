/**
 * One state of a bbolt file, read while another process writes it: no lock, no open for writing. Called by readers of
 * other programs' files.
 *
 * bbolt never writes a page that the newest committed transaction can reach, and gives the pages that a transaction freed to the
 * next one at the earliest. So what was read between two looks at the meta pages that show the same newest transaction is of that
 * transaction. Otherwise all is read again, each time beginning after a commit that was just seen, since the next is
 * farthest then. Memory: what is used of the file's pages.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { failedPrecondition, notFound, throwIfAborted, unavailable } from '../errors.js';
import { errnoOf, fsError, isAbsent } from '../system/system-errors.js';
import { BoltDamage, META_BYTES, type Meta, PAGE_HEADER_BYTES, PAGE_SIZES, parseMeta } from './format.js';
import { allocate, Pages } from './pages.js';

export interface BoltSnapshot {
  /** Those below `meta.highWater`, or what the file has of them. */
  readonly pages: Pages;
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
/** Several are read at once, by as many threads as Node has for files: the shorter a reading takes, the fewer commits come between. */
const CHUNK_BYTES = 2 * 1024 * 1024;
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
    for (let retries = 0; retries < readingsMax; retries++) {
      throwIfAborted(signal);
      const meta = await newestMeta(file, path);
      const size = meta.highWater * meta.pageSize;
      if (size > BYTES_MAX)
        throw new BoltDamage(path, `it says that it has ${size} bytes, more than ${BYTES_MAX} are not read`);
      const length = Math.min(size, (await file.stat()).size);
      const pages = new Pages(path, meta, length);
      for await (const chunk of chunksOf(file, length)) {
        pages.keep(chunk);
        throwIfAborted(signal);
      }
      const after = await newestMeta(file, path);
      if (after.transaction === meta.transaction && after.root === meta.root) return { pages, meta, retries };
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
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      throwIfAborted(signal);
      await readChunk(file, bytes.subarray(at, at + CHUNK_BYTES), at);
    }
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

/** The bytes of a file up to `length`, in order; each chunk is good until the next one is asked for. */
async function* chunksOf(file: FileHandle, length: number): AsyncGenerator<Buffer> {
  const reads: Promise<Buffer>[] = [];
  let next = 0;
  const read = (buffer: Buffer): void => {
    if (next >= length) return;
    const reading = readChunk(file, buffer.subarray(0, length - next), next);
    // The error is that of the one that is waited for.
    reading.catch(() => undefined);
    reads.push(reading);
    next += CHUNK_BYTES;
  };
  for (let lane = 0; lane < LANES; lane++) read(Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, length)));
  for (let first = reads.shift(); first !== undefined; first = reads.shift()) {
    const chunk = await first;
    yield chunk;
    read(chunk);
  }
}

async function readChunk(file: FileHandle, bytes: Buffer, start: number): Promise<Buffer> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, start + done);
    // Cut short meanwhile: no page beyond is found.
    if (bytesRead === 0) return bytes.fill(0, done);
    done += bytesRead;
  }
  return bytes;
}

async function nextCommit(file: FileHandle, path: string, { transaction }: Meta): Promise<void> {
  for (let step = 0; step < WAIT_STEPS; step++) {
    await sleep(WAIT_STEP_MS);
    if ((await newestMeta(file, path)).transaction !== transaction) return;
  }
}
