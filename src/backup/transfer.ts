/** What a backup and a restore have in common: the records of a copied tree, what came of the work, and its progress. */
import { chmod } from 'node:fs/promises';
import { yieldToEventLoop } from '../backends/files.js';
import type { BackendLog } from '../backends/log.js';
import type { Key, TreeCopy, Value } from '../engine/contract.js';
import { makeDirectories } from '../system/make-directories.js';
import { fsError } from '../system/system-errors.js';
import { PROBLEMS_KEPT, type Problem } from './manifest.js';

/** What is being copied. */
export type TransferPhase = 'metadata' | 'blobs' | 'snapshots';

/** `total` 0: unknown. Bytes of blobs; else items. */
export type OnTransferProgress = (phase: TransferPhase, done: number, total: number) => void;

/** What a backup or a restore has copied. */
export interface TransferReport {
  /** Revision of the store that the backup is of. */
  revision: number;
  /** Blobs in the backup. */
  blobs: number;
  /** Of the blobs. */
  bytes: number;
  /** Snapshots in the backup. */
  snapshots: number;
  /** In the snapshots: all that is not a directory. */
  files: number;
  /** Blobs and files that got another name: they take no room of their own. */
  linked: number;
  /** Bytes of blobs and files that were copied. */
  copiedBytes: number;
  /** Objects that are missing or damaged. */
  problems: number;
  /** The first ones. */
  problemList: Problem[];
}

/** One backup, or one restore, under way. */
export class Transfer {
  readonly report: TransferReport = {
    revision: 0,
    blobs: 0,
    bytes: 0,
    snapshots: 0,
    files: 0,
    linked: 0,
    copiedBytes: 0,
    problems: 0,
    problemList: [],
  };
  readonly signal: AbortSignal | undefined;
  readonly log: BackendLog;
  readonly progress: OnTransferProgress;

  constructor(options: {
    signal?: AbortSignal | undefined;
    log: BackendLog;
    onProgress?: OnTransferProgress | undefined;
  }) {
    this.signal = options.signal;
    this.log = options.log;
    this.progress = options.onProgress ?? (() => undefined);
  }

  readonly problem = (problem: Problem): void => {
    this.report.problems++;
    if (this.report.problemList.length < PROBLEMS_KEPT) this.report.problemList.push(problem);
  };
}

const BATCH = 512;

/** Records below a prefix in batches; others run in between. */
export async function* recordsIn(tree: TreeCopy, prefix: Key): AsyncGenerator<[Key, Value][], void> {
  for (let after: Key | undefined; ; await yieldToEventLoop()) {
    const batch = [...tree.scan(prefix, { after, limit: BATCH })];
    if (batch.length > 0) yield batch;
    if (batch.length < BATCH) return;
    after = batch.at(-1)?.[0];
  }
}

/** Makes a directory with its parents; its mode is this one, whatever the umask. */
export async function makeDirectory(path: string, mode: number): Promise<void> {
  try {
    makeDirectories(path, mode);
    await chmod(path, mode);
  } catch (error) {
    throw fsError('make the directory', path, error);
  }
}
