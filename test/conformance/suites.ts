/**
 * Runs containerd's exported content and snapshotter suites (suites/suites_test.go) against one server after the
 * other and sets the outcomes beside each other. A test that passes on containerd must pass here.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { buildGo } from './go-programs.js';
import type { Release } from './releases.js';
import { Server, type Side } from './servers.js';

export type Outcome = 'pass' | 'fail' | 'skip' | 'not run';
export interface TestRow {
  name: string;
  containerd: Outcome;
  ours: Outcome;
}

interface Round {
  policy: 'shared' | 'isolated';
  /** Go test functions of the round; each round gets a fresh server. */
  tests: readonly string[];
}

const rounds: readonly Round[] = [
  { policy: 'shared', tests: ['TestContent', 'TestContentShared'] },
  { policy: 'isolated', tests: ['TestContent', 'TestContentIsolated', 'TestContentSharedNamespaceIsolated'] },
  { policy: 'shared', tests: ['TestNative'] },
  { policy: 'shared', tests: ['TestOverlayfs'] },
];
const ROUND_MS_MAX = 300_000;

export interface SuiteRun {
  outcomes: Map<string, Outcome>;
  /** What the failing tests printed. */
  output: string;
}

export async function runSuites(side: Side, dir: string, release: Release, only?: RegExp): Promise<SuiteRun> {
  const program = buildGo('test/conformance/suites', 'test', release);
  const outcomes = new Map<string, Outcome>();
  let output = '';
  for (const [i, round] of rounds.entries()) {
    const tests = round.tests.filter((t) => only?.test(t) ?? true);
    if (tests.length === 0) continue;
    await using server = await Server.start(side, {
      dir: join(dir, `${side}-${i}`),
      release,
      policy: round.policy,
    });
    const args = ['-test.v', '-test.parallel', '1', '-test.timeout', `${ROUND_MS_MAX}ms`];
    const run = spawnSync(program, [...args, '-test.run', `^(${tests.join('|')})$`], {
      encoding: 'utf8',
      env: { ...process.env, SUITES_ADDRESS: server.address },
      maxBuffer: 1 << 28,
      timeout: ROUND_MS_MAX + 30_000,
    });
    const text = `${run.stdout}${run.stderr}`;
    const found = parseOutcomes(text);
    if (found.size === 0) throw new Error(`the suites did not run on ${side}:\n${text}${server.lastLines()}`);
    for (const [name, outcome] of found) {
      // The content suite runs under both policies.
      outcomes.set(round.policy === 'isolated' ? `${name} (isolated)` : name, outcome);
    }
    if (run.status !== 0) output += `── ${side}, ${tests.join(', ')}\n${text}\n`;
    if (side === 'ebbtide' && run.status !== 0) output += `── its log\n${server.lastLines(40)}\n`;
  }
  return { outcomes, output };
}

/** The leaves of `go test -v`: `--- PASS: TestContent/Writer (0.03s)`, at any depth. */
export function parseOutcomes(text: string): Map<string, Outcome> {
  const all = new Map<string, Outcome>();
  for (const [, word, name] of text.matchAll(/^\s*--- (PASS|FAIL|SKIP): (\S+) \(/gm)) {
    all.set(name!, word!.toLowerCase() as Outcome);
  }
  const names = [...all.keys()];
  for (const name of names) {
    const parent = name.slice(0, name.lastIndexOf('/'));
    // A function that only has subtests says nothing of its own, unless it failed by itself.
    if (all.get(parent) !== 'fail' || all.get(name) === 'fail') all.delete(parent);
  }
  return all;
}

export function suiteRows(theirs: SuiteRun, ours: SuiteRun): TestRow[] {
  const names = new Set([...theirs.outcomes.keys(), ...ours.outcomes.keys()]);
  return [...names]
    .sort((a, b) => (a < b ? -1 : 1))
    .map((name) => ({
      name: name.replace(/^Test/, ''),
      containerd: theirs.outcomes.get(name) ?? 'not run',
      ours: ours.outcomes.get(name) ?? 'not run',
    }));
}

/** The rows that count against us. */
export const worse = (rows: readonly TestRow[]): TestRow[] =>
  rows.filter((row) => row.containerd === 'pass' && row.ours !== 'pass');
