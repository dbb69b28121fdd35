/** The daemon's table for a terminal and for the docs. Pure. */
import type { Row } from './figures.js';

const heading = ['', 'unit', 'ebbtide', 'containerd', 'better by'] as const;

/** Three digits that count. */
export function figureText(value: number | undefined): string {
  if (value === undefined) return '–';
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

const cellsOf = (row: Row): string[] => [
  row.name,
  row.unit,
  figureText(row.ebbtide),
  figureText(row.containerd),
  row.ratio === undefined ? '' : `${figureText(row.ratio)} ×`,
];

export function tableText(rows: readonly Row[]): string {
  const cells = rows.map(cellsOf);
  const widths = heading.map((title, i) => Math.max(title.length, ...cells.map((c) => c[i]!.length)));
  const line = (parts: readonly string[]): string =>
    parts
      .map((part, i) => (i < 2 ? part.padEnd(widths[i]!) : part.padStart(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [
    line(heading),
    ...grouped(
      rows,
      (i) => line(cells[i]!),
      (group) => `— ${group}`,
    ),
  ].join('\n');
}

export function markdown(rows: readonly Row[]): string {
  const line = (parts: readonly string[]): string => `| ${parts.join(' | ')} |`;
  const body = grouped(
    rows,
    (i) => line(cellsOf(rows[i]!)),
    (group) => line([`**${group}**`, '', '', '', '']),
  );
  return [line(heading), '|---|---|---:|---:|---:|', ...body].join('\n');
}

function grouped(
  rows: readonly Row[],
  row: (i: number) => string,
  title: (group: string) => string,
): string[] {
  return rows.flatMap((r, i) => (r.group === rows[i - 1]?.group ? [row(i)] : [title(r.group), row(i)]));
}
