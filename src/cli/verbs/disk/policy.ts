/** `ebbtide policy show|plan|apply`: rules that retire images, leases and containers, and what they would do. */
import { type Command, Option } from 'commander';
import { invalidArgument } from '../../../errors.js';
import type { KeptRoot, PolicyPlan, RetiredRoot } from '../../../gc/report/plan.js';
import { parseTimestamp } from '../../../model/time.js';
import { readPolicy } from '../../../policy/file.js';
import type { Policy, PolicyRule } from '../../../policy/policy.js';
import type { PolicyState } from '../../../server/policies.js';
import { collectionDocument } from '../../output/documents.js';
import { bytes, type Output, shortTime } from '../../output/output.js';
import { checkTextOutput, STDOUT, writeJson } from '../../output/text-file.js';
import { readVerb, type StoreEnv, storeVerb } from '../../runner.js';
import { printOutcome, readPlan } from './gc.js';

interface Options {
  file?: string;
}

const fileOption = (): Option =>
  new Option('--file <file>', "JSON file with the rules (default: the daemon's)");

export function policy(program: Command): void {
  const command = program.command('policy').description('rules that retire what was not used for longest');

  command
    .command('show')
    .description('show the rules; of a daemon, also what they did last and when they are next applied')
    .addOption(fileOption())
    .action(
      readVerb<Options>(
        async (env, _args, { file }) => {
          const state = file === undefined ? await ownOf(env) : { policy: await readPolicy(file) };
          env.out.object(state, () => printState(env.out, state));
        },
        { allNamespaces: true },
      ),
    );

  command
    .command('plan')
    .description('show what would be retired and freed, and why everything else stays; nothing is removed')
    .addOption(fileOption())
    .option('-o, --output <plan>', 'write the plan to a file, for `policy apply`, or - for standard output')
    .option('--kept', 'list what stays, too')
    .action(
      readVerb<Options & { output?: string; kept?: boolean; json?: boolean }>(
        async (env, _args, { file, output, kept }) => {
          const plan = await planOf(env, file);
          if (output !== undefined) await writeJson(output, plan, env.signal);
          env.progress.end();
          if (output === STDOUT) return;
          env.out.object(plan, () => printPlan(env.out, plan, kept === true));
        },
        ({ output, json }) => {
          if (output !== undefined) checkTextOutput(output, 'the plan', json === true);
          return { allNamespaces: true };
        },
      ),
    );

  command
    .command('apply [plan]')
    .description('retire what the rules say, or what is in a plan, and collect what only that kept')
    .addOption(fileOption())
    .option('--allow-mass-removal', 'continue even if nearly everything would be removed')
    .action(
      storeVerb<Options & { allowMassRemoval?: boolean }>(
        async (env, [name], { file, allowMassRemoval }) => {
          const { db, signal, out, progress } = env;
          const plan = name === undefined ? await planOf(env, file) : await readPlan(name);
          const outcome = await db.applyPlan(plan, { signal }, { massGuard: allowMassRemoval !== true });
          progress.end();
          const document = { ...outcome, stats: collectionDocument(outcome.stats) };
          out.object(document, () => printOutcome(out, outcome));
        },
        ({ file }, [name]) => {
          if (file !== undefined && name !== undefined)
            throw invalidArgument('a plan and --file were given', { remedy: 'leave one of them out' });
          return { allNamespaces: true };
        },
      ),
    );
}

async function planOf({ db, signal, progress }: StoreEnv, file: string | undefined): Promise<PolicyPlan> {
  progress.count('planning', 0);
  if (file !== undefined) return db.planPolicy(await readPolicy(file), { signal });
  if (db.planOwnPolicy === undefined) throw noPolicy();
  return db.planOwnPolicy({ signal });
}

async function ownOf({ db }: StoreEnv): Promise<PolicyState> {
  if (db.policy === undefined) throw noPolicy();
  return db.policy();
}

const noPolicy = () =>
  invalidArgument('no policy was named, and no daemon has the store', {
    object: 'policy',
    remedy: 'name a JSON file with --file; docs/policies.md describes it',
  });

// ------------------------------------------------------------------------------------------------------- output

function printState(
  out: Output,
  { policy, last, next }: Omit<PolicyState, 'policy'> & { policy: Policy },
): void {
  for (const [n, rule] of policy.rules.entries()) {
    out.line(rule.name ?? `rule ${n + 1}`);
    for (const [field, value] of Object.entries(rule)) {
      if (field !== 'name') out.line(`  ${field.padEnd(14)} ${wordsOf(value)}`);
    }
  }
  for (const field of ['every', 'highWater', 'lowWater'] as const) {
    const value = policy[field];
    if (value !== undefined) out.line(`${field.padEnd(16)} ${wordsOf(value)}`);
  }
  if (last !== undefined) {
    const { at, outcome, retired, bytes: freed, error } = last;
    out.line(
      `last             ${at}: ${outcome}, ${retired} retired, ${bytes(freed)} freed${error ? `: ${error}` : ''}`,
    );
  }
  if (next !== undefined) out.line(`next             ${next}`);
}

const wordsOf = (value: PolicyRule[keyof PolicyRule]): string =>
  Array.isArray(value) ? value.join(', ') : String(value);

function printPlan(out: Output, plan: PolicyPlan, all: boolean): void {
  const { retired, kept, rules, space } = plan;
  out.table<RetiredRoot>(retired, [
    { title: 'RETIRED', value: (r) => r.kind },
    { title: 'NAMESPACE', value: (r) => r.namespace, minor: true },
    { title: 'NAME', value: (r) => r.key },
    { title: 'LAST USED', value: (r) => timeOf(r.lastUsed), whole: true },
    { title: 'RULE', value: (r) => r.rule, minor: true },
    { title: 'FREES', value: (r) => bytes(r.bytes), right: true },
  ]);
  const shown = (all ? [...kept] : kept.filter(({ pins }) => pins > 0)).sort(byBytes);
  if (shown.length > 0) {
    out.table<KeptRoot>(shown, [
      { title: 'STAYS', value: (r) => r.kind },
      { title: 'NAMESPACE', value: (r) => r.namespace, minor: true },
      { title: 'NAME', value: (r) => r.key },
      { title: 'WHY', value: whyOf },
      { title: 'KEEPS', value: (r) => bytes(r.bytes), right: true },
      { title: 'OF RETIRED', value: (r) => bytes(r.pins), right: true },
    ]);
  }
  for (const { name, covered, retired: gone, bytes: freed, wanted, met } of rules) {
    const goal = wanted === undefined ? '' : ` of ${bytes(wanted)} wanted${met ? '' : ': not enough'}`;
    out.line(`${name}: ${gone} of ${covered} retired, ${bytes(freed)} freed${goal}`);
  }
  out.line(
    `store    ${bytes(space.used)} used, ${bytes(space.usedAfter)} after; ${bytes(space.garbage)} garbage`,
  );
  if (space.free !== undefined) {
    out.line(
      `free     ${bytes(space.free)}, ${bytes(space.freeAfter ?? 0)} after, of ${bytes(space.size ?? 0)}`,
    );
  }
  out.line(
    `${retired.length} retired, ${kept.length} stay; ${bytes(plan.bytes)} would be freed; nothing was removed`,
  );
}

const byBytes = (a: KeptRoot, b: KeptRoot): number => b.bytes - a.bytes || (a.key < b.key ? -1 : 1);

const timeOf = (text: string): string => shortTime(parseTimestamp(text) ?? 0n);

const whyOf = ({ reason, rule, by }: KeptRoot): string =>
  [reason, ...(by ? [`by ${by}`] : []), ...(rule ? [`(${rule})`] : [])].join(' ');
