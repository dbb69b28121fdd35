/**
 * Any number of schedules from the command line: `node dist/test/schedules/main.js --count 20000`. Prints the first
 * failing seed with the end of its story and exits 1. `--seed N --count 1` replays one schedule.
 */
import { parseArgs } from 'node:util';
import { coreInfo, coreKinds } from '../../src/graph/carriers.js';
import { mutations } from './mutations.js';
import { schedule } from './schedule.js';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '1' },
    core: { type: 'string' },
    without: { type: 'string' },
    marks: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    verify: { type: 'boolean', default: false },
  },
});
const mutation = mutations.find((name) => name === values.without);
if (values.without !== undefined && mutation === undefined) {
  throw new Error(`--without takes one of ${mutations.join(', ')}`);
}
const core = coreKinds.find((kind) => kind === values.core) ?? coreInfo().core;
const first = Number(values.seed);
const count = Number(values.count);
const sums: Record<string, number> = {};
const marks: Record<string, number> = {};
const began = process.hrtime.bigint();
let failed = 0;
let steps = 0;
for (let seed = first; seed < first + count; seed++) {
  const outcome = await schedule(seed, { core, mutation, verify: values.verify });
  steps += outcome.steps;
  for (const [name, n] of Object.entries(outcome.seen)) sums[name] = (sums[name] ?? 0) + n;
  for (const [name, n] of Object.entries(outcome.marks)) marks[name] = (marks[name] ?? 0) + n;
  if (outcome.violation === undefined) continue;
  failed++;
  process.exitCode = 1;
  if (values.keep) console.log(`seed ${seed}: ${outcome.violation.split('\n')[0]}`);
  else {
    console.log(outcome.trace.join('\n'));
    console.log(`seed ${seed}: ${outcome.violation}`);
    break;
  }
}
if (values.marks) console.log(marks);
const ms = Number((process.hrtime.bigint() - began) / 1_000_000n);
console.log(`${failed} failed of ${count}; ${steps} steps; ${ms} ms; ${JSON.stringify(sums)}`);
