import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LockMode, ObjectLocks } from '../../src/backends/object-locks.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('given shared and exclusive users of one name, then they are served in order and never mixed', async () => {
  const locks = new ObjectLocks();
  const order: string[] = [];
  let shared = 0;
  let exclusive = 0;
  const use = (name: string, mode: LockMode) =>
    locks.with('x', mode, async () => {
      order.push(name);
      if (mode === 'shared') shared++;
      else exclusive++;
      assert.ok(exclusive === 0 || (exclusive === 1 && shared === 0));
      await turn();
      if (mode === 'shared') shared--;
      else exclusive--;
    });
  await Promise.all([use('s1', 'shared'), use('s2', 'shared'), use('e', 'exclusive'), use('s3', 'shared')]);
  assert.deepEqual(order, ['s1', 's2', 'e', 's3']);
});

test('given users of several names in opposite orders, then none waits for ever and failures release', async () => {
  const locks = new ObjectLocks();
  const held = new Set<string>();
  const use = (a: string, b: string, fails: boolean) =>
    locks.withAll({ exclusive: [a, b, ''] }, async () => {
      for (const name of [a, b]) {
        assert.ok(!held.has(name));
        held.add(name);
      }
      await turn();
      held.delete(a);
      held.delete(b);
      if (fails) throw new Error('failed inside');
    });
  const runs = Array.from({ length: 30 }, (_, i) =>
    i % 2 ? use('a', 'b', i % 3 === 0) : use('b', 'a', false),
  );
  const results = await Promise.allSettled(runs);
  assert.equal(results.filter((r) => r.status === 'rejected').length, 5);
  await use('a', 'b', false);
});

test('given a name that is wanted exclusively and shared by one caller, then it is locked once', async () => {
  const locks = new ObjectLocks();
  assert.equal(await locks.withAll({ exclusive: ['a', 'a'], shared: ['a', 'b'] }, async () => 7), 7);
});
