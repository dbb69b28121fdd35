/**
 * Deletes whole trees and counts what that freed. Called by the disk job pool's workers (`removeTreeSync`), by the pool
 * for what is not worth a thread (`removeLittle`) and, on the calling thread in small steps, by backends that were opened
 * without a pool (`inlineJobs`).
 *
 * Trees come from container images and may be hostile, or still be changed by a container: no recursion over
 * their depth, names need not be UTF-8, directories may be unreadable. Each directory is opened below its
 * parent, never through a symlink, and calls use one name in it, so nothing outside the tree is reached
 * whatever is renamed in the meantime. Mounts in a tree stay, including a directory of the same file system
 * (a bind mount).
 */
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  type Dirent,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  type Stats,
  unlinkSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { present } from '../errors.js';
import { descriptorPath, forgetDescriptor, nameDescriptor, shown } from '../held-paths.js';
import { errnoOf, isAbsent, messageOf } from '../system/system-errors.js';
import type { DiskJobs, RemovalReport } from './contract.js';
import { BLOCK_BYTES } from './disk-usage.js';
import { entryName, SLASH, yieldToEventLoop } from './files.js';
import { DIRECTORY_ONLY, mountOf, openBeneath } from './sys.js';

/** Files removed without a breath on a thread that has more to do; what `removeLittle` removes at most. */
const FILES_BETWEEN_BREATHS = 64;
/** A file system may take its time for such a file. */
const LARGE_BYTES = 4 * 1024 * 1024;

/** A removal pauses after a file, and before a large one. */
type Pause = 'file' | 'large';
/** Deeper directories are first moved up to the top of the tree, because each level takes a descriptor. */
const DEPTH_MAX = 64;
const REPORTED_ERRORS = 20;
const MAX_ROUNDS = 3;

interface Directory {
  readonly fd: number;
  readonly depth: number;
  /** By name, for messages. */
  readonly path: Buffer;
  /** Prefix for the names in it. */
  readonly prefix: Buffer;
}

interface Visit {
  parent: Directory;
  name: Buffer;
  /** Open from the first visit on. */
  directory?: Directory;
  /** Number of times its entries were removed; repeated when others have added entries. */
  rounds: number;
}

export const emptyReport = (): RemovalReport => ({ removed: 0, bytes: 0, errors: [] });

/** Adds one report to another. */
export function addReport(sum: RemovalReport, part: RemovalReport): void {
  sum.removed += part.removed;
  sum.bytes += part.bytes;
  for (const error of part.errors) addError(sum, error.path, error.message);
}

function addError(report: RemovalReport, path: string, message: string): void {
  if (report.errors.length < REPORTED_ERRORS)
    report.errors.push({ path: shown(path), message: shown(message) });
}

/**
 * Deletes a tree (a file, or a directory with everything below); absent is success. Blocks the calling
 * thread.
 */
export function removeTreeSync(path: string): RemovalReport {
  const report = emptyReport();
  for (const _ of removalSteps(path, report)) {
    // A worker thread need not yield between the steps.
  }
  return report;
}

/** Deletes trees on the calling thread, yielding to its event loop. */
export const inlineJobs: DiskJobs = {
  async removeTrees(_stream, paths) {
    const report = emptyReport();
    let files = 0;
    for (const path of paths) {
      for (const pause of removalSteps(path, report))
        if (pause === 'large' || ++files % FILES_BETWEEN_BREATHS === 0) await yieldToEventLoop();
    }
    return report;
  },
};

/**
 * Deletes the first of these trees: 64 files at most, for `ms` milliseconds at most, and no file of 4 MiB or more. Returns the trees
 * that are left; the first of them may be removed in part. For callers that would otherwise start a thread, which takes longer.
 */
export function removeLittle(paths: readonly string[], sum: RemovalReport, ms: number): string[] {
  const end = performance.now() + ms;
  let files = 0;
  for (const [i, path] of paths.entries()) {
    for (const pause of removalSteps(path, sum))
      if (pause === 'large' || ++files >= FILES_BETWEEN_BREATHS || performance.now() >= end)
        return paths.slice(i);
    // Files and empty directories have no pause.
    if (++files >= FILES_BETWEEN_BREATHS || performance.now() >= end) return paths.slice(i + 1);
  }
  return [];
}

/** Deletes one tree, with pauses; adds to `sum` at its end, or when the caller stops it. */
export function* removalSteps(tree: string, sum: RemovalReport): Generator<Pause, void> {
  const report = emptyReport();
  let parent: Directory | undefined;
  /** The caller may stop it at a pause. */
  let isComplete = false;
  try {
    if (lstatSync(tree).isDirectory()) {
      parent = directoryOf(openSync(dirname(tree), DIRECTORY_ONLY), Buffer.from(dirname(tree)), -1);
      yield* new TreeRemoval(parent, Buffer.from(basename(tree)), report).steps();
    } else yield* unlinkInSteps(Buffer.from(tree), Buffer.from(tree), report);
    isComplete = true;
  } catch (error) {
    isComplete = true;
    if (!isAbsent(error)) addError(report, tree, messageOf(error));
  } finally {
    close(parent);
    if (isComplete && report.errors.length === 0) report.removed = 1;
    addReport(sum, report);
  }
}

class TreeRemoval {
  readonly #report: RemovalReport;
  readonly #mount: string;
  /** A directory is below its parent; siblings wait between them. */
  readonly #stack: Visit[];
  /** Directories that were moved up to the top of the tree. */
  readonly #movedUp: Visit[] = [];

  constructor(parent: Directory, name: Buffer, report: RemovalReport) {
    this.#report = report;
    this.#mount = mountOf(parent.fd);
    this.#stack = [{ parent, name, rounds: 0 }];
  }

  *steps(): Generator<Pause, void> {
    const stack = this.#stack;
    try {
      for (let visit = stack.at(-1); visit !== undefined; visit = stack.at(-1)) {
        try {
          const left = this.#entriesLeft(visit);
          if (left === undefined) continue;
          for (const entry of left.entries) {
            yield* this.#remove(left.directory, entry);
            yield 'file';
          }
        } catch (error) {
          // Its subdirectories on the stack have not been visited yet.
          while (stack.at(-1) !== visit) stack.pop();
          this.#leave(visit);
          if (!isAbsent(error)) addError(this.#report, pathOf(visit).toString(), messageOf(error));
        }
      }
    } finally {
      for (const { directory } of stack) close(directory);
    }
  }

  /**
   * What to remove before the directory itself; undefined when the visit is complete, or others come first.
   */
  #entriesLeft(visit: Visit): Left | undefined {
    if (visit.directory === undefined) return this.#enter(visit);
    const deep = this.#stack.length === 1 ? this.#movedUp.pop() : undefined;
    if (deep !== undefined) {
      this.#stack.push(deep);
      return undefined;
    }
    if (!this.#isRemoved(visit, visit.directory)) return this.#entriesOf(visit, visit.directory);
    this.#leave(visit);
    return undefined;
  }

  #enter(visit: Visit): Left | undefined {
    if (visit.parent.depth >= DEPTH_MAX) {
      this.#moveUp(visit);
      return undefined;
    }
    let fd: number;
    try {
      fd = openBeneath(visit.parent.fd, visit.name, DIRECTORY_ONLY);
    } catch (error) {
      if (!NO_DIRECTORY.has(errnoOf(error) ?? '')) throw error;
      // It was replaced since it was listed.
      unlink(at(visit), pathOf(visit), this.#report);
      this.#leave(visit);
      return undefined;
    }
    visit.directory = directoryOf(fd, pathOf(visit), visit.parent.depth + 1);
    if (mountOf(fd) !== this.#mount) throw new Error('a file system is mounted here: unmount it first');
    makeEnterable(fd);
    return this.#entriesOf(visit, visit.directory);
  }

  #entriesOf(visit: Visit, directory: Directory): Left {
    visit.rounds++;
    const path = descriptorPath(directory.fd);
    return { directory, entries: readdirSync(path, { encoding: 'buffer', withFileTypes: true }) };
  }

  *#remove(directory: Directory, entry: Entry): Generator<Pause, void> {
    const name = entryName(entry);
    if (entry.isDirectory()) this.#stack.push({ parent: directory, name, rounds: 0 });
    else yield* unlinkInSteps(join(directory.prefix, name), join(directory.path, SLASH, name), this.#report);
  }

  #moveUp(visit: Visit): void {
    const top = present(this.#stack[0]?.directory, 'the top directory');
    const name = Buffer.from(`.deep-${randomBytes(8).toString('hex')}`);
    renameSync(at(visit), join(top.prefix, name));
    this.#leave(visit);
    this.#movedUp.push({ parent: top, name, rounds: 0 });
  }

  /** Returns true when the directory is gone or cannot be removed, false when it must be emptied again. */
  #isRemoved(visit: Visit, { fd }: Directory): boolean {
    const { blocks } = fstatSync(fd);
    try {
      rmdirSync(at(visit));
    } catch (error) {
      if (NO_DIRECTORY.has(errnoOf(error) ?? '')) {
        unlink(at(visit), pathOf(visit), this.#report);
        return true;
      }
      if (errnoOf(error) !== 'ENOTEMPTY' || visit.rounds >= MAX_ROUNDS) throw error;
      // What is left in it is either new or could not be deleted; the latter is reported already.
      return this.#report.errors.length > 0;
    }
    this.#report.bytes += blocks * BLOCK_BYTES;
    return true;
  }

  #leave(visit: Visit): void {
    close(visit.directory);
    this.#stack.pop();
  }
}

type Entry = Dirent<Buffer>;

interface Left {
  readonly directory: Directory;
  readonly entries: readonly Entry[];
}

/** Errors of opening a directory when something else has its name. */
const NO_DIRECTORY: ReadonlySet<string> = new Set(['ENOTDIR', 'ELOOP']);

const join = (...parts: Buffer[]): Buffer => Buffer.concat(parts);
const at = ({ parent, name }: Visit): Buffer => join(parent.prefix, name);
const pathOf = ({ parent, name }: Visit): Buffer => join(parent.path, SLASH, name);

function directoryOf(fd: number, path: Buffer, depth: number): Directory {
  nameDescriptor(fd, path.toString());
  return { fd, depth, path, prefix: Buffer.from(`${descriptorPath(fd)}/`) };
}

function close(directory: Directory | undefined): void {
  if (directory === undefined) return;
  forgetDescriptor(directory.fd);
  closeSync(directory.fd);
}

function makeEnterable(fd: number): void {
  const entered = 0o700;
  if (process.geteuid?.() === 0 || (fstatSync(fd).mode & entered) === entered) return;
  chmodSync(descriptorPath(fd), entered);
}

/** `path` is for messages. */
function unlink(place: Buffer, path: Buffer, report: RemovalReport, known?: Stats): void {
  try {
    const { nlink, blocks } = known ?? lstatSync(place);
    unlinkSync(place);
    if (nlink <= 1) report.bytes += blocks * BLOCK_BYTES;
  } catch (error) {
    // A directory that took its place is found in the next round.
    if (!isAbsent(error) && errnoOf(error) !== 'EISDIR') addError(report, path.toString(), messageOf(error));
  }
}

/** The same, with a pause before a large file. */
function* unlinkInSteps(place: Buffer, path: Buffer, report: RemovalReport): Generator<Pause, void> {
  const stats = lookAt(place);
  if (stats !== undefined && stats.nlink <= 1 && stats.blocks * BLOCK_BYTES >= LARGE_BYTES) yield 'large';
  unlink(place, path, report, stats);
}

function lookAt(place: Buffer): Stats | undefined {
  try {
    return lstatSync(place);
  } catch {
    // `unlink` reports the error.
    return undefined;
  }
}
