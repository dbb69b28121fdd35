/** Runs a program under the recorder and hands out what it did to the disk. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { readFile, realpath } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type DiskEvent, readLog } from './log.js';

const source = fileURLToPath(new URL('../../../test/powerloss/recorder.c', import.meta.url));

/** Compiles the recorder into `dir`; returns its path, or why there is none. */
export function buildRecorder(dir: string): { path: string } | { missing: string } {
  if (process.platform !== 'linux') return { missing: 'calls are recorded on Linux only' };
  const path = join(dir, 'recorder.so');
  const flags = ['-shared', '-fPIC', '-O1', '-Wall', '-Wextra', '-Werror'];
  const compiler = process.env.CC ?? 'cc';
  const done = spawnSync(compiler, [...flags, '-o', path, source, '-ldl', '-lpthread'], { encoding: 'utf8' });
  if (done.error !== undefined)
    return { missing: `no C compiler (${compiler}): apt-get install gcc libc6-dev` };
  assert.equal(done.status, 0, `the recorder does not compile:\n${done.stderr}`);
  return { path };
}

export interface Recording {
  recorder: string;
  root: string;
  events: DiskEvent[];
}

/** Runs a program on the store in `dir`/root, which may exist. Its arguments: the root, a file for marks, `args`. */
export async function record(
  dir: string,
  recorder: string,
  program: 'workload' | 'recovery',
  ...args: readonly number[]
): Promise<Recording> {
  const home = await realpath(dir);
  const root = join(home, 'root');
  const log = join(home, 'log');
  const marks = join(home, 'marks');
  // Nothing that a test run sets for itself (coverage, options of node) is for the program.
  const env = {
    PATH: process.env.PATH ?? '',
    TMPDIR: tmpdir(),
    LD_PRELOAD: recorder,
    POWERLOSS_ROOT: root,
    POWERLOSS_LOG: log,
    POWERLOSS_MARK: marks,
  };
  const path = fileURLToPath(new URL(`./${program}.js`, import.meta.url));
  const child = spawn(process.execPath, [path, root, marks, ...args.map(String)], {
    env,
    stdio: ['ignore', 'inherit', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const code = await new Promise<number | null>((resolve) => child.on('exit', resolve));
  assert.equal(code, 0, `the ${program} failed (${args}):\n${stderr}`);
  return { recorder, root, events: readLog(await readFile(log)) };
}
