/** What the hard writer (hard-writer.ts) writes, known by the number of its newest commit. */
import type { Engine, Value } from '../../src/engine/contract.js';
import { key } from '../../src/engine/schema/keys.js';

const SLOTS = 1500;
const SLOTS_AT_ONCE = 8;

export const newestKey = key('meta', 'newest');
const slotKey = (slot: number): string => key('images', 'ns', `s${String(slot).padStart(4, '0')}`);
const contentOf = (commit: number): Value => ({
  size: commit,
  refs: { label: key('blobs', 'ns', `b${commit % 100}`) },
});

/** The records of a commit: each makes its number the value of the next few slots, round and round. */
export function recordsOf(commit: number): [string, Value][] {
  const first = commit * SLOTS_AT_ONCE;
  return Array.from({ length: SLOTS_AT_ONCE }, (_, i) => [slotKey((first + i) % SLOTS), contentOf(commit)]);
}

/** The commit whose state an engine shows; throws when it is the state of none. */
export function commitShown(engine: Engine): number {
  const newest = engine.get(newestKey);
  const commit = typeof newest === 'object' ? Number(newest.size) : 0;
  const last = commit * SLOTS_AT_ONCE + SLOTS_AT_ONCE - 1;
  const expected: [string, number][] = [];
  for (let slot = 0; slot < SLOTS; slot++) {
    const write = last - ((((last - slot) % SLOTS) + SLOTS) % SLOTS);
    if (write >= SLOTS_AT_ONCE) expected.push([slotKey(slot), Math.floor(write / SLOTS_AT_ONCE)]);
  }
  const found = [...engine.scan(key('images', 'ns'))].map(([name, value]) => [
    name,
    typeof value === 'object' ? Number(value.size) : undefined,
  ]);
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    const at = found.findIndex((one, i) => JSON.stringify(one) !== JSON.stringify(expected[i]));
    throw new Error(
      `not the state of commit ${commit}: ${found.length} of ${expected.length} slots; ${found[at]} should be ${expected[at]}`,
    );
  }
  return commit;
}
