/**
 * The load test: many Go clients (load/*.go) with mixed calls, collections running, the server killed with -9 at
 * intervals and started again on the same root and socket. Judged by the responses of each client: nothing acknowledged
 * may be lost, nothing live may be missing, and when everything was deleted a collection leaves nothing.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildGo } from './go-programs.js';
import { Server, type Side } from './servers.js';

export interface LoadOptions {
  dir: string;
  seconds: number;
  killSeconds: number;
  clients: number;
  seed: number;
  /** Remove things without the clients' knowledge before the check, which must then find faults. */
  sabotage?: boolean;
}

interface KindReport {
  acknowledged: number;
  unknown: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
}

export interface LoadReport {
  kills: number;
  kinds: Record<string, KindReport>;
  /** Objects whose presence or absence was acknowledged and checked at the end. */
  verified: number;
  faults: string[] | null;
  faultCount: number;
  /** What was still there after everything was deleted and collected. */
  left: string[] | null;
  /** Milliseconds from a start after a kill to the first connection. */
  restartMs: number[];
}

const DOWN_MS = 300;

export async function runLoad(side: Side, options: LoadOptions): Promise<LoadReport> {
  const program = buildGo('test/conformance/load', 'program');
  await using server = await Server.start(side, { dir: options.dir, gc: 'scheduled' });
  const args = [
    ...['-address', server.address, '-clients', String(options.clients), '-seed', String(options.seed)],
    ...['-duration', `${options.seconds}s`, ...(options.sabotage ? ['-sabotage'] : [])],
  ];
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  let report: Omit<LoadReport, 'restartMs'> | undefined;
  const ended = new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code, signal) => resolve(String(signal ?? code)));
  });
  const stopped = new AbortController();
  createInterface({ input: child.stdout }).on('line', (line) => {
    const said = JSON.parse(line) as { event: string };
    if (said.event === 'stopped') stopped.abort();
    else report = said as typeof said & Omit<LoadReport, 'restartMs'>;
  });
  void ended.then(() => stopped.abort());

  const restartMs: number[] = [];
  const restart = async (): Promise<void> => {
    child.stdin.write('down\n');
    await sleep(20); // The clients must know before they feel it.
    await server.kill();
    await sleep(DOWN_MS);
    const started = performance.now();
    await server.start();
    restartMs.push(performance.now() - started);
    child.stdin.write('up\n');
  };
  try {
    while (!stopped.signal.aborted) {
      await sleep(options.killSeconds * 1000, undefined, { signal: stopped.signal }).catch(() => {});
      if (child.exitCode === null) await restart(); // The last one when the clients have stopped.
    }
    child.stdin.write('verify\n');
    const end = await ended;
    if (report === undefined) {
      throw new Error(
        `the clients ended with ${end} and no report; the server's last lines:\n${server.lastLines()}`,
      );
    }
  } finally {
    child.kill('SIGKILL');
  }
  return { ...report, restartMs };
}

/** In a sentence each, what is wrong; empty when the run is good. */
export function loadVerdict(report: LoadReport): string[] {
  const calls = Object.values(report.kinds).reduce((sum, kind) => sum + kind.acknowledged, 0);
  return [
    ...(report.faults ?? []),
    ...(report.faultCount > (report.faults ?? []).length ? [`${report.faultCount} faults in all`] : []),
    ...(report.left ?? []).map((what) => `left after everything was deleted and collected: ${what}`),
    ...(report.kills < 1 ? ['the server was never killed'] : []),
    ...(calls < 100 || report.verified < 10
      ? [`only ${calls} calls and ${report.verified} objects to judge by`]
      : []),
  ];
}
