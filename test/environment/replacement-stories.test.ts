/**
 * Stories of replaced directories (replacement-stories.ts): EBBTIDE_STORIES of them (default 8), from EBBTIDE_SEED (default 1).
 * Without a protection one of them goes wrong.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tempDir } from '../support/temp.js';
import { marks, mutations, Store } from './replacement-stories.js';

const COUNT = Number(process.env.EBBTIDE_STORIES ?? 8);
const FIRST = Number(process.env.EBBTIDE_SEED ?? 1);
/** Stories that come by every mark. */
const MARKS_FROM = 100;
/** Stories after which a missing protection must have shown. */
const MUTATION_MAX = 60;

test(`given writers and a collection, when a directory is replaced under them, then ${COUNT} stories pass`, async (t) => {
  await using store = new Store(await tempDir(t, 'ebbtide-stories-'));
  const met: Record<string, number> = {};
  for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
    const outcome = await store.report(seed);
    const { violations, reported } = outcome;
    assert.equal(violations.length, 0, `seed ${seed}: ${reported}\n${violations.join('\n')}`);
    for (const mark of outcome.marks) met[mark] = (met[mark] ?? 0) + 1;
  }
  t.diagnostic(`met: ${JSON.stringify(met)}`);
  const needed = COUNT < MARKS_FROM ? (['root replaced during a sweep'] as const) : marks;
  const missed = needed.filter((mark) => !(mark in met));
  assert.deepEqual(missed, [], `never met in ${COUNT} stories`);
});

for (const mutation of mutations) {
  test(`given a store with ${mutation}, when stories are run, then one fails`, async (t) => {
    const store = new Store(await tempDir(t, 'ebbtide-stories-'));
    t.after(() => store[Symbol.asyncDispose]().catch(() => undefined));
    for (let seed = 1; seed <= MUTATION_MAX; seed++) {
      const { violations } = await store.report(seed, mutation);
      if (violations.length === 0) continue;
      t.diagnostic(`seed ${seed}: ${violations[0]!.split('\n')[0]}`);
      return;
    }
    assert.fail(`a protection that can be missed in ${MUTATION_MAX} stories`);
  });
}
