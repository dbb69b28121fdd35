/** A root of containerd with as many records as one is told, and the processor time and memory of verbs on it. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildGo } from '../../test/conformance/go-programs.js';

/** The command of a build. */
export const mainOf = (dist: string): string => join(dist, 'src', 'bundle', 'main.js');

const ours = mainOf(fileURLToPath(new URL('../..', import.meta.url)));

export const metadataIn = (root: string): string => join(root, 'io.containerd.metadata.v1.bolt', 'meta.db');

export const contentIn = (root: string): string => join(root, 'io.containerd.content.v1.content');

/** Written by the real bbolt: fill/main.go. */
export function makeHost(root: string, records: number): void {
  const file = metadataIn(root);
  const snapshots = join(root, 'io.containerd.snapshotter.v1.overlayfs', 'metadata.db');
  for (const path of [file, snapshots]) mkdirSync(dirname(path));
  mkdirSync(contentIn(root));
  const program = buildGo('bench/any-host/fill', 'program');
  const filled = spawnSync(program, [file, snapshots, `${records}`], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  if (filled.status !== 0) throw new Error('the file could not be written');
  const [size, beside] = [file, snapshots].map((path) => Math.round(statSync(path).size / 2 ** 20));
  console.log(`${records} records, ${size} MiB; its snapshotter's metadata, ${beside} MiB`);
}

/** Printed at the end: clock ticks of the main thread, which are what one waits for on a machine that has nothing else to do. */
const TICKS_A_SECOND = 100;
const ofMainThread = `data:text/javascript,${encodeURIComponent(
  "import { readFileSync } from 'node:fs'; process.on('exit', () => process.stderr.write(" +
    "'main ' + readFileSync('/proc/self/task/' + process.pid + '/stat', 'latin1').split(') ')[1].split(' ').slice(11, 13).join(' ') + '\\n'));",
)}`;

export interface Used {
  /** Seconds, user and system. */
  cpu: number;
  main: number;
  /** MiB, at most. */
  memory: number;
}

export function run(root: string, verb: readonly string[], main = ours): Used {
  const command = [process.execPath, '--import', ofMainThread, main, ...verb, '--containerd-root', root];
  const { error, status, stderr } = spawnSync('/usr/bin/time', ['-f', '%U %S %M', ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (error) throw new Error('needs /usr/bin/time: apt-get install time', { cause: error });
  if (status !== 0) throw new Error(stderr);
  const [user = 0, system = 0, kib = 0] = stderr.trimEnd().split('\n').at(-1)!.split(' ').map(Number);
  const [, ticks = '', more = ''] = /^main (\d+) (\d+)$/m.exec(stderr) ?? [];
  return { cpu: user + system, main: (Number(ticks) + Number(more)) / TICKS_A_SECOND, memory: kib / 1024 };
}
