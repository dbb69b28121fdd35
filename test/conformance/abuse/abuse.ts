/**
 * Hostile clients, one kind after the other, against the daemon and against the same services on node:http2
 * (bench/daemon/node-http2), in one run. While an attack goes on a second client, on a connection of its own and now and
 * then on a new one, asks small questions; what it waits, what the server keeps in memory and how many calls its services
 * work on is what counts.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Server } from '../servers.js';
import { Asker } from './asker.js';
import { attacks } from './attacks.js';

export const transports = ['ebbtide', 'node-http2'] as const;
export type Transport = (typeof transports)[number];

export interface AbuseRow {
  attack: string;
  transport: Transport;
  /** The most calls that services worked on. */
  running: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
  /** Work of the server's main thread while a call of the second client waited. */
  workP99Ms: number;
  /** A connection made for one call, from connect to the response; NaN: none was served. */
  newP99Ms: number;
  asked: number;
  failed: number;
  peakMiB: number;
  /** The daemon was still there and served at the end. */
  alive: boolean;
}

export interface AbuseOptions {
  dir: string;
  seconds: number;
  only?: RegExp | undefined;
}

const program = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export async function runAbuse(options: AbuseOptions, said: (text: string) => void): Promise<AbuseRow[]> {
  const rows: AbuseRow[] = [];
  for (const attack of Object.keys(attacks).filter((name) => options.only?.test(name) ?? true)) {
    for (const transport of transports) {
      const row = await abuse(attack, transport, options);
      rows.push(row);
      said(rowText(row));
    }
  }
  return rows;
}

const text = (ms: number): string => (Number.isNaN(ms) ? 'none' : ms.toFixed(1));
export const heading = [
  'attack',
  'server',
  'calls running',
  'p50 ms',
  'p99 ms',
  'max ms',
  'p99 of work, ms',
  'new conn. p99',
  'failed',
  'peak MiB',
];
export const cellsOf = (row: AbuseRow): string[] => [
  row.attack,
  row.transport,
  String(row.running),
  text(row.p50Ms),
  text(row.p99Ms),
  text(row.maxMs),
  text(row.workP99Ms),
  text(row.newP99Ms),
  `${row.failed} of ${row.asked}`,
  `${row.peakMiB.toFixed(0)}${row.alive ? '' : ' GONE'}`,
];
const rowText = (row: AbuseRow): string => cellsOf(row).join(' | ');

async function abuse(
  attack: string,
  transport: Transport,
  { dir, seconds }: AbuseOptions,
): Promise<AbuseRow> {
  const own = join(dir, transport);
  const root = join(own, 'root');
  mkdirSync(root, { recursive: true });
  const filled = spawnSync(process.execPath, [program('store.js'), root], { encoding: 'utf8' });
  if (filled.status !== 0) throw new Error(`the store could not be filled: ${filled.stderr}`);
  const port = await freePort();
  const metrics = `127.0.0.1:${port}`;
  const server = await Server.start(transport, { dir: own, args: ['--metrics', metrics] });
  const asker = new Asker(server.address, server.pid!);
  let attacker: ChildProcess | undefined;
  let peak = 0;
  let running = 0;
  const watch = setInterval(() => {
    peak = Math.max(peak, rssMiB(server.pid));
    void callsRunning(metrics).then((count) => {
      running = Math.max(running, count);
    });
  }, 100);
  try {
    await asker.ask(1000);
    asker.forget();
    attacker = spawn(process.execPath, [program('attacker.js'), server.address, attack], { stdio: 'ignore' });
    await asker.ask(seconds * 1000);
    const found = asker.result();
    attacker.kill('SIGKILL');
    const alive = await asker.served();
    running = Math.max(running, await callsRunning(metrics));
    return { attack, transport, running, peakMiB: peak, alive, ...found };
  } finally {
    clearInterval(watch);
    attacker?.kill('SIGKILL');
    asker.close();
    await server.kill();
    rmSync(own, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

function rssMiB(pid: number | undefined): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

async function callsRunning(metrics: string): Promise<number> {
  try {
    const page = await fetch(`http://${metrics}/metrics`, { signal: AbortSignal.timeout(2000) });
    return Number(/^ebbtide_calls_running (\d+)/m.exec(await page.text())?.[1] ?? 0);
  } catch {
    return 0;
  }
}

const QUIET_P99_MS_MAX = 5;
/** A server that responds to another client in this time, under whatever attack. */
export const P99_MS_MAX = 50;
/** What the daemon may take of memory, under whatever attack (docs/daemon.md). */
export const PEAK_MIB_MAX = 1024;
/**
 * From here on it counts where the daemon is behind node:http2: what is below differs as much between two runs of one
 * server. The memory is what all clients together may make the daemon keep, and the idle process.
 */
const BEHIND_WORK_MS = 10;
const BEHIND_MIB = 256 + 96;

function behind(row: AbuseRow, other: AbuseRow | undefined): string[] {
  if (other === undefined || !other.alive) return [];
  return [
    ...(row.workP99Ms > Math.max(BEHIND_WORK_MS, other.workP99Ms)
      ? [
          `${row.attack}: others wait after ${text(row.workP99Ms)} ms of work, ${text(other.workP99Ms)} on node:http2`,
        ]
      : []),
    ...(row.peakMiB > Math.max(BEHIND_MIB, other.peakMiB)
      ? [`${row.attack}: ${row.peakMiB.toFixed(0)} MiB, ${other.peakMiB.toFixed(0)} on node:http2`]
      : []),
  ];
}

/** In a sentence each, what is wrong with the daemon. */
export function abuseVerdict(rows: readonly AbuseRow[]): string[] {
  // Where calls wait for milliseconds without any attack, the machine has other things to do, and waiting says little.
  const quiet = (rows.find(({ attack }) => attack === 'none')?.p99Ms ?? 0) < QUIET_P99_MS_MAX;
  return rows
    .filter(({ transport }) => transport === 'ebbtide')
    .flatMap((row) => [
      ...(row.alive ? [] : [`${row.attack}: the daemon is gone`]),
      ...(row.workP99Ms < P99_MS_MAX
        ? []
        : [`${row.attack}: others wait after ${text(row.workP99Ms)} ms of work (p99)`]),
      ...(quiet && row.p99Ms >= P99_MS_MAX
        ? [`${row.attack}: p99 of another client ${text(row.p99Ms)} ms`]
        : []),
      ...(quiet && row.newP99Ms >= P99_MS_MAX
        ? [`${row.attack}: p99 of a new connection ${text(row.newP99Ms)} ms`]
        : []),
      ...(row.failed === 0 ? [] : [`${row.attack}: ${row.failed} calls of another client failed`]),
      ...(row.peakMiB < PEAK_MIB_MAX ? [] : [`${row.attack}: ${row.peakMiB.toFixed(0)} MiB`]),
      ...behind(
        row,
        rows.find((other) => other.attack === row.attack && other.transport === 'node-http2'),
      ),
    ]);
}
