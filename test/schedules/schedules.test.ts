/**
 * Randomised schedules of writers beside collections; see scheduler.ts for how one seed gives one schedule. The number of
 * schedules is EBBTIDE_SCHEDULES (default 500), the first seed EBBTIDE_SEED (default 1). A failure prints its seed;
 * `node dist/test/schedules/main.js --seed N --count 1` replays it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { GraphCore } from '../../src/engine/graph.js';
import { coreInfo } from '../../src/graph/carriers.js';
import { marks } from './marks.js';
import { type Mutation, mutations } from './mutations.js';
import { type Outcome, schedule } from './schedule.js';

const COUNT = Number(process.env.EBBTIDE_SCHEDULES ?? 500);
const FIRST = Number(process.env.EBBTIDE_SEED ?? 1);
/** Each so many-th schedule compares the graph with the records after every commit. */
const VERIFIED = 4;
/** Schedules that come by every mark. */
const MARKS_FROM = 375;
/** Schedules after which a missing protection must have shown. */
const MUTATION_MAX = 3000;

const { core: loaded, reason } = coreInfo();
const noNative = loaded === 'native' ? false : `schedules of the addon are left out: ${reason}`;

function story({ seed, violation, trace }: Outcome, core: GraphCore['kind']): string {
  const again = `node dist/test/schedules/main.js --core ${core} --seed ${seed} --count 1${seed % VERIFIED === 0 ? ' --verify' : ''}`;
  return `seed ${seed}: ${violation}\n${again}\n${trace.join('\n')}`;
}

function add(sums: Record<string, number>, counts: Readonly<Record<string, number>>): void {
  for (const [name, n] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + n;
}

/** Runs so many schedules; all must pass. Resolves with the sums of what they did. */
async function allHold(
  core: GraphCore['kind'],
  first: number,
  count: number,
): Promise<{ seen: Record<string, number>; met: Record<string, number> }> {
  const seen: Record<string, number> = {};
  const met: Record<string, number> = {};
  for (let seed = first; seed < first + count; seed++) {
    const outcome = await schedule(seed, { core, verify: seed % VERIFIED === 0 });
    assert.equal(outcome.violation, undefined, story(outcome, core));
    add(seen, outcome.seen);
    add(met, outcome.marks);
  }
  return { seen, met };
}

/** Seeds that went wrong last, of mutations that take long to find. After a change of the schedules others may. */
const foundAt: Readonly<Partial<Record<Mutation, number>>> = {
  'no-refollow': 2769,
  'no-step-with-change': 820,
  'no-flag-compare': 2243,
};

/** A schedule that goes wrong without a protection. */
async function firstLoss(core: GraphCore['kind'], mutation: Mutation): Promise<Outcome | undefined> {
  const known = foundAt[mutation];
  for (let seed = known === undefined ? 1 : 0; seed <= MUTATION_MAX; seed++) {
    const outcome = await schedule(seed || known!, { core, mutation });
    if (outcome.violation !== undefined) return outcome;
  }
  return undefined;
}

const share = { native: 0.75, wasm: 0.25 } as const;

for (const core of ['native', 'wasm'] as const) {
  const count = Math.max(1, Math.round(COUNT * (loaded === 'wasm' ? 1 : share[core])));
  const first = core === 'native' ? FIRST + COUNT : FIRST;

  test(`given writers beside collections with the core as ${core}, when ${count} schedules are run, then all pass`, {
    skip: core === 'native' ? noNative : false,
  }, async (t) => {
    const { seen, met } = await allHold(core, first, count);
    t.diagnostic(`seeds ${first} to ${first + count - 1}: ${JSON.stringify(seen)}`);
    t.diagnostic(`met: ${JSON.stringify(met)}`);
    if (count < 100) return;
    const removed = seen.removed ?? 0;
    assert.ok(removed > 10 * count, `collections removed ${removed} records in all`);
    for (const kind of ['blobs', 'snapshots', 'ingests', 'resources']) {
      assert.ok((seen[kind] ?? 0) > count / 2, `${seen[kind]} ${kind} went in all`);
    }
    if (count >= MARKS_FROM) {
      const missed = marks.filter((mark) => (met[mark] ?? 0) === 0);
      assert.deepEqual(missed, [], `never met in ${count} schedules`);
    }
    assert.ok((seen.waiting ?? 0) < removed / 50, `${seen.waiting} objects had to wait for the next run`);
  });
}

for (const mutation of mutations) {
  test(`given collections with ${mutation}, when schedules are run, then one fails`, async (t) => {
    const loss = await firstLoss(loaded, mutation);
    assert.ok(loss !== undefined, `a protection that can be missed in ${MUTATION_MAX} schedules`);
    t.diagnostic(`seed ${loss.seed}: ${loss.violation}`);
  });
}

test('given a schedule, when each of its backend calls fails, one at a time, then all pass', async (t) => {
  let run = 0;
  for (const seed of [11, 13]) {
    const core = seed === 13 ? loaded : 'wasm';
    const whole = await schedule(seed, { core, fault: { call: 0, when: 'before' } });
    for (let call = 1; call <= whole.calls; call++) {
      for (const when of ['before', 'after'] as const) {
        const outcome = await schedule(seed, { core, fault: { call, when } });
        assert.equal(outcome.violation, undefined, `${when} call ${call}: ${story(outcome, core)}`);
        run++;
      }
    }
  }
  t.diagnostic(`${run} schedules`);
  assert.ok(run > 100);
});

test('given some seeds, when their schedules are run on either carrier, then they are the same', async () => {
  const others = noNative ? (['wasm'] as const) : (['native', 'wasm'] as const);
  for (let seed = 7; seed < 47; seed++) {
    const once = await schedule(seed, { core: 'wasm' });
    assert.ok(once.steps > 10);
    for (const core of others)
      assert.deepEqual(await schedule(seed, { core }), once, `seed ${seed}, ${core}`);
  }
});
