/**
 * The write-ahead log: two files, of which one is written at a time. Every batch of commits is in it, and on disk, before it is
 * acknowledged. The tree (LMDB) gets the same commits later and in larger groups; a file whose commits it
 * has is written over from its beginning. At rest both files are there, empty, with blocks: the reserve with which a store
 * on a full disk still takes removals. Written for the commit queue; read by `recoverLog` at opening.
 *
 * When one file is full the log goes on in the other one, as the next generation, which begins with a mark. No commit of it is
 * acknowledged before the mark of the file that was left says so: an opening notices a file that is missing (recovery.ts).
 *
 * Durability: one write of one batch is under way at a time, through a descriptor that flushes (O_DSYNC). What a crash can
 * tear is therefore the last batch only, which was not acknowledged. Files are filled with zeros ahead of the writing, since
 * writing over allocated blocks takes the disk one flush instead of two.
 */
import { randomInt } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  readFileSync,
  readSync,
  write,
  writeSync,
} from 'node:fs';
import { present } from '../../../errors.js';
import { writeInPlace } from '../../../system/allocate.js';
import { openPrivate } from '../../../system/private-file.js';
import { syncDirectoryNow } from '../../../system/sync-directory.js';
import { isFull } from '../../../system/system-errors.js';
import { fileError } from '../disk/files.js';
import {
  BATCH_HEAD_BYTES,
  batchRevision,
  encodeMark,
  isOfMark,
  type Mark,
  sealBatch,
  tagOf,
} from './format.js';
import { logPaths, type Recovered } from './recovery.js';

/** A file this large is left for the other one as soon as that is free. */
const GENERATION_BYTES = 8 * 1024 * 1024;
/** Bytes of zeros that are written at a time, when fewer than half as many are left, and that stay when there are no commits. */
const AHEAD_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(AHEAD_BYTES);
const HEAD = Buffer.alloc(BATCH_HEAD_BYTES);
/** What a new file is given before anything else. */
const PAGE_BYTES = 4096;

/**
 * Empties the files: the tree has all their commits. Of their blocks the reserve stays. Nothing old is left after what is
 * written next, where it could be taken for something new.
 */
export function emptyLog(dir: string): void {
  for (const path of logPaths(dir)) if (existsSync(path)) emptyFile(path);
}

function emptyFile(path: string): void {
  try {
    const bytes = readFileSync(path);
    const kept = Math.min(bytes.length, AHEAD_BYTES);
    if (bytes.length === kept && bytes.equals(ZEROS.subarray(0, kept))) return;
    const fd = openPrivate(path, constants.O_RDWR);
    try {
      if (bytes.length > kept) ftruncateSync(fd, kept);
      for (let at = 0; at < kept; ) at += writeSync(fd, ZEROS, at, kept - at, at);
      fdatasyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw fileError('write', path, error);
  }
}

// --------------------------------------------------------------------------------------------------------- writing

interface LogFile {
  readonly path: string;
  readonly fd: number;
  /** Bytes that have blocks. */
  allocated: number;
  /** Bytes of this generation. */
  used: number;
  /** Newest revision in it. */
  revision: number;
  /** Undefined: empty, or of an earlier version. */
  mark: Mark | undefined;
}

export class Wal {
  readonly #dir: string;
  readonly #paths: readonly string[];
  readonly #files: (LogFile | undefined)[] = [undefined, undefined];
  #current = 0;
  #generation: number;
  #flushed: number;
  #growing: Promise<void> | undefined;
  #isAppending = false;
  /** There was no room to write ahead. */
  #isShort = false;
  /** A write to this file failed, and what it left has not been cut off. */
  #dirty: LogFile | undefined;
  /** What an owner before has written last, with its place: it can be read, but may not be on disk. */
  #unsure: { file: LogFile; last: Buffer; at: number }[] = [];
  /** The mark of this file does not say yet that the log has gone on in the other one. */
  #left: LogFile | undefined;

  /**
   * To be followed by `begin` or `resume`.
   * @param generation the newest one that was ever used in the directory, as far as is known
   */
  constructor(dir: string, generation: number, flushed: number) {
    this.#dir = dir;
    this.#paths = logPaths(dir);
    this.#generation = generation;
    this.#flushed = flushed;
  }

  /** The current one. */
  get generation(): number {
    return this.#generation;
  }

  /** Empties the files, whose commits the tree has. False: no room for a mark on the disk. */
  begin(): boolean {
    emptyLog(this.#dir);
    try {
      this.#beginGeneration(this.#open(this.#current));
      return true;
    } catch (error) {
      if (!isFull(error)) throw error;
      return false;
    }
  }

  /** Goes on after what was recovered: the tree could not take it yet. */
  resume({ filled, generation }: Recovered): void {
    for (const [index, place] of filled.entries()) {
      if (place === undefined) continue;
      const file = this.#open(index);
      const { used, size: allocated, revision, mark, last } = place;
      Object.assign(file, { used, allocated, revision, mark });
      this.#unsure.push({ file, last, at: used - last.length });
      if (place.generation !== generation) continue;
      this.#current = index;
      this.#generation = generation;
      // What the crash has torn must not be taken for damage later.
      try {
        this.#cut(file);
      } catch {
        this.#dirty = file;
      }
    }
    try {
      this.#settle();
    } catch {
      // The first batch tries again before it is written.
    }
  }

  /**
   * Writes again what was recovered last: its write may have failed, or its owner have ended before it was on disk, and the system
   * does not write again what it takes for written. A batch that came after it would be lost with it.
   */
  #settle(): void {
    for (const { file, last, at } of this.#unsure) writeWhole(file.fd, last, at);
    this.#unsure = [];
  }

  /** Bytes of commits that the tree does not have. */
  get bytes(): number {
    return this.#files.reduce(
      (sum, file) => sum + (file !== undefined && file.revision > this.#flushed ? file.used : 0),
      0,
    );
  }

  /**
   * Writes one batch; resolves when it is on disk. To be called again only when it has. After a failure nothing of the
   * batch will ever be found in the log.
   */
  async append(batch: Buffer): Promise<void> {
    this.#isAppending = true;
    try {
      await this.#append(batch);
    } finally {
      this.#isAppending = false;
    }
  }

  async #append(batch: Buffer): Promise<void> {
    const file = await this.#place(batch.length);
    try {
      if (this.#left !== undefined) await this.#leave(this.#left);
      if (this.#dirty !== undefined) this.#cut(this.#dirty);
      this.#settle();
      // Zeros must not land on what is written now.
      if (this.#growing !== undefined && file.used + batch.length > file.allocated) await this.#growing;
      sealBatch(batch, file.mark === undefined ? this.#generation : tagOf(file.mark));
      await writeAll(file.fd, batch, file.used);
    } catch (error) {
      this.#dirty ??= file;
      try {
        await this.#growing;
        this.#cut(this.#dirty);
      } catch {
        // The next batch tries again before it writes.
      }
      throw error;
    }
    file.used += batch.length;
    file.allocated = Math.max(file.allocated, file.used);
    file.revision = batchRevision(batch);
    if (file.allocated - file.used < AHEAD_BYTES / 2 && file.used < GENERATION_BYTES) this.#grow(file);
  }

  /**
   * Whether the disk has room for the blocks that are kept ahead; tries again when it had none. The reserve is made here, for
   * a store that has none yet.
   */
  keepReserve(): boolean {
    if (this.#isAppending || this.#growing !== undefined) return !this.#isShort;
    this.#isShort = false;
    for (const index of this.#paths.keys()) {
      try {
        const file = this.#open(index);
        if (file.allocated - file.used >= AHEAD_BYTES / 2 || file.used >= GENERATION_BYTES) continue;
        const end = file.allocated + AHEAD_BYTES;
        while (file.allocated < end)
          file.allocated += writeSync(file.fd, ZEROS, 0, end - file.allocated, file.allocated);
      } catch (error) {
        if (!isFull(error)) throw error;
        this.#isShort = true;
      }
    }
    return !this.#isShort;
  }

  /** On a full disk: takes what is beyond the reserve from files whose commits the tree has. False: there is nothing. */
  giveBack(): boolean {
    if (this.#isAppending || this.#growing !== undefined) return false;
    let gave = false;
    for (const file of this.#files) {
      if (file === undefined || file.revision > this.#flushed || file.allocated <= AHEAD_BYTES) continue;
      // The newest mark is never missing.
      if (file === this.#files[this.#current]) this.#beginGeneration(file);
      else this.#reuse(file, 0, undefined);
      ftruncateSync(file.fd, AHEAD_BYTES);
      for (let at = file.used; at < AHEAD_BYTES; ) at += writeSync(file.fd, ZEROS, at, AHEAD_BYTES - at, at);
      file.allocated = AHEAD_BYTES;
      if (this.#dirty === file) this.#dirty = undefined;
      if (this.#left === file) this.#left = undefined;
      gave = true;
    }
    return gave;
  }

  /** There are no blocks for a batch, until the tree has what is in one of the files. */
  isExhausted(size: number): boolean {
    const file = this.#files[this.#current];
    if (!this.#isShort || file === undefined || file.used + size <= file.allocated) return false;
    const other = this.#files[1 - this.#current];
    return other !== undefined && other.used > 0 && other.revision > this.#flushed;
  }

  /** Whether the current file begins as it was written: what a restore puts over an open one does not. */
  get isOurs(): boolean {
    const file = this.#files[this.#current];
    if (file?.mark === undefined) return true;
    readSync(file.fd, HEAD, 0, BATCH_HEAD_BYTES, 0);
    return isOfMark(HEAD, file.mark);
  }

  /** The tree has everything up to a revision. */
  flushed(revision: number): void {
    this.#flushed = revision;
  }

  /** Closes the files, and empties them when the tree has all that is in them and no longer relies on them. */
  async close(isReleased: boolean): Promise<void> {
    await this.#growing;
    const isApplied = isReleased && this.bytes === 0 && this.#dirty === undefined;
    for (const file of this.#files) if (file !== undefined) closeSync(file.fd);
    if (isApplied) emptyLog(this.#dir);
  }

  async #place(size: number): Promise<LogFile> {
    const file = this.#open(this.#current);
    const end = file.used + size;
    const isEmpty = file.used <= BATCH_HEAD_BYTES;
    if (isEmpty || (end <= GENERATION_BYTES && (!this.#isShort || end <= file.allocated))) return file;
    const other = this.#open(1 - this.#current);
    if (other.used > 0 && other.revision > this.#flushed) return file;
    // Without room on the disk, not to a file without blocks: what this one has takes a smaller batch.
    if (this.#isShort && other.allocated < BATCH_HEAD_BYTES + size) return file;
    const mark = this.#nextMark();
    await writeAll(other.fd, encodeMark(mark, false), 0);
    this.#begun(other, mark);
    if (file.mark !== undefined) this.#left = file;
    this.#current = 1 - this.#current;
    return other;
  }

  /** Before the first batch of the next generation is acknowledged. The mark is in one sector, which is written whole or not. */
  async #leave(file: LogFile): Promise<void> {
    if (file.mark !== undefined) await writeAll(file.fd, encodeMark(file.mark, true), 0);
    this.#left = undefined;
  }

  #beginGeneration(file: LogFile): void {
    const mark = this.#nextMark();
    const bytes = Buffer.alloc(file.allocated === 0 ? PAGE_BYTES : BATCH_HEAD_BYTES);
    encodeMark(mark, false).copy(bytes);
    writeWhole(file.fd, bytes, 0);
    file.allocated = Math.max(file.allocated, bytes.length);
    this.#begun(file, mark);
  }

  #nextMark(): Mark {
    const revision = this.#files.reduce(
      (newest, file) => Math.max(newest, file?.revision ?? 0),
      this.#flushed,
    );
    return { generation: ++this.#generation, revision, salt: randomInt(1, 2 ** 32) };
  }

  #begun(file: LogFile, mark: Mark): void {
    file.allocated = Math.max(file.allocated, BATCH_HEAD_BYTES);
    this.#reuse(file, BATCH_HEAD_BYTES, mark);
  }

  #reuse(file: LogFile, used: number, mark: Mark | undefined): void {
    Object.assign(file, { used, mark });
    this.#unsure = this.#unsure.filter((one) => one.file !== file);
  }

  #open(index: number): LogFile {
    const known = this.#files[index];
    if (known !== undefined) return known;
    const path = present(this.#paths[index], 'the path of a log file');
    try {
      const isNew = !existsSync(path);
      const fd = openPrivate(path, constants.O_RDWR | constants.O_CREAT | constants.O_DSYNC);
      if (isNew) {
        writeInPlace(fd);
        syncDirectoryNow(this.#dir);
      }
      const file = { path, fd, allocated: fstatSync(fd).size, used: 0, revision: 0, mark: undefined };
      this.#files[index] = file;
      return file;
    } catch (error) {
      throw fileError('make', path, error);
    }
  }

  /** Makes sure that what a failed write has left is not a batch. Keeps the blocks: a full disk still takes deletions. */
  #cut(file: LogFile): void {
    file.allocated = Math.max(file.allocated, file.used);
    ftruncateSync(file.fd, file.allocated);
    if (file.allocated > file.used) {
      const size = Math.min(BATCH_HEAD_BYTES, file.allocated - file.used);
      writeSync(file.fd, ZEROS, 0, size, file.used);
    } else fdatasyncSync(file.fd);
    this.#dirty = undefined;
  }

  #grow(file: LogFile): void {
    if (this.#growing !== undefined) return;
    const at = file.allocated;
    this.#growing = writeAll(file.fd, ZEROS, at)
      .then(
        () => {
          file.allocated = Math.max(file.allocated, at + ZEROS.length);
        },
        // Too little room for zeros need not be too little for commits: those that were written have blocks.
        () => {
          this.#isShort = true;
          file.allocated = Math.max(file.allocated, fstatSync(file.fd).size);
        },
      )
      .finally(() => {
        this.#growing = undefined;
      });
  }
}

function writeWhole(fd: number, bytes: Buffer, offset: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
}

async function writeAll(fd: number, bytes: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += await new Promise<number>((resolve, reject) => {
      write(fd, bytes, done, bytes.length - done, offset + done, (error, written) => {
        if (error) reject(error);
        else resolve(written);
      });
    });
  }
}
