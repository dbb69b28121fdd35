/**
 * ebbtide's side of a benchmark: a process of its own, so that its memory and its warm-up are those of one
 * measurement. Arguments: a mode and its settings as JSON; prints one JSON object on standard output.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { loadSynth } from '../src/synth/load.js';
import { planFor, type Shape } from '../src/synth/shape.js';
import { collect } from './collect.js';
import { delay } from './delay.js';
import { files } from './files.js';
import { rates } from './rates.js';
import type { Loaded, Target } from './results.js';
import { openStore } from './store.js';

export interface OursSettings {
  dir: string;
  records: number;
  shape: Shape;
  targets: string;
  runs: number;
  rate: number;
  leadMs: number;
  count: number;
}
export type OursMode = 'load' | 'collect' | 'delay' | 'rates' | 'files';

async function load({ dir, records, shape }: OursSettings): Promise<Loaded> {
  const start = performance.now();
  const { db } = await openStore(dir);
  const counts = await loadSynth(db.engine, planFor(records, shape));
  const seconds = (performance.now() - start) / 1000;
  await db.close();
  return { seconds, counts, fileBytes: bytesIn(dir) };
}

/** What the closed store takes, whatever its files are called. */
const bytesIn = (dir: string): number =>
  readdirSync(dir).reduce((sum, name) => sum + statSync(join(dir, name)).size, 0);

const targetsIn = (path: string): Target[] => JSON.parse(readFileSync(path, 'utf8')) as Target[];

function run(mode: OursMode, s: OursSettings): Promise<unknown> {
  switch (mode) {
    case 'load':
      return load(s);
    case 'collect':
      return collect(s.dir, s.runs);
    case 'delay':
      return delay(s.dir, targetsIn(s.targets), s.rate, s.leadMs);
    case 'rates':
      return rates(s.dir, targetsIn(s.targets), s.count);
    case 'files':
      return files(s.dir, s.count);
  }
}

const [mode, settings] = process.argv.slice(2);
const result = await run(mode as OursMode, JSON.parse(settings ?? '{}') as OursSettings);
process.stdout.write(`${JSON.stringify(result)}\n`);
