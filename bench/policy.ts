/**
 * `npm run bench -- policy`: how long a policy takes to plan over synthetic stores (src/synth), wall clock and processor time,
 * and how long it holds the thread. The backends have no bytes, so what is measured is reading the records, choosing, and the
 * rows of the plan.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { PolicyPlan } from '../src/gc/report/plan.js';
import type { Policy } from '../src/policy/policy.js';
import { loadSynth } from '../src/synth/load.js';
import { denseHost, type Plan, planFor, type Shape, sum } from '../src/synth/shape.js';
import { type Taken, taken, watched } from './holds.js';
import { median } from './statistics.js';
import { openStore, peakWhile } from './store.js';

const usage = `npm run bench -- policy [options]
  --images LIST   stores of so many images, each in turn (default 10k,100k)
  --layers N      layers of an image (default 8)
  --shared N      share of them that comes from bases (default 0.5)
  --bases N       images for each base (default 20)
  --containers N  containers for each image (default 0.5)
  --used N        share of the store's bytes that the policy leaves (default 0.75)
  --runs N        plans of each store (default 3)
  --dir DIR       where the stores are made (default: temporary)`;

const { values: options } = parseArgs({
  args: process.argv.slice(2),
  options: {
    images: { type: 'string', default: '10k,100k' },
    layers: { type: 'string', default: '8' },
    shared: { type: 'string', default: '0.5' },
    bases: { type: 'string', default: '20' },
    containers: { type: 'string', default: '0.5' },
    used: { type: 'string', default: '0.75' },
    runs: { type: 'string', default: '3' },
    dir: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

const shape: Shape = {
  ...denseHost,
  layers: Number(options.layers),
  shared: Number(options.shared),
  imagesPerBase: Number(options.bases),
  containers: Number(options.containers),
};

/** A store of about so many images. */
function planOf(images: number): Plan {
  const sample = planFor(50_000, shape);
  return planFor(Math.ceil((images * sum(sample.counts)) / sample.counts.images), shape);
}

const policyOf = (bytes: number): Policy => ({
  rules: [
    { name: 'ci', namespaces: ['tenant-01'], keepDuration: '24h', keepLast: 2 },
    { name: 'space', keepDuration: '1h', keepTagged: ['stable'], maxUsedSpace: Math.round(bytes) },
  ],
});

async function measure(images: number): Promise<void> {
  const plan = planOf(images);
  const dir = await mkdtemp(join(options.dir ?? tmpdir(), 'ebbtide-bench-'));
  try {
    const first = await openStore(dir);
    await loadSynth(first.db.engine, plan);
    await first.db.close();
    const { db } = await openStore(dir);
    const { space } = await db.planPolicy(policyOf(Number.MAX_SAFE_INTEGER));
    const policy = policyOf(space.used * Number(options.used));
    const runs: Taken[] = [];
    let last: PolicyPlan | undefined;
    const { memory } = await peakWhile(async () => {
      for (let n = 0; n < Number(options.runs); n++) {
        const { result, ...times } = await taken(() => db.planPolicy(policy));
        last = result;
        runs.push(times);
      }
    });
    const { longestMs, p999Ms, turns } = await watched(() => db.planPolicy(policy));
    await db.close();
    const line = [
      `${plan.counts.images.toLocaleString('en-US')} images, ${sum(plan.counts).toLocaleString('en-US')} records:`,
      `${Math.round(median(runs.map(({ ms }) => ms)))} ms, processor ${Math.round(median(runs.map(({ cpuMs }) => cpuMs)))} ms`,
      `(${runs.map(({ ms, cpuMs }) => `${Math.round(ms)}/${Math.round(cpuMs)}`).join(', ')});`,
      `thread held ${longestMs.toFixed(1)} ms at most, p99.9 ${p999Ms.toFixed(1)} ms of ${turns} turns;`,
      `retired ${last?.retired.length}, objects ${last?.objects.length}, kept ${last?.kept.length};`,
      `peak ${Math.round(memory.anonBytes / 2 ** 20)} MiB`,
    ];
    process.stdout.write(`${line.join(' ')}\n`);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** `10k`. */
const numberOf = (text: string): number =>
  text.endsWith('k') ? 1000 * Number(text.slice(0, -1)) : Number(text);

if (options.help) process.stderr.write(`${usage}\n`);
else for (const images of options.images.split(',')) await measure(numberOf(images));
