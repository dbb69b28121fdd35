/**
 * Plans of policies against collections: what a plan says of each retired root is what a collection frees when a client removes that root,
 * one after the other; and applied as a whole it frees the sum. Stores by a seed, which a failure names.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DB } from '../../src/db.js';
import type { Policy } from '../../src/policy/policy.js';
import { testDB } from '../support/db.js';
import { Random } from '../support/random.js';
import { Host } from './host.js';

const SEED = Number(process.env.EBBTIDE_POLICY_SEED ?? 1);
const STORIES = Number(process.env.EBBTIDE_POLICIES ?? 2);

/** Two or three rules, some of them with a goal. */
function policyOf(random: Random): Policy {
  const kinds = random.chance(0.5) ? ['image' as const, 'lease' as const] : undefined;
  const goal = random.pick([
    {},
    { maxUsedSpace: 20_000 + random.int(60_000) },
    { reservedSpace: random.int(60_000) },
  ]);
  return {
    rules: [
      { name: 'containers', kinds: ['container'], stopped: ['id~=/^c.*[02468]$/'] },
      { name: 'goal', ...(kinds && { kinds }), keepDuration: '1ns', ...goal, keepLast: random.int(2) },
      { name: 'rest', namespaces: ['one'], filters: ['name~=app1'], keepTagged: ['v*0'] },
    ],
  };
}

const freed = async (db: DB): Promise<number> => (await db.garbageCollect()).bytesFreed;

for (let seed = SEED; seed < SEED + STORIES; seed++) {
  test(`given store ${seed}, when its roots are retired as planned, one by one and all at once, then that frees what the plan says`, async (t) => {
    const policy = policyOf(new Random(seed));
    const stores = [await testDB(t), await testDB(t)] as const;
    const hosts = stores.map((db) => new Host(db, seed));
    for (const host of hosts) await host.fill(12);
    const [plan, same] = await Promise.all(stores.map((db) => db.planPolicy(policy)));
    assert.ok(plan && same && hosts[0]);
    assert.deepEqual(
      plan.retired.map(({ identity: _, lastUsed: __, ...root }) => root),
      same.retired.map(({ identity: _, lastUsed: __, ...root }) => root),
    );
    // Every byte is somebody's.
    assert.equal(
      plan.kept.reduce((sum, { bytes }) => sum + bytes, 0),
      plan.space.usedAfter,
    );
    assert.equal(
      plan.objects.reduce((sum, { size }) => sum + size, 0),
      plan.bytes,
    );
    assert.equal(
      plan.rules.reduce((sum, { bytes }) => sum + bytes, plan.space.garbage),
      plan.bytes,
    );
    assert.equal(plan.space.used + plan.space.garbage, plan.space.usedAfter + plan.bytes);
    // One by one.
    assert.equal(await freed(stores[0]), plan.space.garbage);
    for (const [n, root] of plan.retired.entries()) {
      await hosts[0].remove(root);
      assert.equal(await freed(stores[0]), root.bytes, `${n}: ${root.kind} ${root.key} by ${root.rule}`);
    }
    // All at once.
    const { removed, rest, stats } = await stores[1].applyPlan(same);
    assert.deepEqual(rest, []);
    assert.equal(removed.length, same.objects.length + same.retired.length);
    assert.equal(stats.bytesFreed, same.bytes);
    assert.deepEqual((await stores[1].planCollection()).objects, []);
    const after = await stores[1].planPolicy(policy);
    assert.equal(after.space.used, same.space.usedAfter);
  });
}
