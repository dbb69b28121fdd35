/** What a conformance run prints. Pure. */
import type { TestRow } from './suites.js';
import type { StepComparison } from './transcript.js';

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

export function transcriptReport(steps: readonly StepComparison[]): string {
  const sections = [...new Set(steps.map((step) => step.section))];
  const body = sections.map((section) => {
    const own = steps.filter((step) => step.section === section);
    const lines = own.reduce((sum, step) => sum + step.lines, 0);
    const different = own.reduce((sum, step) => sum + step.differences.length, 0);
    return [
      section,
      String(own.length),
      String(lines),
      different === 0 ? 'equal' : `${different} lines differ`,
    ];
  });
  const details = steps
    .filter((step) => step.differences.length > 0)
    .flatMap(({ section, line, differences }) => [
      `\n${section}: ${line}`,
      ...differences.map((d) => `  ${d.side === 'ours' ? 'here      ' : 'containerd'} | ${d.line}`),
    ]);
  const wording = steps
    .filter((step) => step.wording !== undefined)
    .flatMap(({ line, wording }) => [`  ${line}`, `    ${wording!.theirs}`, `    ${wording!.ours}`]);
  return [
    'a session of ctr',
    table(['section', 'steps', 'lines', ''], body),
    ...details,
    ...(wording.length > 0
      ? ['\nerrors of the same kind in other words (containerd, here):', ...wording]
      : []),
  ].join('\n');
}
