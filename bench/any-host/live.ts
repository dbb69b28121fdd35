/**
 * `npm run bench -- any-host-live [GIB] [READS]`: a file of that size (default 1) read again and again (default 100) beside a real bbolt
 * that commits several times a second, and in bursts. Each reading is checked to be of one transaction.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readBolt } from '../../src/bolt/snapshot.js';
import { isKind } from '../../src/errors.js';
import { Committing, checkOneMoment, fill } from './files.js';

const [gib = 1, reads = 100] = process.argv.slice(2).map(Number);
const RECORDS_PER_GIB = 258_000;
/** Commits a second, and in a burst every two seconds. */
const LOADS = [
  [5, 0],
  [20, 0],
  [5, 50],
  [100, 0],
  [1000, 0],
] as const;

/** A load that is not followed is not tried for longer. */
const REFUSED_MAX = 2;

const middle = (all: readonly number[]): number => all.toSorted((a, b) => a - b)[all.length >> 1] ?? 0;
const seconds = ({ user, system }: NodeJS.CpuUsage): number => (user + system) / 1e6;

const directory = mkdtempSync(join(tmpdir(), 'ebbtide-any-host-bench-'));
try {
  const path = join(directory, 'file.db');
  fill(path, gib * RECORDS_PER_GIB, 0);
  console.log(`${(statSync(path).size / 2 ** 30).toFixed(2)} GiB`);
  for (const [perSecond, burst] of LOADS) {
    const writer = await Committing.start(path, perSecond, burst);
    const [again, followed, cpu, wall]: number[][] = [[], [], [], []];
    let refused = 0;
    for (let n = 0; n < reads && refused < REFUSED_MAX; n++) {
      const [usage, start] = [process.cpuUsage(), performance.now()];
      try {
        const snapshot = await readBolt(path);
        cpu?.push(seconds(process.cpuUsage(usage)));
        wall?.push((performance.now() - start) / 1000);
        again?.push(snapshot.retries);
        followed?.push(snapshot.commits);
        checkOneMoment(snapshot);
      } catch (error) {
        if (!isKind(error, 'Unavailable')) throw error;
        if (refused++ === 0) console.log(String(error));
      }
    }
    const rate = await writer.end();
    console.log(
      `${perSecond} a second${burst > 0 ? `, ${burst} at once` : ''} (${rate.toFixed(1)}): ${cpu?.length} read, ${refused} refused; ` +
        `began again ${again?.reduce((a, b) => a + b, 0)}, at most ${Math.max(...(again ?? []))}; ` +
        `followed ${middle(followed ?? [])}, at most ${Math.max(...(followed ?? []))}; ` +
        `CPU ${middle(cpu ?? []).toFixed(2)} s, at most ${Math.max(...(cpu ?? [])).toFixed(2)}; ` +
        `${middle(wall ?? []).toFixed(2)} s, at most ${Math.max(...(wall ?? [])).toFixed(2)}`,
    );
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
