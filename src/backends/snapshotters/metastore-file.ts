/**
 * The LMDB file of a snapshotter's metastore: opens it safely, and writes several entries in one durable
 * step. Called by metastore.ts alone.
 *
 * LMDB maps the file into memory and trusts it, so a file that is not LMDB's or was truncated is refused
 * before LMDB opens it, and never changed. A new file gets its name when it is complete and on disk, so that
 * a power cut leaves no partial one.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { open as openFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { failedPrecondition, notFound, openedReadOnly, unavailable, unknownError } from '../../errors.js';
import { allocate, writeInPlace } from '../../system/allocate.js';
import { lmdbLockPath, prepareFiles } from '../../system/lmdb/files.js';
import {
  type Database,
  lmdbSays,
  open,
  openReadOnly,
  type RootDatabase,
  type Snapshot,
  withoutPrinting,
} from '../../system/lmdb/lmdb.js';
import { awaitOlderReaders, type LockFile, Readers, takeNewest } from '../../system/lmdb/readers.js';
import { WrittenState } from '../../system/lmdb/written-state.js';
import { openPrivate } from '../../system/private-file.js';
import { syncDirectory } from '../../system/sync-directory.js';
import { errnoOf, fsError, isAbsent, messageOf } from '../../system/system-errors.js';
import { yieldToEventLoop } from '../files.js';

export type Table = Database<Buffer, Buffer>;

export interface TableWrite {
  table: Table;
  key: Buffer;
  /** Absent removes the key. */
  value?: Buffer | undefined;
}

const HEADER_BYTES = 160;
const MAGIC_OFFSET = 24;
const LMDB_MAGIC = 0xbeefc0de;
const BOLT_MAGIC_OFFSET = 16;
const BOLT_MAGIC = 0xed0cdaed;
const PAGE_SIZE_OFFSET = 48;
const LAST_PAGE_OFFSET = 144;
const TRANSACTION_OFFSET = 152;
/** Allocated bytes after the last page, so that snapshots can be removed on a full disk. */
const RESERVE_BYTES = 256 * 1024;
/** The newest pages of a valid file may never have been written if they were freed at once. */
const UNWRITTEN_PAGES_MAX = 64;

interface Owned {
  readonly fd: number;
  readonly readers: Readers | undefined;
  readonly written: WrittenState;
}

export class MetastoreFile {
  readonly path: string;
  /** False when the file was created. */
  readonly existed: boolean;
  readonly #root: RootDatabase<Buffer, Buffer>;
  /** Undefined: it is read-only. */
  readonly #owned: Owned | undefined;
  readonly #snapshot: Snapshot | undefined;
  /** Allocated bytes, as far as known. */
  #allocated = 0;

  private constructor(
    path: string,
    existed: boolean,
    root: RootDatabase<Buffer, Buffer>,
    access: { lock: number | undefined } | { snapshot: Snapshot },
  ) {
    this.path = path;
    this.existed = existed;
    this.#root = root;
    if ('snapshot' in access) {
      this.#snapshot = access.snapshot;
      return;
    }
    const fd = openSync(path, 'r+');
    const readers = access.lock === undefined ? undefined : new Readers(access.lock, fd, root);
    this.#owned = { fd, readers, written: new WrittenState(fd, path) };
    this.#hasReserve();
  }

  /**
   * Opens (or creates, 0600) the file, for up to this many tables.
   * @param lock of the owner; without one there can be no readers beside it
   */
  static async open(path: string, tables: number, lock: LockFile | undefined): Promise<MetastoreFile> {
    const existed = inspect(path);
    try {
      if (!existed) await create(path, tables);
      prepareFiles(path);
      if (lock !== undefined) await awaitOlderReaders(path, lock);
      return new MetastoreFile(path, existed, openEnvironment(path, tables), {
        lock: lock?.fd,
      });
    } catch (error) {
      throw fsError('open the snapshot metadata', path, error);
    }
  }

  /**
   * One state of the file (`take`), without a byte written; the lock announces a reader. NotFound: there is
   * no file.
   */
  static openToRead(path: string, tables: number): MetastoreFile {
    if (!inspect(path)) throw notFound(`there is no snapshot metadata ${path}`, { object: path });
    try {
      const { env, snapshot } = openReadOnly({ ...options, path, maxDbs: tables });
      return new MetastoreFile(path, true, env as RootDatabase<Buffer, Buffer>, { snapshot });
    } catch (error) {
      throw fsError('open the snapshot metadata', path, error);
    }
  }

  table(name: string): Table {
    return this.#root.openDB<Buffer, Buffer>({ name, encoding: 'binary', keyEncoding: 'binary' });
  }

  /** Read-only files, after their tables are open: reads see the newest state from now on. */
  take(): void {
    if (this.#snapshot !== undefined) takeNewest(this.#snapshot, this.path);
  }

  /** Read-only files: reads fail with this from now on. */
  end(why: Error): void {
    this.#snapshot?.end(why);
  }

  /**
   * Writes all of these or none; on disk when resolved. Unavailable when the disk refuses; nothing is stored
   * then.
   */
  async write(writes: readonly TableWrite[]): Promise<void> {
    if (this.#owned === undefined) throw openedReadOnly();
    const takesAway = writes.every(({ value }) => value === undefined);
    if (!takesAway && !this.#hasReserve()) {
      throw unavailable(`no space left for the snapshot metadata ${this.path}: only removals are possible`, {
        object: this.path,
        remedy: 'free disk space (removals and `ebbtide gc` work on a full disk too) and try again',
      });
    }
    const { readers, written } = this.#owned;
    written.verify();
    try {
      readers?.look();
      await withoutPrinting(() =>
        this.#root.batch(() => {
          for (const { table, key, value } of writes) {
            if (value === undefined) void table.remove(key);
            else void table.put(key, value);
          }
        }),
      );
    } catch (error) {
      const cause = await commitCause(error);
      // The cause says the same.
      lmdbSays();
      throw unavailable(`cannot write the snapshot metadata ${this.path}: ${messageOf(cause)}`, {
        object: this.path,
        remedy: 'free disk space or make the file writable, and try again',
        cause,
      });
    } finally {
      written.note();
    }
  }

  /** `read` sees the current state, until `release`. */
  freeze(): { read(table: Table, key: Buffer): Buffer | undefined; release(): void } {
    // Otherwise it may be the transaction of earlier reads in this event-loop turn.
    this.#root.resetReadTxn();
    const transaction = this.#root.useReadTransaction();
    // The typings of the package leave the options out.
    type Read = (this: Table, key: Buffer, options: object) => Buffer | undefined;
    return {
      read: (table, key) => (table.getBinary as Read).call(table, key, { transaction }),
      release: () => transaction.done(),
    };
  }

  /** Keeps the reserve; returns false when the disk has no space for it. */
  #hasReserve(): boolean {
    if (this.#owned === undefined) return true;
    const { fd } = this.#owned;
    try {
      const used = usedBytes(fd);
      const wanted = used + RESERVE_BYTES;
      if (used + RESERVE_BYTES / 2 <= this.#allocated) return true;
      if (!allocate(fd, this.#allocated, wanted - this.#allocated)) return false;
      this.#allocated = wanted;
      return true;
    } catch (error) {
      throw fsError('read the snapshot metadata', this.path, error);
    }
  }

  async close(): Promise<void> {
    this.#owned?.readers?.release();
    await this.#root.close();
    if (this.#owned !== undefined) closeSync(this.#owned.fd);
  }
}

const options = {
  noSubdir: true,
  encoding: 'binary',
  keyEncoding: 'binary',
  // A resolved write is on disk, not merely visible.
  overlappingSync: false,
  // With its own batching per event turn a failed commit also rejects a promise that no caller can reach.
  eventTurnBatching: false,
  // Beyond these a long free list costs tens of milliseconds in every commit.
  ...{ maxFreeSpaceToLoad: 1000, maxFreeSpaceToRetain: 2000 },
} as const;

const openEnvironment = (path: string, tables: number): RootDatabase<Buffer, Buffer> =>
  open<Buffer, Buffer>({ ...options, path, maxDbs: tables });

async function create(path: string, tables: number): Promise<void> {
  const draft = `${path}.new`;
  const lock = lmdbLockPath(draft);
  for (const name of [draft, lock]) await rm(name, { force: true });
  const fd = openPrivate(draft, constants.O_RDWR | constants.O_CREAT);
  writeInPlace(fd);
  closeSync(fd);
  prepareFiles(draft);
  await openEnvironment(draft, tables).close();
  const handle = await openFile(draft, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rm(lock, { force: true });
  await rename(draft, path);
  await syncDirectory(dirname(path));
}

/** A failed commit has its reason in a promise of its own, which must not stay unhandled. */
async function commitCause(error: unknown): Promise<unknown> {
  if (!(error instanceof Error) || !('commitError' in error)) return error;
  const reason = Promise.resolve(error.commitError).catch((cause: unknown) => cause);
  const outcome = await Promise.race([reason, yieldToEventLoop()]);
  return outcome instanceof Error ? outcome : error;
}

/**
 * Returns true when there is a valid file, false when there is none (or an empty one); throws for anything
 * else.
 */
function inspect(path: string): boolean {
  let fd: number;
  try {
    // A pipe in its place must not block.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (isAbsent(error)) return false;
    throw fsError('open the snapshot metadata', path, error);
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) throw notOurs(path, 'it is not a regular file');
    if (stats.size === 0) return false;
    checkHeaders(path, fd, stats.size);
    return true;
  } catch (error) {
    throw errnoOf(error) === undefined ? error : fsError('read the snapshot metadata', path, error);
  } finally {
    closeSync(fd);
  }
}

function checkHeaders(path: string, fd: number, size: number): void {
  const first = readHeader(fd, 0);
  if (first.readUInt32LE(BOLT_MAGIC_OFFSET) === BOLT_MAGIC) {
    throw notOurs(path, "it is containerd's own (a bolt file)");
  }
  if (first.readUInt32LE(MAGIC_OFFSET) !== LMDB_MAGIC) throw notOurs(path, 'it is not an LMDB file');
  const pageBytes = first.readUInt32LE(PAGE_SIZE_OFFSET);
  const second = readHeader(fd, pageBytes);
  if (second.readUInt32LE(MAGIC_OFFSET) !== LMDB_MAGIC) throw damaged(path, 'its second header is missing');
  const pages = pagesOf(first, second);
  const missing = pages - Math.floor(size / pageBytes);
  if (missing > UNWRITTEN_PAGES_MAX) throw damaged(path, `${missing} of its ${pages} pages are missing`);
}

function pagesOf(first: Buffer, second: Buffer): number {
  const newer =
    second.readBigUInt64LE(TRANSACTION_OFFSET) > first.readBigUInt64LE(TRANSACTION_OFFSET) ? second : first;
  return Number(newer.readBigUInt64LE(LAST_PAGE_OFFSET)) + 1;
}

/** End of the pages in use, in bytes. */
function usedBytes(fd: number): number {
  const first = readHeader(fd, 0);
  const pageBytes = first.readUInt32LE(PAGE_SIZE_OFFSET);
  return pagesOf(first, readHeader(fd, pageBytes)) * pageBytes;
}

function readHeader(fd: number, position: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  readSync(fd, header, 0, HEADER_BYTES, position);
  return header;
}

const notOurs = (path: string, reason: string): Error =>
  failedPrecondition(`${path} is not this snapshotter's metadata: ${reason}`, {
    object: path,
    remedy: 'use another root directory, or move the file away',
  });

const damaged = (path: string, reason: string): Error =>
  unknownError(`${path} is damaged: ${reason}`, {
    object: path,
    remedy: 'restore the file from a backup; the snapshot directories beside it are untouched',
  });
