/**
 * Short runs of file system calls that cross to another thread once, not once a call: each crossing costs about as much
 * as a flush of a fast disk. Called by the content directory and the snapshotters.
 *
 * `runSteps` carries the steps out in order, by one job of the addon (native/steps.cc) or, without it, one after the other
 * through Node. The first step that fails ends the run, but for optional ones. Nothing is taken back. Nothing holds up the
 * event loop. Descriptors are plain numbers: whoever opens one closes it.
 */
import {
  chmod,
  close,
  fchmod,
  fstat,
  fsync,
  futimes,
  mkdir,
  open,
  rename,
  rmdir,
  type Stats,
  stat,
  unlink,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { getSystemErrorName, promisify } from 'node:util';
import { loadAddon } from '../addon.js';
import { syncDirectory } from './files.js';
import { errnoOf } from './fs-errors.js';

/** The same numbers as in native/steps.cc. */
const Op = {
  mkdir: 0,
  chmod: 1,
  put: 2,
  open: 3,
  close: 4,
  sync: 5,
  size: 6,
  touch: 7,
  readOnly: 8,
  absent: 9,
  rename: 10,
  unlink: 11,
  rmdir: 12,
  syncDirectory: 13,
} as const;
type Op = (typeof Op)[keyof typeof Op];

/** Operation, path, second path or text, descriptor or flags, mode, optional. */
export type Step = readonly [Op, string, string, number, number, boolean];

const onPath = (op: Op, path: string, mode = 0): Step => [op, path, '', 0, mode, false];
const onFile = (op: Op, fd: number): Step => [op, '', '', fd, 0, false];

export const step = {
  mkdir: (path: string, mode: number): Step => onPath(Op.mkdir, path, mode),
  chmod: (path: string, mode: number): Step => onPath(Op.chmod, path, mode),
  /** Makes or empties the file and writes the text into it. Not flushed. */
  put: (path: string, text: string): Step => [Op.put, path, text, 0, 0o666, false],
  /** Answers the descriptor. */
  open: (path: string, flags: number): Step => [Op.open, path, '', flags, 0o666, false],
  close: (fd: number): Step => onFile(Op.close, fd),
  /** Flushes a file's bytes and size. */
  sync: (fd: number): Step => onFile(Op.sync, fd),
  /** Answers the bytes of a file. */
  size: (fd: number): Step => onFile(Op.size, fd),
  /** Sets its times to now. */
  touch: (fd: number): Step => onFile(Op.touch, fd),
  /** Takes all rights but reading from a file. */
  readOnly: (fd: number): Step => onFile(Op.readOnly, fd),
  /** EEXIST when there is something of that name. */
  absent: (path: string): Step => onPath(Op.absent, path),
  rename: (from: string, to: string): Step => [Op.rename, from, to, 0, 0, false],
  unlink: (path: string): Step => onPath(Op.unlink, path),
  rmdir: (path: string): Step => onPath(Op.rmdir, path),
  /** Makes the names in a directory durable, where the file system can. */
  syncDirectory: (path: string): Step => onPath(Op.syncDirectory, path),
} as const;

/** A step whose failure does not end the run. */
export const optional = ([op, path, text, number, mode]: Step): Step => [op, path, text, number, mode, true];

/** What came of a run. */
export interface StepRun {
  /** One a step that was carried out: what it answers, else 0, or a negative errno. */
  results: readonly number[];
  /** Of the step that ended the run; in form like Node's own errors. */
  error: NodeJS.ErrnoException | undefined;
}

interface Addon {
  steps(list: readonly Step[]): Promise<number[]>;
}

const addon = loadAddon('ebbtide_sys') as Partial<Addon> | undefined;

export async function runSteps(steps: readonly Step[]): Promise<StepRun> {
  return outcome(steps, await (addon?.steps?.(steps) ?? runStepsInNode(steps)));
}

function outcome(steps: readonly Step[], results: readonly number[]): StepRun {
  const at = results.length - 1;
  const last = results[at] ?? 0;
  if (last >= 0 || steps[at]![5]) return { results, error: undefined };
  return { results, error: stepError(steps[at]!, last) };
}

/** A failure of an optional step, as an error. */
export function stepError([op, path, to]: Step, result: number): NodeJS.ErrnoException {
  const code = getSystemErrorName(result);
  const syscall = Object.keys(Op)[op]!;
  const text = `${code}: ${syscall}${path === '' ? '' : ` '${path}'`}${op === Op.rename ? ` -> '${to}'` : ''}`;
  return Object.assign(new Error(text), { errno: result, code, syscall, path });
}

// -------------------------------------------------------------------------------------------- without the addon

const EIO = -5;
const EEXIST = -17;
const READING = 0o444;

/** Used where the addon does not load; for tests. */
export async function runStepsInNode(steps: readonly Step[]): Promise<number[]> {
  const results: number[] = [];
  for (const one of steps) {
    const result = await carryOut(one).catch((error: NodeJS.ErrnoException) => error.errno ?? EIO);
    results.push(result);
    if (result < 0 && !one[5]) break;
  }
  return results;
}

const calls = {
  chmod: promisify(chmod),
  close: promisify(close),
  fchmod: promisify(fchmod),
  fstat: promisify(fstat) as (fd: number) => Promise<Stats>,
  fsync: promisify(fsync),
  futimes: promisify(futimes),
  mkdir: promisify(mkdir) as (path: string, mode: number) => Promise<void>,
  open: promisify(open) as (path: string, flags: number, mode: number) => Promise<number>,
  rename: promisify(rename),
  rmdir: promisify(rmdir) as (path: string) => Promise<void>,
  stat: promisify(stat) as (path: string) => Promise<Stats>,
  unlink: promisify(unlink),
};

async function carryOut([op, path, text, number, mode]: Step): Promise<number> {
  switch (op) {
    case Op.mkdir:
      return done(calls.mkdir(path, mode));
    case Op.chmod:
      return done(calls.chmod(path, mode));
    case Op.put:
      return done(writeFile(path, text, { mode }));
    case Op.open:
      return calls.open(path, number, mode);
    case Op.close:
      return done(calls.close(number));
    case Op.sync:
      return done(calls.fsync(number));
    case Op.size:
      return (await calls.fstat(number)).size;
    case Op.touch:
      return done(calls.futimes(number, new Date(), new Date()));
    case Op.readOnly:
      return done(calls.fchmod(number, (await calls.fstat(number)).mode & READING));
    case Op.absent:
      return isThere(path);
    case Op.rename:
      return done(calls.rename(path, text));
    case Op.unlink:
      return done(calls.unlink(path));
    case Op.rmdir:
      return done(calls.rmdir(path));
    case Op.syncDirectory:
      return done(syncDirectory(path));
  }
}

const done = (work: Promise<unknown>): Promise<number> => work.then(() => 0);

async function isThere(path: string): Promise<number> {
  try {
    await calls.stat(path);
    return EEXIST;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 0;
    throw error;
  }
}
