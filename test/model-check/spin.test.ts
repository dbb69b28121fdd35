import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { missingTools } from '../support/debian.js';

const model = fileURLToPath(new URL('../../../test/model/spin/collection.pml', import.meta.url));
const missing = missingTools(['spin', 'gcc']);
const skip = missing === undefined ? false : `the model of the collection is not checked: ${missing}`;

/** A macro of the model, and what the counterexample without that protection says. */
const protections = {
  NO_BARRIER: /!\(reach/,
  LATE_JOURNAL: /!\(reach/,
  NO_RECHECK: /!\(reach/,
  NO_ALLOCATE_BLACK: /!\(fresh/,
  NO_GUARD: /!\(present/,
  NO_SWEEP_RECHECK: /!\(present/,
} as const;

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

/** Searches every state of the model compiled with these macros, up to the first counterexample. */
function check(...macros: readonly string[]): Verdict {
  const dir = mkdtempSync(join(tmpdir(), 'ebbtide-spin-'));
  try {
    run(dir, 'spin', [...macros.map((macro) => `-D${macro}`), '-a', model]);
    run(dir, 'gcc', ['-O2', '-w', '-DSAFETY', '-DCOLLAPSE', '-DMEMLIM=2000', '-o', 'pan', 'pan.c']);
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

test('given one collection beside two writers, when every interleaving is searched, then nothing is lost', {
  skip,
}, (t) => {
  const ops = process.env.EBBTIDE_SPIN_OPS ?? '1';
  const { errors, states, report } = check(`OPS=${ops}`);
  assert.equal(errors, 0, report);
  assert.ok(states > 1_000_000, `only ${states} states`);
  t.diagnostic(`${states} states`);
});

test('given a collection without writers, when it has ended, then exactly what is reachable is left', {
  skip,
}, () => {
  const { errors, report } = check('NO_WRITERS');
  assert.equal(errors, 0, report);
});

for (const [macro, expected] of Object.entries(protections)) {
  test(`given the model with ${macro}, when it is searched, then there is a counterexample`, { skip }, () => {
    const { errors, report } = check(macro);
    assert.equal(errors, 1, report);
    assert.match(report, expected);
  });
}
