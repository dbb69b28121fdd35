/** `ebbtide gc [--dry-run] [--full]`: one collection of the whole store. */
import type { Command } from 'commander';
import type { Candidate, Counts, GCStats } from '../../gc/stats.js';
import { bytes, duration, type Output } from '../output.js';
import { storeVerb } from '../runner.js';

interface Options {
  dryRun?: boolean;
  full?: boolean;
}

export function gc(program: Command): void {
  program
    .command('gc')
    .description('collect garbage in all namespaces')
    .option('--dry-run', 'remove nothing; list what would go, with bytes')
    .option('--full', 'also walk the backends for what no record names')
    .action(
      storeVerb<Options>(async ({ db, out, signal, progress }, _args, { dryRun, full }) => {
        const started = Date.now();
        const ticker = setInterval(
          () => progress.report('collecting', Math.round((Date.now() - started) / 1000), 0, 'items'),
          500,
        );
        try {
          const stats = await db.garbageCollect(
            { signal },
            { dryRun: dryRun === true, fullSweep: full === true },
          );
          progress.end();
          if (dryRun) printDryRun(out, stats);
          else out.object(stats, () => printStats(out, stats));
        } finally {
          clearInterval(ticker);
        }
      }),
    );
}

export function printDryRun(out: Output, stats: GCStats): void {
  const candidates = stats.wouldRemove ?? [];
  const total = candidates.reduce((sum, c) => sum + c.size, 0);
  out.object({ wouldRemove: candidates, bytes: total }, () => {
    out.table<Candidate>(candidates, [
      { title: 'KIND', value: (c) => c.kind },
      { title: 'NAMESPACE', value: (c) => c.namespace },
      { title: 'OBJECT', value: (c) => c.key },
      { title: 'BYTES', value: (c) => bytes(c.size), right: true },
    ]);
    out.line(`${candidates.length} objects, ${bytes(total)}; nothing was removed`);
  });
}

export function printStats(out: Output, stats: GCStats): void {
  out.line(`kept      ${counts(stats.marked)}`);
  out.line(`removed   ${counts(stats.removed)}`);
  out.line(`freed     ${bytes(stats.bytesFreed)}`);
  const { mark, sweep, backends } = stats.phases;
  out.line(`time      mark ${duration(mark)}, records ${duration(sweep)}, backends ${duration(backends)}`);
  out.line(`pauses    longest ${duration(stats.pauseMax)}, ${stats.slices} slices`);
  if (stats.backendErrors > 0)
    out.line(`errors    ${stats.backendErrors} in backends; the next run tries again`);
}

/** "3 content, 2 snapshot" or "nothing". */
export function counts(by: Counts): string {
  const parts = Object.entries(by)
    .filter(([, n]) => n > 0)
    .map(([kind, n]) => `${n} ${kind}`);
  return parts.join(', ') || 'nothing';
}
