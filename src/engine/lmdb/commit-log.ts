/**
 * The commit log: two files that take turns, into which every batch of commits is written, and flushed, before anybody is
 * told that it is stored. The tree (LMDB) gets the same commits later and in larger groups; a file whose commits it
 * has is written over from its beginning. At rest both files are there, empty, with blocks: the reserve with which a store
 * on a full disk still takes removals. Called by the writer; read by `recoverLog` at opening.
 *
 * Durability: one write of one batch is under way at a time, through a descriptor that flushes (O_DSYNC). What a crash can
 * tear is therefore the last batch only, which nobody was told of. Files are filled with zeros ahead of the writing, since
 * writing over allocated blocks takes the disk one flush instead of two.
 */
import {
  closeSync,
  constants,
  existsSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  readFileSync,
  write,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { unknownError } from '../../errors.js';
import { isFull } from '../../system/system-errors.js';
import { fileError, foreign, openPrivate, syncDirectory } from './files.js';
import { BATCH_HEAD_BYTES, BATCH_MAGIC, batchAt, batchRevision, sealBatch } from './log-format.js';

/** A file this large is left for the other one as soon as that is free. */
const TURN_BYTES = 8 * 1024 * 1024;
/** Bytes of zeros that are written at a time, when fewer than half as many are left, and that stay when there are no commits. */
const AHEAD_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(AHEAD_BYTES);
const NAMES = ['log.0', 'log.1'] as const;

const pathsIn = (dir: string): string[] => NAMES.map((name) => join(dir, name));

// ------------------------------------------------------------------------------------------------------ recovering

export interface Recovered {
  /** Whole batches that the tree does not have, oldest first. */
  batches: Buffer[];
  /** The newest one used in the directory. */
  generation: number;
  /** How far each file is filled. */
  filled: readonly ({ used: number; size: number; revision: number; generation: number } | undefined)[];
}

/** Reads what is behind a revision. Unknown when there is a gap: commits that were acknowledged are missing. */
export function recoverLog(dir: string, applied: number): Recovered {
  const found = pathsIn(dir).map((path) => (existsSync(path) ? readBatches(path, applied) : undefined));
  const files = found.filter((file) => file !== undefined && file.generation > 0) as Found[];
  files.sort((a, b) => a.generation - b.generation);
  const batches: Buffer[] = [];
  let revision = applied;
  for (const [i, { path, found: inFile, torn }] of files.entries()) {
    // Only what was written last can be torn, and what the tree has: a power cut leaves a part of a file that is emptied.
    const isApplied = batchRevision(inFile[inFile.length - 1]!) < applied;
    if (torn && !isApplied && i + 1 < files.length) throw damagedLog(path);
    for (const batch of inFile) {
      if (batchRevision(batch) <= revision) continue;
      if (batch.readDoubleLE(16) !== revision) throw damagedLog(path);
      revision = batchRevision(batch);
      batches.push(batch);
    }
  }
  const filled = found.map((file) => {
    const last = file?.found[file.found.length - 1];
    if (file === undefined || last === undefined) return undefined;
    const { used, size, generation } = file;
    return { used, size, generation, revision: batchRevision(last) };
  });
  return { batches, generation: files[files.length - 1]?.generation ?? 0, filled };
}

interface Found {
  path: string;
  /** 0: nothing in it. */
  generation: number;
  found: Buffer[];
  used: number;
  size: number;
  /** Something follows the last whole batch that belongs to the same generation. */
  torn: boolean;
}

function readBatches(path: string, applied: number): Found {
  let log: Buffer;
  try {
    if (!lstatSync(path).isFile()) throw foreign(path, 'it is no regular file');
    log = readFileSync(path);
  } catch (error) {
    throw fileError('read', path, error);
  }
  const found: Buffer[] = [];
  let generation = 0;
  let at = 0;
  for (let next = batchAt(log, at); next !== undefined; next = batchAt(log, at)) {
    if (found.length === 0) generation = next.generation;
    else if (next.generation !== generation) break;
    found.push(next.batch);
    at += next.batch.length;
  }
  // A whole batch behind one that is not: what was acknowledged has been damaged since, unless the tree has it.
  for (
    let behind = log.indexOf(MAGIC_BYTES, at + 1);
    behind >= 0;
    behind = log.indexOf(MAGIC_BYTES, behind + 1)
  ) {
    const next = batchAt(log, behind);
    const isNewer =
      next?.generation === generation && batchRevision(next.batch) > batchRevision(found[found.length - 1]!);
    if (isNewer && batchRevision(next.batch) > applied) throw damagedLog(path);
  }
  const torn =
    at + 8 <= log.length && log.readUInt32LE(at) === BATCH_MAGIC && log.readUInt32LE(at + 4) === generation;
  return { path, generation, found, used: at, size: log.length, torn };
}

const MAGIC_BYTES = Buffer.alloc(4);
MAGIC_BYTES.writeUInt32LE(BATCH_MAGIC);

const damagedLog = (path: string) =>
  unknownError(`the commit log ${path} is damaged: acknowledged commits are missing`, {
    object: path,
    remedy: 'restore the store from a copy, or move log.0 and log.1 away to go back to before them',
  });

/**
 * Empties the files: the tree has all their commits. Of their blocks the reserve stays. Nothing old is left behind what is
 * written next, where it could be taken for something new.
 */
export function emptyLog(dir: string): void {
  for (const path of pathsIn(dir)) if (existsSync(path)) emptyFile(path);
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
  /** Bytes of this turn. */
  used: number;
  /** Newest revision in it. */
  revision: number;
}

export class CommitLog {
  readonly #dir: string;
  readonly #files: (LogFile | undefined)[] = [undefined, undefined];
  #current = 0;
  #generation: number;
  #applied: number;
  #growing: Promise<void> | undefined;
  #isAppending = false;
  /** There was no room to write ahead. */
  #isShort = false;
  /** A write to this file failed, and what it left has not been cut off. */
  #dirty: LogFile | undefined;

  /** @param recovered what is in the directory; its files are empty unless `resume` is called */
  constructor(dir: string, recovered: Recovered, applied: number) {
    this.#dir = dir;
    this.#generation = recovered.generation + 1;
    this.#applied = applied;
  }

  /** Goes on behind what was recovered: the tree could not take it yet. */
  resume({ filled, generation }: Recovered): void {
    for (const [index, place] of filled.entries()) {
      if (place === undefined) continue;
      const file = this.#open(index);
      Object.assign(file, { used: place.used, allocated: place.size, revision: place.revision });
      if (place.generation !== generation) continue;
      this.#current = index;
      this.#generation = generation;
      // What the crash has torn must not be taken for damage later.
      this.#dirty = file;
    }
  }

  /** Bytes of commits that the tree does not have. */
  get bytes(): number {
    return this.#files.reduce(
      (sum, file) => sum + (file !== undefined && file.revision > this.#applied ? file.used : 0),
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
    const file = this.#place(batch.length);
    try {
      if (this.#dirty !== undefined) this.#cut(this.#dirty);
      // Zeros must not land on what is written now.
      if (this.#growing !== undefined && file.used + batch.length > file.allocated) await this.#growing;
      sealBatch(batch, this.#generation);
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
    if (file.allocated - file.used < AHEAD_BYTES / 2 && file.used < TURN_BYTES) this.#grow(file);
  }

  /**
   * Whether the disk has room for the blocks that are kept ahead; tries again when it had none. The reserve is made here, for
   * a store that has none yet.
   */
  keepReserve(): boolean {
    if (this.#isAppending || this.#growing !== undefined) return !this.#isShort;
    this.#isShort = false;
    for (const index of NAMES.keys()) {
      try {
        const file = this.#open(index);
        if (file.allocated - file.used >= AHEAD_BYTES / 2 || file.used >= TURN_BYTES) continue;
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
      if (file === undefined || file.revision > this.#applied || file.allocated <= AHEAD_BYTES) continue;
      ftruncateSync(file.fd, AHEAD_BYTES);
      for (let at = 0; at < AHEAD_BYTES; ) at += writeSync(file.fd, ZEROS, at, AHEAD_BYTES - at, at);
      Object.assign(file, { used: 0, allocated: AHEAD_BYTES });
      if (this.#dirty === file) this.#dirty = undefined;
      this.#generation++;
      gave = true;
    }
    return gave;
  }

  /** There are no blocks for a batch, until the tree has what is in one of the files. */
  isExhausted(size: number): boolean {
    const file = this.#files[this.#current];
    if (!this.#isShort || file === undefined || file.used + size <= file.allocated) return false;
    const other = this.#files[1 - this.#current];
    return other !== undefined && other.used > 0 && other.revision > this.#applied;
  }

  /** The tree has everything up to a revision. */
  applied(revision: number): void {
    this.#applied = revision;
  }

  /** Closes the files, and empties them when the tree has all that is in them. */
  async close(): Promise<void> {
    await this.#growing;
    const isApplied = this.bytes === 0 && this.#dirty === undefined;
    for (const file of this.#files) if (file !== undefined) closeSync(file.fd);
    if (isApplied) emptyLog(this.#dir);
  }

  #place(size: number): LogFile {
    const file = this.#open(this.#current);
    const end = file.used + size;
    if (file.used === 0 || (end <= TURN_BYTES && (!this.#isShort || end <= file.allocated))) return file;
    const other = this.#open(1 - this.#current);
    if (other.used > 0 && other.revision > this.#applied) return file;
    // Without room on the disk, not to a file without blocks: what this one has takes a smaller batch.
    if (this.#isShort && other.allocated < size) return file;
    this.#current = 1 - this.#current;
    this.#generation++;
    other.used = 0;
    return other;
  }

  #open(index: number): LogFile {
    const known = this.#files[index];
    if (known !== undefined) return known;
    const path = join(this.#dir, NAMES[index]!);
    try {
      const isNew = !existsSync(path);
      const fd = openPrivate(path, constants.O_RDWR | constants.O_CREAT | constants.O_DSYNC);
      if (isNew) syncDirectory(this.#dir);
      const file = { path, fd, allocated: fstatSync(fd).size, used: 0, revision: 0 };
      this.#files[index] = file;
      return file;
    } catch (error) {
      throw fileError('make', path, error);
    }
  }

  /** Makes sure that what a failed write has left is no batch. Keeps the blocks: a full disk still takes deletions. */
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
