/**
 * The stores: measures ebbtide and, where Debian's Go packages are there, containerd's metadata store over the
 * same records in the same run, and prints a table of both. Nothing else should run on the machine meanwhile.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { denseHost, planFor, sum } from '../src/synth/shape.js';
import { describeMachine } from './machine.js';
import { measure, writeTargets } from './measure.js';
import { buildPeer, type PeerOrReason } from './peer.js';
import { markdown, rowsOf, tableText } from './report.js';
import type { Measured } from './results.js';
import { ourSide, peerSide, type Settings } from './side.js';
import { sizesTable } from './sizes.js';

const usage = `npm run bench -- [daemon|etcd] [options]
  --records N      records of the store; k and m are understood (default 100k)
  --scale          10 million records, ebbtide alone, one run
  --sizes LIST     ebbtide alone over stores of several sizes, such as 100k,1m,10m: what grows and what does not
  --seed TEXT      another store of the same shape
  --runs N         collections and delays are measured so often (default 3)
  --count N        writes of one rate (default 1000)
  --rate N         arrivals a second of each kind of write while delays are measured (default 25)
  --no-peer        ebbtide alone
  --no-wait        measure at once, even if the machine is busy
  --no-install     never install the peer's Debian packages
  --dir DIR        where the stores are made; a real disk, else flushing costs nothing (default: temporary)
  --json FILE      all figures and samples
  --markdown FILE  the table as Markdown; in place of the last one of this size in docs/benchmarks.md
  --profile DIR    CPU profiles of ebbtide's processes`;

const SCALE_RECORDS = 10_000_000;
const DELAY_LEAD_MS = 2000;
const CALM_LIMIT_MS = 30_000;

const { values: options } = parseArgs({
  options: {
    records: { type: 'string' },
    scale: { type: 'boolean', default: false },
    sizes: { type: 'string' },
    seed: { type: 'string', default: denseHost.seed },
    runs: { type: 'string' },
    count: { type: 'string', default: '1000' },
    rate: { type: 'string', default: '25' },
    'no-peer': { type: 'boolean', default: false },
    'no-wait': { type: 'boolean', default: false },
    'no-install': { type: 'boolean', default: false },
    dir: { type: 'string' },
    json: { type: 'string' },
    markdown: { type: 'string' },
    profile: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

function wholeNumber(name: string, text: string): number {
  const match = /^(\d+)([km]?)$/i.exec(text);
  const unit = { '': 1, k: 1000, m: 1_000_000 }[match?.[2]?.toLowerCase() ?? ''] ?? 1;
  const value = Number(match?.[1] ?? Number.NaN) * unit;
  if (!(value > 0)) throw new Error(`--${name} must be a whole number above 0, not "${text}"`);
  return value;
}

const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function scratchDirectory(): Promise<string> {
  const parent = options.dir ?? tmpdir();
  await mkdir(parent, { recursive: true });
  return mkdtemp(join(parent, 'ebbtide-bench-'));
}

/** A size after the other. */
async function sizes(list: string): Promise<void> {
  const planned = list.split(',').map((text) => wholeNumber('sizes', text.trim()));
  const plans = planned.map((records) => planFor(records, { ...denseHost, seed: options.seed }));
  const scratch = await scratchDirectory();
  try {
    const settings = {
      scratch,
      rate: wholeNumber('rate', options.rate),
      leadMs: DELAY_LEAD_MS,
      count: wholeNumber('count', options.count),
      profile: options.profile,
    };
    const machine = machineText(describeMachine(scratch));
    const table = await sizesTable(plans, settings, options['no-wait'] ? 0 : CALM_LIMIT_MS, say);
    process.stdout.write(`${machine}\n\n${table}\n`);
    if (options.markdown !== undefined)
      await writeSection(options.markdown, 'sizes', `${machine}\n\n${table}`);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

const machineText = (machine: ReturnType<typeof describeMachine>): string =>
  `${machine.cpu}; ${machine.memoryGiB} GiB; ${machine.disk}; ${machine.kernel}; ` +
  `Node ${machine.node}, lmdb ${machine.lmdb}, ${machine.core} core; ${machine.date}`;

async function main(): Promise<void> {
  if (options.sizes !== undefined) return sizes(options.sizes);
  const records = options.scale ? SCALE_RECORDS : wholeNumber('records', options.records ?? '100k');
  const runs = wholeNumber('runs', options.runs ?? (options.scale ? '1' : '3'));
  const plan = planFor(records, { ...denseHost, seed: options.seed });
  const scratch = await scratchDirectory();
  try {
    const machine = describeMachine(scratch);
    const settings: Settings = {
      plan,
      scratch,
      targets: join(scratch, 'targets.json'),
      rate: wholeNumber('rate', options.rate),
      leadMs: DELAY_LEAD_MS,
      count: wholeNumber('count', options.count),
      profile: options.profile,
    };
    await writeTargets(settings.targets, plan);
    const peer = await choosePeer(scratch);
    say(`${sum(plan.counts)} records, ${plan.edges} references, ${sum(plan.garbage)} records of garbage`);
    const calmLimitMs = options['no-wait'] ? 0 : CALM_LIMIT_MS;
    const started = Date.now();
    const print = (side: string) => (step: string) =>
      say(`${String(Math.round((Date.now() - started) / 1000)).padStart(5)} s  ${side}: ${step}`);
    const theirs =
      'program' in peer
        ? await measure(peerSide(settings, peer.program), plan, runs, calmLimitMs, print('peer'))
        : undefined;
    const ours = await measure(ourSide(settings), plan, runs, calmLimitMs, print('ebbtide'));
    await report({ machine, plan, peer, ours, theirs });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function choosePeer(scratch: string): Promise<PeerOrReason> {
  if (options.scale) return { missing: 'The peer is left out: at this scale it needs 50 GB and hours.' };
  if (options['no-peer']) return { missing: 'The peer is left out, as asked.' };
  return buildPeer(scratch, !options['no-install']);
}

interface Report {
  machine: ReturnType<typeof describeMachine>;
  plan: ReturnType<typeof planFor>;
  peer: PeerOrReason;
  ours: Measured;
  theirs: Measured | undefined;
}

async function report({ machine, plan, peer, ours, theirs }: Report): Promise<void> {
  const rows = rowsOf(ours, theirs);
  const against = 'version' in peer ? `Peer: ${peer.version}.` : peer.missing;
  const pressure = Math.round(Math.max(ours.pressure, theirs?.pressure ?? 0));
  const where = `${machineText(machine)}; ` + `CPU pressure before a measurement at most ${pressure} %.`;
  const what =
    `${sum(plan.counts).toLocaleString('en-US')} records (${Object.entries(plan.counts)
      .map(([kind, n]) => `${n} ${kind}`)
      .join(', ')}), ` + `${plan.edges} references, ${sum(plan.garbage)} records of garbage.`;
  process.stdout.write(`${[what, where, against, '', tableText(rows)].join('\n')}\n`);
  if (options.json !== undefined) {
    const { shape, counts, garbage, edges } = plan;
    const document = { machine, peer, shape, counts, garbage, edges, rows, ebbtide: ours, theirs };
    await writeFile(options.json, `${JSON.stringify(document, null, 1)}\n`);
  }
  if (options.markdown !== undefined) {
    const section = [what, '', `${where} ${against}`, '', markdown(rows)].join('\n');
    await writeSection(options.markdown, String(plan.records), section);
  }
}

/** Replaces what is between the markers of this name, or appends it with markers. */
async function writeSection(path: string, name: string, section: string): Promise<void> {
  const text = await readFile(path, 'utf8').catch(() => '');
  const [start, end] = [`<!-- bench ${name} -->`, `<!-- /bench ${name} -->`];
  const from = text.indexOf(start);
  const to = text.indexOf(end);
  const before = to < from || from < 0 ? text : text.slice(0, from);
  const after = to < from || from < 0 ? '\n' : text.slice(to + end.length);
  await writeFile(path, `${before}${start}\n${section}\n${end}${after}`);
}

if (options.help) say(usage);
else await main();
