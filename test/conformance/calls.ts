/**
 * Runs the fixed series of raw calls (calls/*.go) on a server and compares two runs: the code of every call and every
 * field of every response. The words of errors are not compared.
 */
import { spawnSync } from 'node:child_process';
import { deliberate } from './calls-deliberate.js';
import { buildGo } from './go-programs.js';
import type { Release } from './releases.js';
import { Server, type Side } from './servers.js';

export interface CallResult {
  call: string;
  code: string;
  message?: string;
  response?: unknown;
}

const RUN_MS_MAX = 300_000;

export async function runCalls(side: Side, dir: string, release: Release = '1'): Promise<CallResult[]> {
  const program = buildGo('test/conformance/calls', 'program');
  await using server = await Server.start(side, { dir, release });
  const { status, stdout, stderr } = spawnSync(program, [server.address], {
    encoding: 'utf8',
    timeout: RUN_MS_MAX,
    maxBuffer: 1 << 28,
  });
  if (status !== 0) {
    throw new Error(`the calls ended with ${status} on ${side}: ${stderr}\n${server.lastLines()}`);
  }
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as CallResult);
}

export interface CallDifference {
  call: string;
  theirs: string;
  ours: string;
  /** Why it is meant to differ. */
  reason?: string;
}

export interface CallComparison {
  calls: number;
  differences: CallDifference[];
  /** Deliberate differences that no longer show: their entry has to go. */
  stale: string[];
}

export function compareCalls(
  theirs: readonly CallResult[],
  ours: readonly CallResult[],
  release: Release = '1',
): CallComparison {
  const differences: CallDifference[] = [];
  const stale: string[] = [];
  for (const [i, their] of theirs.entries()) {
    const our = ours[i];
    const reason = deliberate[release].get(their.call);
    const [a, b] = [outcome(their), outcome(our)];
    if (a !== b) {
      const words = (r: CallResult | undefined, text: string): string =>
        r?.message === undefined ? text : `${text}: ${r.message}`;
      differences.push({
        ...{ call: their.call, theirs: words(their, a), ours: words(our, b) },
        ...(reason === undefined ? {} : { reason }),
      });
    } else if (reason !== undefined) stale.push(their.call);
  }
  return { calls: theirs.length, differences, stale };
}

const outcome = (result: CallResult | undefined): string =>
  result === undefined ? 'not made' : result.code === 'OK' ? JSON.stringify(result.response) : result.code;
