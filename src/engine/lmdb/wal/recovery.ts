/**
 * What a write-ahead log has that the tree lacks, and whether something is missing. Called at opening; the files are only read.
 *
 * A crash can tear the batch that was written last, which was not acknowledged, and a power cut leaves a part of a file that was being
 * emptied, whose commits the tree has. Everything else is a loss of what was acknowledged: a batch that is whole after one
 * that is not, a gap between batches, and files that are not there. For the last, each generation begins with a mark. The
 * tree knows of one that was written before its owner's first commit (`begun`); the mark of a file that was left says that
 * there is a newer one.
 */
import { existsSync, lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type EbbtideError, failedPrecondition, unknownError } from '../../../errors.js';
import { fileError, foreign } from '../disk/files.js';
import { CrcRanges } from './crc-ranges.js';
import {
  BATCH_HEAD_BYTES,
  BATCH_MAGIC,
  batchAt,
  batchRevision,
  type Checksum,
  decodeMark,
  isLeft,
  isMark,
  type Mark,
  tagOf,
} from './format.js';

const NAMES = ['log.0', 'log.1'] as const;

export const logPaths = (dir: string): string[] => NAMES.map((name) => join(dir, name));

/** Made by the operator: go on without what is missing. */
export const acceptedLossPath = (dir: string): string => join(dir, 'log.lost');

/** How far a file is filled. */
export interface Filled {
  used: number;
  size: number;
  revision: number;
  generation: number;
  /** Files of earlier versions begin with a commit. */
  mark: Mark | undefined;
  /** What was written last: a batch, or the mark. */
  last: Buffer;
}

export interface Recovered {
  /** Whole batches that the tree does not have, oldest first. */
  batches: Buffer[];
  /** The newest one used in the directory. */
  generation: number;
  /** By file. */
  filled: readonly (Filled | undefined)[];
  /** What is missing, when that was accepted. */
  loss: EbbtideError | undefined;
}

export interface Expected {
  /** Newest revision that the tree has. */
  flushed: number;
  /** A generation that was in the log once; undefined: there need be no log. */
  begun?: number | undefined;
  /** Whether the owner writes marks: a file that begins with neither mark nor batch is empty then. Default: when one was begun. */
  hasMarks?: boolean;
  /** Returns what there is up to the first loss, instead of failing. */
  acceptsLoss?: boolean;
}

/** Bytes of the files; undefined: not there. */
export type LogBytes = readonly (Buffer | undefined)[];

export const readLog = (dir: string): LogBytes => logPaths(dir).map(readFile);

/** Unknown: damaged. FailedPrecondition: a file is missing, or older than the tree. In both cases acknowledged commits are. */
export function recoverLog(dir: string, expected: Expected, log: LogBytes = readLog(dir)): Recovered {
  const { flushed, begun, hasMarks = begun !== undefined, acceptsLoss = false } = expected;
  const found = logPaths(dir).map((path, i) => {
    const bytes = log[i];
    return bytes === undefined ? undefined : generationIn(path, bytes, flushed, hasMarks);
  });
  const generations = found.filter((one) => one !== undefined && one.generation > 0) as Generation[];
  generations.sort((a, b) => a.generation - b.generation);
  const batches: Buffer[] = [];
  const damaged = follow(generations, flushed, batches);
  const loss =
    damaged !== undefined
      ? damagedLog(damaged)
      : isIncomplete(generations, flushed, begun)
        ? lossOf(dir, found)
        : undefined;
  if (loss !== undefined && !acceptsLoss) throw loss;
  return {
    batches,
    generation: generations[generations.length - 1]?.generation ?? 0,
    filled: found.map(filledOf),
    loss,
  };
}

/** What a file has of one generation. */
interface Generation {
  path: string;
  /** 0: nothing in it. */
  generation: number;
  mark: Mark | undefined;
  found: Buffer[];
  used: number;
  size: number;
  /** Something follows the last whole batch that belongs to the same generation. */
  torn: boolean;
  /** A whole batch that the tree lacks follows one that is not whole. */
  broken: boolean;
  /** It begins with something that is neither zeros nor whole. */
  headless: boolean;
}

function readFile(path: string): Buffer | undefined {
  if (!existsSync(path)) return undefined;
  try {
    if (!lstatSync(path).isFile()) throw foreign(path, 'it is not a regular file');
    return readFileSync(path);
  } catch (error) {
    throw fileError('read', path, error);
  }
}

function generationIn(path: string, log: Buffer, flushed: number, hasMarks: boolean): Generation {
  const found: Buffer[] = [];
  let at = 0;
  const first = batchAt(log, 0);
  const mark = first !== undefined && isMark(first.batch) ? decodeMark(first.batch) : undefined;
  const tag = mark === undefined ? first?.tag : tagOf(mark);
  for (let next = first; next !== undefined; next = batchAt(log, at)) {
    if (found.length > 0 && next.tag !== tag) break;
    found.push(next.batch);
    at += next.batch.length;
  }
  const torn =
    at + 8 <= log.length && log.readUInt32LE(at) === BATCH_MAGIC && log.readUInt32LE(at + 4) === tag;
  const newer =
    tag === undefined && hasMarks ? undefined : newerAfter(log, at, Math.max(flushed, endOf(found)), tag);
  return {
    ...{ path, mark, found, torn },
    generation: mark?.generation ?? tag ?? newer?.tag ?? 0,
    used: at,
    size: log.length,
    broken: newer !== undefined,
    headless: first === undefined && log.subarray(0, BATCH_HEAD_BYTES).some((byte) => byte !== 0),
  };
}

/**
 * A whole batch of this generation with a revision above this one. A file is used again when the tree has all that is in it, so what
 * an earlier generation left is never newer; where the tag is not known, any will do.
 */
function newerAfter(
  log: Buffer,
  at: number,
  revision: number,
  tag: number | undefined,
): ReturnType<typeof batchAt> {
  let ranges: CrcRanges | undefined;
  const checksum: Checksum = (start, end, seed) => {
    ranges ??= new CrcRanges(log);
    return ranges.of(start, end, seed);
  };
  for (let next = log.indexOf(MAGIC_BYTES, at); next >= 0; next = log.indexOf(MAGIC_BYTES, next + 1)) {
    if (tag !== undefined && next + 8 <= log.length && log.readUInt32LE(next + 4) !== tag) continue;
    const found = batchAt(log, next, checksum);
    if (found !== undefined && batchRevision(found.batch) > revision) return found;
  }
  return undefined;
}

const MAGIC_BYTES = Buffer.alloc(4);
MAGIC_BYTES.writeUInt32LE(BATCH_MAGIC);

function endOf(found: readonly Buffer[]): number {
  const last = found.at(-1);
  return last === undefined ? 0 : batchRevision(last);
}

/** Adds the batches that follow one another; returns the file in which they cease to. */
function follow(generations: readonly Generation[], flushed: number, batches: Buffer[]): string | undefined {
  let revision = flushed;
  for (const [i, { path, found, torn, broken }] of generations.entries()) {
    for (const batch of found) {
      if (batchRevision(batch) <= revision) continue;
      if (batch.readDoubleLE(16) !== revision) return path;
      revision = batchRevision(batch);
      batches.push(batch);
    }
    if (broken) return path;
    // Only what was written last can be torn, and what the tree has.
    const isWrittenLast = !hasCommits(generations.slice(i + 1)) && !isLeftBehind(found);
    if (torn && !isWrittenLast && endOf(found) >= flushed) return path;
  }
  return undefined;
}

const hasCommits = (generations: readonly Generation[]): boolean =>
  generations.some(({ found }) => found.some((batch) => !isMark(batch)));

const isLeftBehind = (found: readonly Buffer[]): boolean => found[0] !== undefined && isLeft(found[0]);

/** Whether a file is missing, or an older copy of itself. Without `begun` the files may be of any age. */
function isIncomplete(
  generations: readonly Generation[],
  flushed: number,
  begun: number | undefined,
): boolean {
  if (begun === undefined) return false;
  const newest = generations[generations.length - 1];
  if (newest === undefined || newest.generation < begun || isLeftBehind(newest.found)) return true;
  return Math.max(...generations.map(({ found }) => endOf(found))) < flushed;
}

function filledOf(read: Generation | undefined): Filled | undefined {
  const last = read?.found.at(-1);
  if (read === undefined || last === undefined) return undefined;
  const { used, size, generation, mark } = read;
  return { used, size, generation, revision: batchRevision(last), mark, last };
}

function lossOf(dir: string, found: readonly (Generation | undefined)[]): EbbtideError {
  const headless = found.find((one) => one?.headless);
  return headless === undefined ? lostLog(dir) : damagedLog(headless.path);
}

const accepting = (dir: string): string =>
  `to go on without these commits, make an empty file ${acceptedLossPath(dir)}`;

const damagedLog = (path: string): EbbtideError =>
  unknownError(`the write-ahead log ${path} is damaged: acknowledged commits are missing`, {
    object: path,
    remedy: `restore the store from a copy; ${accepting(join(path, '..'))}`,
  });

const lostLog = (dir: string): EbbtideError =>
  failedPrecondition(
    `the write-ahead log in ${dir} is missing, empty or older than meta.mdb: acknowledged commits are missing`,
    { object: dir, remedy: `put log.0 and log.1 back, or restore the store from a copy; ${accepting(dir)}` },
  );
