import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { missingTools } from '../support/debian.js';

const missing = missingTools(['spin', 'gcc']);
const skip = missing === undefined ? false : `the models are not checked: ${missing}`;

/** For each macro of a model, what the counterexample without that protection says. */
type Protections = Readonly<Record<string, RegExp>>;

const ofCollection: Protections = {
  NO_BARRIER: /!\(reach/,
  LATE_JOURNAL: /!\(reach/,
  NO_RECHECK: /!\(reach/,
  NO_ALLOCATE_BLACK: /!\(fresh/,
  NO_GUARD: /!\(present/,
  NO_SWEEP_RECHECK: /!\(present/,
};
const WRONG_COUNT = /\(count\[i\]==\(/;
const NOT_WAITING = /\(count\[i\]==0\)/;
const ofLiveMarks: Protections = {
  NO_REVIVE: NOT_WAITING,
  NO_CASCADE: WRONG_COUNT,
  NO_TRIAL: /\(reach\[i\]\|\| !\(expanded/,
  SHALLOW_TRIAL: NOT_WAITING,
  EDGE_TWICE: WRONG_COUNT,
  NO_ROOT_WEIGHT: WRONG_COUNT,
  NO_FINISH: WRONG_COUNT,
  EARLY_SLICE: /!\(reach/,
};

interface Verdict {
  errors: number;
  states: number;
  report: string;
}

function run(cwd: string, command: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8', timeout: 300_000 });
  assert.equal(status, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}`);
  return stdout;
}

/** Searches every state of a model compiled with these macros, up to the first counterexample. */
function check(model: string, macros: readonly string[], optimise = '-O1'): Verdict {
  const file = fileURLToPath(new URL(`../../../test/model/spin/${model}.pml`, import.meta.url));
  const dir = mkdtempSync(join(tmpdir(), 'ebbtide-spin-'));
  try {
    run(dir, 'spin', [...macros.map((macro) => `-D${macro}`), '-a', file]);
    run(dir, 'gcc', [optimise, '-w', '-DSAFETY', '-DCOLLAPSE', '-DMEMLIM=2000', '-o', 'pan', 'pan.c']);
    const report = run(dir, './pan', ['-m100000']);
    assert.doesNotMatch(report, /max search depth too small|out of memory|truncated/);
    return {
      errors: Number(/errors: (\d+)/.exec(report)?.[1]),
      states: Number(/(\d+) states, stored/.exec(report)?.[1]),
      report,
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const ops = process.env.EBBTIDE_SPIN_OPS ?? '1';
const searches = {
  'one collection beside two writers': ['collection', `OPS=${ops}`],
  'live marks beside an addition, a deletion and a slice': ['live-marks', `DELETIONS=${ops}`],
} as const;
for (const [title, [model, macro]] of Object.entries(searches)) {
  test(`given ${title}, when every interleaving is searched, then nothing is lost`, { skip }, (t) => {
    const { errors, states, report } = check(model, [macro]);
    assert.equal(errors, 0, report);
    assert.ok(states > 1_000_000, `only ${states} states`);
    t.diagnostic(`${states} states`);
  });
}

test('given a collection without writers, when it has ended, then exactly what is reachable is left', {
  skip,
}, () => {
  const { errors, report } = check('collection', ['NO_WRITERS']);
  assert.equal(errors, 0, report);
});

for (const [model, protections] of Object.entries({ collection: ofCollection, 'live-marks': ofLiveMarks })) {
  for (const [macro, expected] of Object.entries(protections)) {
    test(`given the model ${model} with ${macro}, when it is searched, then there is a counterexample`, {
      skip,
    }, () => {
      // A counterexample comes soon: compiling takes longer than the search.
      const { errors, report } = check(model, [macro], '-O0');
      assert.equal(errors, 1, report);
      assert.match(report, expected);
    });
  }
}
