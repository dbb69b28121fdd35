/** `ebbtide gc`: runs one collection of the whole store; or a dry run; or writes or applies a plan. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { RunOptions } from '../../../db.js';
import type { PlanOutcome } from '../../../gc/report/apply-plan.js';
import { type Plan, parsePlan } from '../../../gc/report/plan.js';
import type { Candidate, Counts, GCStats } from '../../../gc/stats.js';
import { parseSize } from '../../../model/size.js';
import { readJson } from '../../../system/json-file.js';
import { collectionDocument } from '../../output/documents.js';
import { bytes, duration, type Output } from '../../output/output.js';
import { checkTextOutput, STDOUT, writeJson } from '../../output/text-file.js';
import { printStore, type StoreUsage, storeUsage } from '../../output/usage-lines.js';
import { type StoreEnv, storeVerb } from '../../runner.js';

interface Options {
  dryRun?: boolean;
  full?: boolean;
  plan?: string;
  json?: boolean;
  apply?: string;
  maxObjects?: number;
  maxBytes?: number;
  sliceMs?: number;
  allowMassRemoval?: boolean;
  disk: boolean;
}

export function gc(program: Command): void {
  program
    .command('gc')
    .description('collect garbage in all namespaces')
    .optionsGroup('What to do:')
    .option('--dry-run', 'remove nothing; list what would be removed, with sizes')
    .addOption(
      new Option(
        '--plan <file>',
        'remove nothing; write what would be removed to a file, or - for standard output',
      ).conflicts('dryRun'),
    )
    .addOption(
      new Option('--apply <file>', 'remove only objects of the plan that are still garbage').conflicts([
        'dryRun',
        'plan',
        'full',
      ]),
    )
    .option('--full', 'also survey the backends for orphans')
    .optionsGroup('Limits:')
    .option('--max-objects <n>', 'remove at most this many objects', positive)
    .option('--max-bytes <size>', 'remove at most this many bytes: 500M, 10G', size)
    .option('--slice-ms <ms>', 'time budget of a slice in milliseconds (default 2)', positive)
    .option('--allow-mass-removal', 'continue even if nearly everything, or many orphans, would be removed')
    .optionsGroup('Output:')
    .option('--no-disk', 'with --dry-run or --plan: do not measure the disk, which reads all directories')
    .action(
      storeVerb<Options>(
        async (env, _args, options) => {
          const { progress } = env;
          const started = Date.now();
          const ticker = setInterval(
            () =>
              progress.count('collecting', Math.round((Date.now() - started) / 1000), { unit: 'seconds' }),
            500,
          );
          try {
            if (options.plan !== undefined) await writePlan(env, options.plan, options);
            else if (options.apply !== undefined) await apply(env, options.apply, runOptions(options));
            else await collectNow(env, options);
          } finally {
            clearInterval(ticker);
            progress.end();
          }
        },
        ({ dryRun, plan, json }) => {
          if (plan !== undefined) checkTextOutput(plan, 'the plan', json === true);
          return { allNamespaces: true, reads: dryRun === true || plan !== undefined };
        },
      ),
    );
}

function runOptions({ full, maxObjects, maxBytes, sliceMs }: Options): RunOptions {
  return { fullSweep: full === true, maxObjects, maxBytes, sliceBudgetMs: sliceMs };
}

async function collectNow({ db, out, signal, progress }: StoreEnv, options: Options): Promise<void> {
  const { dryRun, allowMassRemoval } = options;
  const stats = await db.garbageCollect(
    { signal },
    {
      ...runOptions(options),
      dryRun: dryRun === true,
      massGuard: allowMassRemoval !== true,
      orphanGuard: allowMassRemoval !== true,
    },
  );
  progress.end();
  if (dryRun) printDryRun(out, stats, await usageOf({ db, signal }, options));
  else out.object(collectionDocument(stats), () => printStats(out, stats));
}

/** The lines of `du`. */
async function usageOf(
  { db, signal }: Pick<StoreEnv, 'db' | 'signal'>,
  { disk }: Options,
): Promise<StoreUsage> {
  return storeUsage(await db.du({ signal }, { by: 'none', disk }));
}

async function writePlan(env: StoreEnv, file: string, options: Options): Promise<void> {
  const { db, out, signal, progress } = env;
  const plan = await db.planCollection({ signal }, runOptions(options));
  await writeJson(file, plan, signal);
  if (file === STDOUT) return progress.end();
  const { objects, bytes: size, revision } = plan;
  const usage = await usageOf(env, options);
  progress.end();
  out.object({ file, revision, objects: objects.length, bytes: size, usage }, () => {
    out.line(
      `${file}: ${objects.length} objects, ${bytes(size)}, at revision ${revision}; nothing was removed`,
    );
    printStore(out, usage);
  });
}

async function apply({ db, out, signal }: StoreEnv, file: string, options: RunOptions): Promise<void> {
  const outcome = await db.applyPlan(await readPlan(file), { signal }, options);
  out.object({ ...outcome, stats: collectionDocument(outcome.stats) }, () => printOutcome(out, outcome));
}

export async function readPlan(file: string): Promise<Plan> {
  return parsePlan(await readJson('plan', file));
}

export function printOutcome(out: Output, { removed, rest, stats }: PlanOutcome): void {
  out.line(`removed   ${counts(stats.removed)} of the plan's ${removed.length + rest.length} objects`);
  out.line(`freed     ${bytes(stats.bytesFreed)}`);
  if (rest.length === 0) return;
  out.table(rest, [
    { title: 'LEFT', value: (r) => r.reason },
    { title: 'KIND', value: (r) => r.kind },
    { title: 'NAMESPACE', value: (r) => r.namespace },
    { title: 'OBJECT', value: (r) => r.key },
  ]);
}

function positive(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0)) throw new InvalidArgumentError('must be a number above 0');
  return value;
}

function size(text: string): number {
  const bytes = parseSize(text);
  if (!bytes) throw new InvalidArgumentError('must be a size, like 500M or 10G');
  return bytes;
}

export function printDryRun(out: Output, stats: GCStats, usage?: StoreUsage): void {
  const candidates = stats.wouldRemove ?? [];
  const total = candidates.reduce((sum, c) => sum + c.size, 0);
  const { walked } = stats;
  out.object({ wouldRemove: candidates, bytes: total, walked, usage }, () => {
    out.table<Candidate>(candidates, [
      { title: 'KIND', value: (c) => c.kind },
      { title: 'NAMESPACE', value: (c) => (c.orphan ? '(no record)' : c.namespace) },
      { title: 'OBJECT', value: (c) => c.key },
      { title: 'BYTES', value: (c) => bytes(c.size), right: true },
    ]);
    const orphans = candidates.filter(({ orphan }) => orphan).length;
    out.line(
      `${candidates.length} objects, ${orphans} of them without a record, ${bytes(total)}; nothing was removed`,
    );
    out.line(
      walked.length > 0
        ? `surveyed for orphans: ${walked.join(', ')}`
        : 'the backends were not surveyed for orphans; --full does that',
    );
    if (usage !== undefined) printStore(out, usage);
  });
}

function printStats(out: Output, stats: GCStats): void {
  out.line(`kept      ${counts(stats.marked)}`);
  out.line(`removed   ${counts(stats.removed)}`);
  out.line(`freed     ${bytes(stats.bytesFreed)}`);
  if (Object.keys(stats.orphans).length > 0) {
    out.line(`orphans   ${counts(stats.orphans)} without a record, included in the bytes freed`);
  }
  const { mark, sweep, backends } = stats.phases;
  out.line(
    `time      mark ${duration(mark)} (${stats.marking}), records ${duration(sweep)}, backends ${duration(backends)}`,
  );
  out.line(`pauses    longest ${duration(stats.pauseMax)}, ${stats.slices} slices`);
  if (stats.sweepsHeld) out.line('held      a backup is under way: the next run after it frees the bytes');
  if (stats.limited) out.line('limited   there is more garbage than this run was allowed to remove');
  if (stats.refused > 0) out.line(`refused   ${stats.refused} by backends (in use); a later run tries again`);
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
