/**
 * `npm run bench -- any-host [RECORDS…]`: processor time and memory of verbs on a `meta.db` as containerd lays it out, written by
 * the real bbolt (fill/main.go). Default 100,000 and 1,000,000 records; the latter takes 12 GB of disk while it is made, and minutes.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeHost, run } from './verbs.js';

/** Each verb; the fastest of so many runs counts, since what else the machine does only adds. */
const RUNS = 3;
const verbs = [
  ['du', '--by', 'none', '--no-disk'],
  ['images', 'ls', '-q'],
  ['gc', '--dry-run', '--no-disk'],
];

const records = process.argv.slice(2).map(Number);
for (const count of records.length > 0 ? records : [100_000, 1_000_000]) {
  const root = mkdtempSync(join(tmpdir(), 'ebbtide-any-host-bench-'));
  try {
    makeHost(root, count);
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
