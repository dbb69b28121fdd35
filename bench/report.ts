/**
 * The table: what was measured of both sides, one row a figure, and how many times better ebbtide is. Medians over
 * the runs, but delays, which are quantiles over the samples of all runs together.
 */
import { sum } from '../src/synth/shape.js';
import {
  type Collected,
  type Delays,
  fileRateNames,
  type Measured,
  rateNames,
  writeKinds,
} from './results.js';
import { largest, median, quantile } from './statistics.js';

export interface Row {
  group: string;
  name: string;
  unit: string;
  /** Which direction is better. */
  better: 'lower' | 'higher';
  ebbtide: number;
  peer?: number | undefined;
  /** How many times better ebbtide is; below 1: how much worse. */
  ratio?: number | undefined;
}

interface Figure {
  group: string;
  name: string;
  unit: string;
  better: 'lower' | 'higher';
  /** undefined where the side has no such figure. */
  of: (m: Measured) => number | undefined;
}

const lower = (group: string, name: string, unit: string, of: Figure['of']): Figure => ({
  group,
  name,
  unit,
  better: 'lower',
  of,
});
const higher = (group: string, name: string, of: Figure['of']): Figure => ({
  group,
  name,
  unit: '/s',
  better: 'higher',
  of,
});

const MIB = 1024 * 1024;
const medianOf = (m: Measured, of: (c: Collected) => number): number => median(m.collected.map(of));
const nexts = (m: Measured): Collected['next'] => m.collected.flatMap((c) => c.next);
const memoryOf = (c: Collected): number => c.first.memory.anonBytes - c.backendBytes;

const storeFigures: Figure[] = [
  lower('store', 'file bytes a record', 'B', (m) => m.loaded.fileBytes / sum(m.loaded.counts)),
  higher('store', 'records loaded in bulk', (m) => sum(m.loaded.counts) / m.loaded.seconds),
  lower('store', 'open', 'ms', (m) => m.reopened.openMs),
  lower('store', 'open to first mark finished', 'ms', (m) => m.reopened.openMs + m.reopened.first.markMs),
];

const collectionFigures: Figure[] = [
  lower('collection', 'mark', 'ms', (m) => median(nexts(m).map((c) => c.markMs))),
  lower('collection', 'nothing to remove', 'ms', (m) => median(nexts(m).map((c) => c.totalMs))),
  lower('collection', 'with garbage', 'ms', (m) => medianOf(m, (c) => c.first.totalMs)),
  lower('collection', 'then, until the tree has it', 'ms', (m) =>
    m.collected[0]?.drainedMs === undefined ? undefined : medianOf(m, (c) => c.drainedMs ?? 0),
  ),
  lower('collection', 'writers kept out at a stretch', 'ms', (m) => medianOf(m, (c) => c.first.lockedMs)),
  lower('collection', 'memory of the process', 'MiB', (m) => medianOf(m, memoryOf) / MIB),
  lower('collection', 'memory of the graph a node', 'B', ({ collected: [c] }) =>
    c?.graphBytes === undefined || !c.graphNodes ? undefined : c.graphBytes / c.graphNodes,
  ),
];

export const samplesOf = (m: Pick<Measured, 'delays'>, which: 'without' | 'with'): number[] =>
  m.delays.flatMap((d: Delays) => writeKinds.flatMap((kind) => d.delays[kind][which]));

const delayFigures: Figure[] = (['without', 'with'] as const).flatMap((which) => {
  const named = (q: string): string => `${q}, ${which === 'with' ? 'during a collection' : 'none running'}`;
  return [
    lower('writer delay', named('p50'), 'ms', (m) => quantile(samplesOf(m, which), 0.5)),
    lower('writer delay', named('p99'), 'ms', (m) => quantile(samplesOf(m, which), 0.99)),
    lower('writer delay', named('max'), 'ms', (m) => largest(samplesOf(m, which))),
  ];
});

delayFigures.push(
  lower('writer delay', 'p99, how much more during a collection', 'ms', (m) =>
    Math.max(0.001, quantile(samplesOf(m, 'with'), 0.99) - quantile(samplesOf(m, 'without'), 0.99)),
  ),
);

const rateTitles: Record<(typeof rateNames)[number], string> = {
  imageGet1: 'image get, any of all, 1 caller',
  imageGet8: 'image get, any of all, 8 callers',
  contentInfo1: 'content info, any of all, 1 caller',
  contentInfo8: 'content info, any of all, 8 callers',
  imageGetKept: 'image get, the same 2,000, 1 caller',
  contentInfoKept: 'content info, the same 2,000, 1 caller',
  imageList10k: 'list of 10,000 images',
  imageCreate1: 'image create, on disk, 1 caller',
  imageCreate64: 'image create, on disk, 64 callers',
  imageCreateVisible: 'image create, not flushed, 1 caller',
  leaseCreate1: 'lease create, on disk, 1 caller',
  labelUpdate1: 'label update, on disk, 1 caller',
  imageCreate1Collected: 'image create after 6 collections, 1 caller',
  imageCreate64Collected: 'image create after 6 collections, 64 callers',
};
const fileRateTitles: Record<(typeof fileRateNames)[number], string> = {
  blobWrite1: 'blob of 1 KiB written and committed, 1 caller',
  blobWrite16: 'blob of 1 KiB written and committed, 16 callers',
  snapshotCommit1: 'snapshot prepared and committed, 1 caller',
};

const figures: Figure[] = [
  ...storeFigures,
  ...collectionFigures,
  ...delayFigures,
  ...rateNames.map((name) => higher('operations', rateTitles[name], (m) => m.rates[name])),
  ...fileRateNames.map((name) => higher('with files', fileRateTitles[name], (m) => m.files[name])),
];

export function rowsOf(ebbtide: Measured, peer: Measured | undefined): Row[] {
  const rows: Row[] = [];
  for (const { group, name, unit, better, of } of figures) {
    const ours = of(ebbtide);
    if (ours === undefined) continue;
    const theirs = peer && of(peer);
    const ratio = theirs === undefined ? undefined : better === 'lower' ? theirs / ours : ours / theirs;
    rows.push({ group, name, unit, better, ebbtide: ours, peer: theirs, ratio });
  }
  return rows;
}

/** Three digits that count. */
export function figureText(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString('en-US');
  if (size >= 10) return value.toFixed(1);
  return size >= 1 ? value.toFixed(2) : value.toFixed(3);
}

const ratioText = (ratio: number | undefined): string =>
  ratio === undefined ? '–' : `${figureText(ratio)} ×`;

const heading = ['', 'unit', 'ebbtide', 'peer', 'better by'] as const;
const cellsOf = (r: Row): string[] => [
  r.name,
  r.unit,
  figureText(r.ebbtide),
  figureText(r.peer),
  ratioText(r.ratio),
];

/** For a terminal. */
export function tableText(rows: readonly Row[]): string {
  const cells = rows.map(cellsOf);
  const widths = heading.map((title, i) => Math.max(title.length, ...cells.map((c) => c[i]!.length)));
  const line = (parts: readonly string[]): string =>
    parts
      .map((p, i) => (i < 2 ? p.padEnd(widths[i]!) : p.padStart(widths[i]!)))
      .join('  ')
      .trimEnd();
  const lines = [line(heading)];
  for (const [i, row] of rows.entries()) {
    if (row.group !== rows[i - 1]?.group) lines.push(`— ${row.group}`);
    lines.push(line(cells[i]!));
  }
  return lines.join('\n');
}

/** For docs/benchmarks.md. */
export function markdown(rows: readonly Row[]): string {
  const line = (parts: readonly string[]): string => `| ${parts.join(' | ')} |`;
  const lines = [line(heading), '|---|---|---:|---:|---:|'];
  for (const [i, row] of rows.entries()) {
    if (row.group !== rows[i - 1]?.group) lines.push(line([`**${row.group}**`, '', '', '', '']));
    lines.push(line(cellsOf(row)));
  }
  return lines.join('\n');
}
