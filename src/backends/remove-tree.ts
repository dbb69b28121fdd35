/**
 * Deletes whole trees and counts what that freed. Called by the disk job pool's workers (`removeTreeSync`) and, on
 * the calling thread in small steps, by backends that were opened without a pool (`inlineJobs`).
 *
 * Trees come from container images and may be hostile: no recursion over their depth, names need not be UTF-8,
 * paths may be longer than the kernel takes, directories may be unreadable. Symbolic links are never followed.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, lstatSync, readdirSync, renameSync, rmdirSync, unlinkSync } from 'node:fs';
import { shown } from '../held-paths.js';
import { errnoOf, isAbsent, messageOf } from '../system/system-errors.js';
import type { DiskJobs, RemovalReport } from './contract.js';
import { BLOCK_BYTES } from './disk-usage.js';
import { breathe, entryName, SLASH } from './files.js';

const STEPS_BETWEEN_BREATHS = 256;
/** Directories with a longer path are moved up first; the kernel's limit is 4096 bytes. */
const LONGEST_PATH_BYTES = 3072;
const REPORTED_ERRORS = 20;

interface Visit {
  path: Buffer;
  /** Device of the tree: what is mounted inside is somebody else's and stays. */
  device?: number;
  /** Times its entries were removed; it is tried again when others added entries meanwhile. */
  rounds: number;
}

const MAX_ROUNDS = 3;

export const emptyReport = (): RemovalReport => ({ removed: 0, bytes: 0, errors: [] });

/** Adds the figures of one report to another. */
export function addReport(sum: RemovalReport, part: RemovalReport): void {
  sum.removed += part.removed;
  sum.bytes += part.bytes;
  for (const error of part.errors) note(sum, error.path, error.message);
}

function note(report: RemovalReport, path: string, message: string): void {
  if (report.errors.length < REPORTED_ERRORS)
    report.errors.push({ path: shown(path), message: shown(message) });
}

/** Deletes a tree (a file, or a directory with all below it); absent is success. Blocks the calling thread. */
export function removeTreeSync(path: string): RemovalReport {
  const report = emptyReport();
  for (const _ of removalSteps(path, report)) {
    // Nothing to wait for between the steps on a thread of its own.
  }
  return report;
}

/** Deletes trees on the calling thread, letting its event loop run in between. */
export const inlineJobs: DiskJobs = {
  async removeTrees(_stream, paths) {
    const report = emptyReport();
    for (const path of paths) {
      for (const _ of removalSteps(path, report)) await breathe();
    }
    return report;
  },
};

/** The deletion of one tree, stopping after every few hundred files; adds to `sum` at its end. */
export function* removalSteps(tree: string, sum: RemovalReport): Generator<void, void> {
  const report = emptyReport();
  const root = Buffer.from(tree);
  const stack: Visit[] = [{ path: root, rounds: 0 }];
  let steps = 0;
  while (stack.length > 0) {
    const visit = stack.at(-1)!;
    try {
      if (isDone(visit, root, report)) {
        stack.pop();
        continue;
      }
      visit.rounds++;
      for (const entry of readdirSync(visit.path, { encoding: 'buffer', withFileTypes: true })) {
        const path = Buffer.concat([visit.path, SLASH, entryName(entry)]);
        if (entry.isDirectory()) {
          stack.push({ path, rounds: 0, ...(visit.device !== undefined && { device: visit.device }) });
        } else unlink(path, report);
        if (++steps % STEPS_BETWEEN_BREATHS === 0) yield;
      }
    } catch (error) {
      stack.pop();
      if (!isAbsent(error)) note(report, visit.path.toString(), messageOf(error));
    }
  }
  if (report.errors.length === 0) report.removed = 1;
  addReport(sum, report);
}

/** True when nothing of the visited path is left to do; false when its entries must go first. */
function isDone(visit: Visit, root: Buffer, report: RemovalReport): boolean {
  if (visit.rounds > 0) return closeDirectory(visit, report);
  if (visit.path.length > LONGEST_PATH_BYTES && visit.path !== root) {
    const nearer = Buffer.concat([root, Buffer.from(`/.deep-${randomBytes(8).toString('hex')}`)]);
    renameSync(visit.path, nearer);
    visit.path = nearer;
  }
  return !openUp(visit, report);
}

/** True for a directory, made enterable; anything else is unlinked at once. */
function openUp(visit: Visit, report: RemovalReport): boolean {
  const { path } = visit;
  const stats = lstatSync(path);
  if (!stats.isDirectory()) {
    unlink(path, report);
    return false;
  }
  visit.device ??= stats.dev;
  if (stats.dev !== visit.device) throw new Error('a file system is mounted here: unmount it first');
  const entered = 0o700;
  if ((stats.mode & entered) !== entered && process.geteuid?.() !== 0) chmodSync(path, entered);
  return true;
}

/** True when the directory is gone or cannot be removed, false when it must be emptied once more. */
function closeDirectory(visit: Visit, report: RemovalReport): boolean {
  const { blocks } = lstatSync(visit.path);
  try {
    rmdirSync(visit.path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOTEMPTY' || visit.rounds >= MAX_ROUNDS) throw error;
    // What is left in it either came meanwhile or could not be deleted; the latter is reported already.
    return report.errors.length > 0;
  }
  report.bytes += blocks * BLOCK_BYTES;
  return true;
}

function unlink(path: Buffer, report: RemovalReport): void {
  try {
    const { nlink, blocks } = lstatSync(path);
    unlinkSync(path);
    if (nlink <= 1) report.bytes += blocks * BLOCK_BYTES;
  } catch (error) {
    if (!isAbsent(error)) note(report, path.toString(), messageOf(error));
  }
}
