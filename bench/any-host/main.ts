/**
 * `npm run bench -- any-host [RECORDS…]`: processor time and memory of verbs on a `meta.db` as containerd lays it out, written by
 * the real bbolt (fill/main.go). Default 100,000 and 1,000,000 records; the latter takes 12 GB of disk while it is made, and minutes.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildGo } from '../../test/conformance/go-programs.js';

const main = fileURLToPath(new URL('../../src/bundle/main.js', import.meta.url));
/** Each verb; the fastest of so many runs counts, since what else the machine does only adds. */
const RUNS = 3;
const verbs = [
  ['du', '--by', 'none', '--no-disk'],
  ['images', 'ls', '-q'],
  ['gc', '--dry-run', '--no-disk'],
];

/** Printed at the end: clock ticks of the main thread, which are what one waits for on a machine that has nothing else to do. */
const TICKS_A_SECOND = 100;
const ofMainThread = `data:text/javascript,${encodeURIComponent(
  "import { readFileSync } from 'node:fs'; process.on('exit', () => process.stderr.write(" +
    "'main ' + readFileSync('/proc/self/task/' + process.pid + '/stat', 'latin1').split(') ')[1].split(' ').slice(11, 13).join(' ') + '\\n'));",
)}`;

interface Used {
  /** Seconds, user and system. */
  cpu: number;
  main: number;
  /** MiB, at most. */
  memory: number;
}

function run(root: string, verb: readonly string[]): Used {
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

const records = process.argv.slice(2).map(Number);
for (const count of records.length > 0 ? records : [100_000, 1_000_000]) {
  const root = mkdtempSync(join(tmpdir(), 'ebbtide-any-host-bench-'));
  try {
    const file = join(root, 'io.containerd.metadata.v1.bolt', 'meta.db');
    const snapshots = join(root, 'io.containerd.snapshotter.v1.overlayfs', 'metadata.db');
    for (const path of [file, snapshots]) mkdirSync(dirname(path));
    mkdirSync(join(root, 'io.containerd.content.v1.content'));
    const program = buildGo('bench/any-host/fill', 'program');
    const filled = spawnSync(program, [file, snapshots, `${count}`], { stdio: 'inherit' });
    if (filled.status !== 0) throw new Error('the file could not be written');
    const [size, beside] = [file, snapshots].map((path) => Math.round(statSync(path).size / 2 ** 20));
    console.log(`${count} records, ${size} MiB; its snapshotter's metadata, ${beside} MiB`);
    for (const verb of verbs) {
      const runs = Array.from({ length: RUNS }, () => run(root, verb));
      const best = runs.reduce((a, b) => (b.cpu < a.cpu ? b : a));
      console.log(
        `  ${verb.join(' ').padEnd(28)} ${best.cpu.toFixed(2)} s CPU, ${best.main.toFixed(2)} s of the main thread, ${Math.round(best.memory)} MiB`,
      );
    }
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}
