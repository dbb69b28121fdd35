/**
 * The two sides of a comparison: each loads the same plan into a store of its own and measures copies of it.
 * What is timed runs in a child process; this file only starts it.
 */
import { constants, existsSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { synthRecords } from '../src/synth/records.js';
import { runtimeSpec } from '../src/synth/runtime-spec.js';
import type { Plan } from '../src/synth/shape.js';
import { runJson } from './child.js';
import type { OursMode, OursSettings } from './ours.js';
import type { Collected, Delays, FileRates, Loaded, Rates } from './results.js';

export interface Settings {
  plan: Plan;
  /** Scratch directory; each side works below it. */
  scratch: string;
  targets: string;
  rate: number;
  leadMs: number;
  count: number;
  /** Where to put CPU profiles of ebbtide's processes. */
  profile?: string | undefined;
}

export interface Side {
  readonly name: 'ebbtide' | 'peer';
  load(): Promise<Loaded>;
  /** A fresh copy of what was loaded takes the place of the one that was measured last. */
  renew(): Promise<void>;
  collect(runs: number): Promise<Collected>;
  delay(): Promise<Delays>;
  rates(): Promise<Rates>;
  files(): Promise<FileRates>;
}

/** A copy that shares blocks with its source where the file system can. */
const copy = (from: string, to: string): Promise<void> =>
  cp(from, to, { recursive: true, mode: constants.COPYFILE_FICLONE });

/** Reads a file once, so that it is in memory as a store in use is. */
async function warm(path: string): Promise<void> {
  if (!existsSync(path)) return;
  const files = (await readdir(path, { recursive: true, withFileTypes: true })).filter((f) => f.isFile());
  for (const file of files) await readFile(join(file.parentPath, file.name)).catch(() => undefined);
}

async function emptyDirectory(path: string): Promise<string> {
  await rm(path, { recursive: true, force: true });
  await mkdir(path, { recursive: true });
  return path;
}

export function ourSide(settings: Settings): Side {
  const loaded = join(settings.scratch, 'ebbtide');
  const used = join(settings.scratch, 'ebbtide-used');
  const program = fileURLToPath(new URL('./ours.js', import.meta.url));
  const run = <T>(mode: OursMode, more: Partial<OursSettings>): Promise<T> => {
    const { plan, targets, rate, leadMs, count, profile } = settings;
    const profiling = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${join(profile, mode)}`];
    const all = {
      dir: used,
      records: plan.records,
      shape: plan.shape,
      targets,
      runs: 0,
      rate,
      leadMs,
      count,
      ...more,
    };
    return runJson<T>({
      command: process.execPath,
      // As the command does, and as the README tells embedders.
      args: ['--v8-pool-size=1', ...profiling, program, mode, JSON.stringify(all)],
    });
  };
  return {
    name: 'ebbtide',
    load: async () => run('load', { dir: await emptyDirectory(loaded) }),
    renew: async () => {
      await rm(used, { recursive: true, force: true });
      await copy(loaded, used);
      await warm(used);
    },
    collect: (runs) => run('collect', { runs }),
    delay: () => run('delay', {}),
    rates: () => run('rates', {}),
    files: async () => run('files', { dir: await emptyDirectory(join(settings.scratch, 'ebbtide-files')) }),
  };
}

/** Files take longer than records. */
const fileCount = ({ count }: Settings): number => Math.ceil(count / 4);

/** Lines of JSON as the peer reads them: the text of a container's spec, then every record. */
function* lines(plan: Plan): Generator<string> {
  yield `${JSON.stringify({ kind: 'spec', text: runtimeSpec('@ID@') })}\n`;
  let piece = '';
  for (const record of synthRecords(plan)) {
    piece += `${JSON.stringify(record)}\n`;
    if (piece.length < 1 << 20) continue;
    yield piece;
    piece = '';
  }
  yield piece;
}

export function peerSide(settings: Settings, program: string): Side {
  const directory = join(settings.scratch, 'peer');
  const loaded = join(directory, 'loaded.db');
  const used = join(directory, 'used.db');
  const run = <T>(mode: string, args: readonly string[], input?: Iterable<string>): Promise<T> =>
    runJson<T>({ command: program, args: [...args, mode], ...(input && { input }) });
  const { targets, rate, leadMs, count } = settings;
  return {
    name: 'peer',
    load: async () => {
      await emptyDirectory(directory);
      return run('load', ['-db', loaded], lines(settings.plan));
    },
    renew: () => copy(loaded, used),
    collect: (runs) => run('collect', ['-db', used, '-runs', String(runs)]),
    delay: () =>
      run('delay', ['-db', used, '-targets', targets, '-rate', String(rate), '-lead', String(leadMs)]),
    rates: () => run('rates', ['-db', used, '-targets', targets, '-count', String(count)]),
    files: async () => {
      const dir = await emptyDirectory(join(settings.scratch, 'peer-files'));
      return run('files', ['-dir', dir, '-count', String(fileCount(settings))]);
    },
  };
}
