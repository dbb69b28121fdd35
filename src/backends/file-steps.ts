/**
 * Steps on files that follow one another, in one change of threads: an ingest and the commit of a small blob take a dozen of
 * them each. Where the addon (native/host/file_steps.cc) does not load, they are made one by one. Called by content/.
 *
 * The first step that fails ends the list, unless it is optional. Nothing is undone.
 */
import { type FileHandle, lstat, mkdir, rename, writeFile } from 'node:fs/promises';
import type { Instant } from '../model/time.js';
import { syncDirectory } from '../system/sync-directory.js';
import { isAbsent } from '../system/system-errors.js';
import { errorOf, fileSteps, fileStepsSupported } from './sys.js';

/** Their order is that of native/host/file_steps.cc. */
const kinds = [
  'makeDirectory',
  'write',
  'absent',
  'rename',
  'syncFile',
  'syncDirectory',
  'mode',
  'times',
] as const;

export interface FileStep {
  readonly kind: (typeof kinds)[number];
  /** What it is made on; of an open file, for errors. */
  readonly path: string;
  /** Whether the next step follows when this one fails. */
  readonly isOptional: boolean;
  /** Of `rename`. */
  readonly to?: string;
  /** Of `write`. */
  readonly text?: string;
  readonly mode?: number;
  readonly handle?: FileHandle;
  readonly time?: Instant;
}

const EEXIST = 17;

export const FileSteps = {
  makeDirectory: (path: string, mode: number): FileStep => step('makeDirectory', path, { mode }),
  /** EEXIST when something has the name. */
  write: (path: string, text: string, mode: number): FileStep => step('write', path, { text, mode }),
  /** EEXIST when something has the name. */
  absent: (path: string): FileStep => step('absent', path, {}),
  rename: (path: string, to: string): FileStep => step('rename', path, { to }),
  syncFile: (path: string, handle: FileHandle): FileStep => step('syncFile', path, { handle }),
  syncDirectory: (path: string): FileStep => step('syncDirectory', path, {}),
  mode: (path: string, handle: FileHandle, mode: number): FileStep => step('mode', path, { handle, mode }),
  /** Both times. */
  times: (path: string, handle: FileHandle, time: Instant): FileStep => step('times', path, { handle, time }),
  optional: (given: FileStep): FileStep => ({ ...given, isOptional: true }),
} as const;

const step = (kind: FileStep['kind'], path: string, rest: Partial<FileStep>): FileStep => ({
  kind,
  path,
  isOptional: false,
  ...rest,
});

export interface StepFailure {
  readonly step: FileStep;
  readonly error: NodeJS.ErrnoException;
}

/** The failures in order: of optional steps, and the last one of the step that ended the list. Empty: all are made. */
export async function runSteps(steps: readonly FileStep[]): Promise<StepFailure[]> {
  if (!fileStepsSupported) return oneByOne(steps);
  const failures: StepFailure[] = [];
  for (const [s, errno] of (await fileSteps(packed(steps))).entries()) {
    const made = steps[s];
    if (errno === 0 || made === undefined) continue;
    failures.push({ step: made, error: errorOf(errno, made.kind, made.path) });
  }
  return failures;
}

/** For hosts without the addon. */
export async function oneByOne(steps: readonly FileStep[]): Promise<StepFailure[]> {
  const failures: StepFailure[] = [];
  for (const made of steps) {
    try {
      await make(made);
    } catch (error) {
      failures.push({ step: made, error: error as NodeJS.ErrnoException });
      if (!made.isOptional) break;
    }
  }
  return failures;
}

async function make({
  kind,
  path,
  to = '',
  text = '',
  mode = 0,
  handle,
  time = 0n,
}: FileStep): Promise<void> {
  switch (kind) {
    case 'makeDirectory':
      return mkdir(path, mode);
    case 'write':
      return writeFile(path, text, { mode, flag: 'wx' });
    case 'absent':
      return lstat(path).then(
        () => Promise.reject(errorOf(EEXIST, 'lstat', path)),
        (error: unknown) => (isAbsent(error) ? undefined : Promise.reject(error)),
      );
    case 'rename':
      return rename(path, to);
    case 'syncFile':
      return handle?.sync();
    case 'syncDirectory':
      return syncDirectory(path);
    case 'mode':
      return handle?.chmod(mode);
    case 'times':
      return handle?.utimes(Number(time) / 1e9, Number(time) / 1e9);
  }
}

/** Bytes of a step's head. */
const HEAD_BYTES = 32;

/** As native/host/file_steps.cc reads it. */
function packed(steps: readonly FileStep[]): Buffer {
  return Buffer.concat(
    steps.flatMap(({ kind, path, to, text, isOptional, handle, mode = 0, time = 0n }) => {
      const [first, second] = [Buffer.from(path), Buffer.from(to ?? text ?? '')];
      const head = Buffer.alloc(HEAD_BYTES);
      head.writeUInt32LE(kinds.indexOf(kind), 0);
      head.writeUInt32LE(Number(isOptional), 4);
      head.writeUInt32LE(handle?.fd ?? 0, 8);
      head.writeUInt32LE(mode, 12);
      head.writeUInt32LE(first.length, 16);
      head.writeUInt32LE(second.length, 20);
      head.writeBigInt64LE(time, 24);
      return [head, first, second];
    }),
  );
}
