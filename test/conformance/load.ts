/**
 * The load test: many Go clients (load/*.go) with mixed calls, collections running, the server killed with -9 at
 * intervals and started again on the same root and socket. Judged by the responses of each client: nothing acknowledged
 * may be lost, nothing live may be missing, and when everything was deleted a collection leaves nothing.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildGo } from './go-programs.js';
import { CtrSession } from './load/ctr.js';
import type { Release } from './releases.js';
import { Server, type Side } from './servers.js';

export interface LoadOptions {
  dir: string;
  seconds: number;
  killSeconds: number;
  /** Of all releases together. */
  clients: number;
  /** Whose Go clients work on the server; of several also each one's ctr. */
  releases: readonly Release[];
  seed: number;
  /** Remove things without the clients' knowledge before the check, which must then find faults. */
  sabotage?: boolean;
}

export interface KindReport {
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
  const { releases, clients } = options;
  const args = side === 'ebbtide' && releases.includes('2') ? ['--transfer'] : [];
  await using server = await Server.start(side, { dir: options.dir, gc: 'scheduled', args });
  const share = Math.ceil(clients / releases.length);
  const programs = releases.map((release, i) =>
    LoadProgram.start(server.address, options, release, Math.min(share, clients - i * share)),
  );
  const sessions =
    releases.length > 1 ? releases.map((release) => new CtrSession(server, options.dir, release)) : [];
  const stopped = new AbortController();
  const allStopped = Promise.all(programs.map((program) => program.stopped)).then(() => stopped.abort());
  const working = Promise.all(sessions.map((session) => session.work(stopped.signal)));
  const say = (word: string): void => {
    for (const program of programs) program.say(word);
  };

  const restartMs: number[] = [];
  const restart = async (): Promise<void> => {
    say('down');
    for (const session of sessions) session.isDown = true;
    await sleep(20); // The clients must know before they feel it.
    await server.kill();
    await sleep(DOWN_MS);
    const started = performance.now();
    await server.start();
    restartMs.push(performance.now() - started);
    say('up');
    for (const session of sessions) session.isDown = false;
  };
  try {
    while (!stopped.signal.aborted) {
      await sleep(options.killSeconds * 1000, undefined, { signal: stopped.signal }).catch(() => {});
      if (programs.some((program) => program.isRunning)) await restart(); // The last one when the clients have stopped.
    }
    await Promise.all([allStopped, working]);
    say('verify');
    const reports = await Promise.all(programs.map((program) => program.report(server)));
    const judged = await Promise.all(sessions.map((session) => session.verify()));
    return { ...merged([...reports, ...judged]), restartMs };
  } finally {
    for (const program of programs) program.end();
  }
}

type PartReport = Omit<LoadReport, 'restartMs'>;

/** The Go clients of one release. */
class LoadProgram {
  readonly stopped: Promise<void>;
  readonly #child: ChildProcess;
  readonly #release: string;
  readonly #ended: Promise<string>;
  #report: PartReport | undefined;

  private constructor(child: ChildProcess, release: string) {
    this.#child = child;
    this.#release = release;
    this.#ended = new Promise<string>((resolve) => {
      child.on('error', (error) => resolve(error.message));
      child.on('close', (code, signal) => resolve(String(signal ?? code)));
    });
    const said = new Promise<void>((resolve) => {
      createInterface({ input: child.stdout! }).on('line', (line) => {
        const one = JSON.parse(line) as { event: string };
        if (one.event === 'stopped') resolve();
        else this.#report = one as typeof one & PartReport;
      });
    });
    this.stopped = Promise.race([said, this.#ended.then(() => {})]);
  }

  static start(address: string, options: LoadOptions, release: Release, clients: number): LoadProgram {
    const program = buildGo('test/conformance/load', 'program', release);
    const args = [
      ...['-address', address, '-clients', String(clients), '-seed', String(options.seed)],
      ...['-duration', `${options.seconds}s`, '-namespaces', `load-${release}`],
      ...(options.sabotage ? ['-sabotage'] : []),
    ];
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    child.stdin.on('error', () => {});
    return new LoadProgram(child, release);
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  say(word: string): void {
    this.#child.stdin!.write(`${word}\n`);
  }

  /** When it has verified. */
  async report(server: Server): Promise<PartReport> {
    const end = await this.#ended;
    if (this.#report !== undefined) return this.#report;
    throw new Error(
      `the clients of ${this.#release} ended with ${end} and no report; the server's last lines:\n${server.lastLines()}`,
    );
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }
}

/** Of clients that worked on one server; percentiles are those of the slower ones. */
export function merged(reports: readonly PartReport[]): PartReport {
  const kinds: Record<string, KindReport> = {};
  for (const [kind, one] of reports.flatMap((report) => Object.entries(report.kinds))) {
    const sum = kinds[kind] ?? { acknowledged: 0, unknown: 0, p50Ms: 0, p99Ms: 0, maxMs: 0 };
    kinds[kind] = {
      acknowledged: sum.acknowledged + one.acknowledged,
      unknown: sum.unknown + one.unknown,
      p50Ms: Math.max(sum.p50Ms, one.p50Ms),
      p99Ms: Math.max(sum.p99Ms, one.p99Ms),
      maxMs: Math.max(sum.maxMs, one.maxMs),
    };
  }
  const total = (of: (report: PartReport) => number): number =>
    reports.reduce((sum, one) => sum + of(one), 0);
  return {
    kinds,
    kills: Math.max(...reports.map(({ kills }) => kills)),
    verified: total(({ verified }) => verified),
    faults: reports.flatMap(({ faults }) => faults ?? []),
    faultCount: total(({ faultCount }) => faultCount),
    left: reports.flatMap(({ left }) => left ?? []),
  };
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
