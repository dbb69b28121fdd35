/**
 * `npm run bench -- --sizes 100k,1m,10m`: the same measurements of ebbtide alone over stores of several sizes, side by
 * side, to show what grows with the store and what does not.
 */
import { join } from 'node:path';
import { type Plan, sum } from '../src/synth/shape.js';
import { measureBriefly, writeTargets } from './measure.js';
import { figureText, samplesOf } from './report.js';
import type { Brief } from './results.js';
import { ourSide, type Settings } from './side.js';
import { quantile } from './statistics.js';

interface SizeFigure {
  name: string;
  unit: string;
  of: (b: Brief, plan: Plan) => number;
}

const delays = (b: Brief, which: 'without' | 'with', q: number): number =>
  quantile(samplesOf({ delays: [b.delays] }, which), q);

const figures: SizeFigure[] = [
  { name: 'records', unit: '', of: (_, plan) => sum(plan.counts) },
  { name: 'of them garbage', unit: '', of: (_, plan) => sum(plan.garbage) },
  { name: 'file bytes a record', unit: 'B', of: (b, plan) => b.loaded.fileBytes / sum(plan.counts) },
  {
    name: 'graph bytes a node',
    unit: 'B',
    of: ({ collected: c }) => (c.graphBytes ?? 0) / (c.graphNodes || 1),
  },
  { name: 'open to first mark finished', unit: 'ms', of: (b) => b.reopened.openMs + b.reopened.first.markMs },
  { name: 'nothing to remove', unit: 'ms', of: (b) => Math.min(...b.collected.next.map((c) => c.totalMs)) },
  { name: 'with garbage', unit: 'ms', of: (b) => b.collected.first.totalMs },
  { name: 'longest pause', unit: 'ms', of: (b) => b.collected.first.lockedMs },
  { name: 'writer delay p50, none running', unit: 'ms', of: (b) => delays(b, 'without', 0.5) },
  { name: 'writer delay p50, during a collection', unit: 'ms', of: (b) => delays(b, 'with', 0.5) },
  { name: 'writer delay p99, none running', unit: 'ms', of: (b) => delays(b, 'without', 0.99) },
  { name: 'writer delay p99, during a collection', unit: 'ms', of: (b) => delays(b, 'with', 0.99) },
];

/** One column a size, as Markdown. */
export async function sizesTable(
  plans: readonly Plan[],
  settings: Omit<Settings, 'plan' | 'targets'>,
  calmLimitMs: number,
  report: (step: string) => void,
): Promise<string> {
  const columns: string[][] = [];
  for (const plan of plans) {
    const targets = join(settings.scratch, 'targets.json');
    await writeTargets(targets, plan);
    const name = sum(plan.counts).toLocaleString('en-US');
    const brief = await measureBriefly(ourSide({ ...settings, plan, targets }), plan, calmLimitMs, (step) =>
      report(`${name} records: ${step}`),
    );
    columns.push(figures.map(({ of }) => figureText(of(brief, plan))));
  }
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const rows = figures.map(({ name, unit }, i) => line([name, unit, ...columns.map((c) => c[i]!)]));
  return [
    line(['', 'unit', ...plans.map(() => '')]),
    line(['---', '---', ...plans.map(() => '---:')]),
    ...rows,
  ].join('\n');
}
