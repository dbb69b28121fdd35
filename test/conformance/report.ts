/** What a conformance run prints. Pure. */
import { type AbuseRow, cellsOf, heading } from './abuse/abuse.js';
import type { CallComparison } from './calls.js';
import type { ClientCheck } from './clients.js';
import type { LoadOptions, LoadReport } from './load.js';
import type { ProxyRun } from './proxy.js';
import type { RandomComparison } from './random-calls.js';
import type { TestRow } from './suites.js';
import type { StepComparison } from './transcript.js';

/** One thing that was looked at. */
export interface Check {
  name: string;
  /** Empty: as it should be. */
  wrong: string;
}

export function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = heading.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd();
  return [line(heading), ...rows.map(line)].join('\n');
}

export function suitesReport(rows: readonly TestRow[], lost: readonly TestRow[], output: string): string {
  const passed = (side: 'containerd' | 'ours'): number => rows.filter((row) => row[side] === 'pass').length;
  const body = rows.map((row) => [row.name, row.containerd, row.ours, lost.includes(row) ? '← worse' : '']);
  return [
    `containerd's suites: ${rows.length} tests, ${passed('containerd')} pass on containerd, ${passed('ours')} here`,
    table(['test', 'containerd', 'here', ''], body),
    ...(lost.length > 0 ? ['', output] : []),
  ].join('\n');
}

export function callsReport({ calls, differences, stale }: CallComparison): string {
  const meant = differences.filter((d) => d.reason !== undefined);
  const others = differences.filter((d) => d.reason === undefined);
  return [
    `raw calls: ${calls}, equal ${calls - differences.length}, meant to differ ${meant.length}, different ${others.length}`,
    ...others.flatMap((d) => [d.call, `  containerd | ${d.theirs}`, `  here       | ${d.ours}`]),
    ...meant.map((d) => `meant: ${d.call}: ${d.reason}`),
    ...stale.map((call) => `no longer differs, yet listed as meant: ${call}`),
  ].join('\n');
}

export function proxyReport(steps: readonly StepComparison[], run: ProxyRun, freed: boolean): string {
  const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const space = `the back end had ${mib(run.fullBytes)} and has ${mib(run.leftBytes)} after the removal`;
  return [
    transcriptReport(steps, { title: 'a containerd on proxy plugins beside one on its own' }),
    freed ? space : `NOT FREED: ${space}`,
  ].join('\n');
}

export function transcriptReport(
  steps: readonly StepComparison[],
  { title = 'a session of ctr', stale = [] }: { title?: string; stale?: readonly string[] } = {},
): string {
  const sections = [...new Set(steps.map((step) => step.section))];
  const body = sections.map((section) => {
    const own = steps.filter((step) => step.section === section);
    const lines = own.reduce((sum, step) => sum + step.lines, 0);
    const lacking = own.filter((step) => step.reason === undefined);
    const different = lacking.reduce((sum, step) => sum + step.differences.length, 0);
    const meant = own.length - lacking.length;
    const outcome = different === 0 ? 'equal' : `${different} lines differ`;
    return [
      section,
      String(own.length),
      String(lines),
      meant === 0 ? outcome : `${outcome}, ${meant} steps meant to differ`,
    ];
  });
  const reasons = new Set(steps.flatMap(({ reason }) => (reason === undefined ? [] : [reason])));
  const details = steps
    .filter((step) => step.differences.length > 0 && step.reason === undefined)
    .flatMap(({ section, line, differences }) => [
      `\n${section}: ${line}`,
      ...differences.map((d) => `  ${d.side === 'ours' ? 'here      ' : 'containerd'} | ${d.line}`),
    ]);
  const wording = steps
    .filter((step) => step.wording !== undefined)
    .flatMap(({ line, wording }) => [`  ${line}`, `    ${wording!.theirs}`, `    ${wording!.ours}`]);
  return [
    title,
    table(['section', 'steps', 'lines', ''], body),
    ...details,
    ...[...reasons].map((reason) => `meant: ${reason}`),
    ...stale.map((step) => `no longer differs, yet listed as meant: ${step}`),
    ...(wording.length > 0
      ? ['\nerrors of the same kind in other words (containerd, here):', ...wording]
      : []),
  ].join('\n');
}

export function randomReport({ sequences, calls, codes, differences }: RandomComparison): string {
  const meant = differences.flatMap(({ reason }) => reason ?? []);
  const outcomes = Object.entries(codes).map(([code, count]) => `${count} ${code}`);
  return [
    `${calls} calls in ${sequences} sequences: ${outcomes.join(', ')}`,
    ...[...new Set(meant)].map(
      (reason) => `meant, ${meant.filter((one) => one === reason).length} times: ${reason}`,
    ),
    ...differences
      .filter(({ reason }) => reason === undefined)
      .map(({ sequence, call, theirs, ours }) =>
        [`sequence ${sequence}`, ...call.split('\n').slice(-12), `theirs: ${theirs}`, `ours:   ${ours}`].join(
          '\n  ',
        ),
      ),
  ].join('\n');
}

export function loadReport(report: LoadReport, wrong: readonly string[], options: LoadOptions): string {
  const ms = (value: number): string => value.toFixed(1);
  const body = Object.entries(report.kinds)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([kind, k]) => [
      kind,
      String(k.acknowledged),
      String(k.unknown),
      ms(k.p50Ms),
      ms(k.p99Ms),
      ms(k.maxMs),
    ]);
  const restarts = report.restartMs.map((value) => value.toFixed(0)).join(', ');
  return [
    `load: ${options.clients} clients for ${options.seconds} s, killed ${report.kills} times, seed ${options.seed}`,
    table(['call', 'acknowledged', 'cut short', 'p50 ms', 'p99 ms', 'max ms'], body),
    `back after ${restarts} ms; ${report.verified} objects checked twice at the end`,
    ...(wrong.length === 0
      ? ['nothing acknowledged was lost, nothing live is missing, no garbage is left']
      : wrong),
  ].join('\n');
}

export function abuseReport(rows: readonly AbuseRow[], wrong: readonly string[]): string {
  return [
    'hostile clients, and what another client notices',
    table(heading, rows.map(cellsOf)),
    ...(wrong.length === 0
      ? [
          'others are served within 50 ms throughout, below 1 GiB; nowhere later, or from more memory, than on node:http2',
        ]
      : wrong),
  ].join('\n');
}

export function checksReport(title: string, checks: readonly Check[]): string {
  const rows = checks.map(({ name, wrong }) => [name, wrong === '' ? 'as it should be' : wrong]);
  return [title, table(['check', ''], rows)].join('\n');
}

export function clientsReport(checks: readonly ClientCheck[], bytes: number): string {
  const rows = checks.map(({ flow, rounds, passed, wrong }) => [flow, `${passed} of ${rounds}`, wrong]);
  return [`containerd's clients on a layer of ${bytes} bytes`, table(['flow', 'good rounds', ''], rows)].join(
    '\n',
  );
}
