/** The daemon's table for a terminal and for the docs. Pure. */
import { type Column, columns, type Row } from './figures.js';

const titles: Readonly<Record<Column, string>> = {
  ebbtide: 'ebbtide',
  containerd: 'containerd 1.6',
  containerd2: 'containerd 2.1',
  nodeHttp2: 'on node:http2',
};
/** Those that were measured. */
const columnsOf = (rows: readonly Row[]): Column[] =>
  columns.filter((column) => rows.some(({ values }) => values[column] !== undefined));
const headingOf = (rows: readonly Row[]): string[] => [
  '',
  'unit',
  ...columnsOf(rows).flatMap((column) =>
    column === 'ebbtide' ? [titles[column]] : [titles[column], 'better by'],
  ),
];
const timesText = (ratio: number | undefined): string =>
  ratio === undefined ? '' : `${figureText(ratio)} ×`;

/** Three digits that count. */
export function figureText(value: number | undefined): string {
  if (value === undefined) return '–';
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

const cellsOf = (row: Row, shown: readonly Column[]): string[] => [
  row.name,
  row.unit,
  ...shown.flatMap((column) => {
    const value = figureText(row.values[column]);
    return column === 'ebbtide' ? [value] : [value, timesText(row.ratios[column])];
  }),
];

export function tableText(rows: readonly Row[]): string {
  const heading = headingOf(rows);
  const cells = rows.map((row) => cellsOf(row, columnsOf(rows)));
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
  const heading = headingOf(rows);
  const body = grouped(
    rows,
    (i) => line(cellsOf(rows[i]!, columnsOf(rows))),
    (group) => line([`**${group}**`, ...heading.slice(1).map(() => '')]),
  );
  return [
    line(heading),
    `|---|---|${heading
      .slice(2)
      .map(() => '---:|')
      .join('')}`,
    ...body,
  ].join('\n');
}

function grouped(
  rows: readonly Row[],
  row: (i: number) => string,
  title: (group: string) => string,
): string[] {
  return rows.flatMap((r, i) => (r.group === rows[i - 1]?.group ? [row(i)] : [title(r.group), row(i)]));
}
