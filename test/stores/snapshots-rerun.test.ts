import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ns1 } from './fixtures.js';
import { keyOf, rooted, storeWorld } from './store-world.js';

test('given a transaction that runs again and commits another snapshot under the name, when it ends, then the name stands for that one', async (t) => {
  const w = await storeWorld(t);
  await w.committed(ns1, 'a', '', rooted);
  await w.committed(ns1, 'b', '', rooted);
  let runs = 0;
  await w.transaction(ns1, async (ctx) => {
    const [key, parent] = ++runs === 1 ? ['first', 'a'] : ['second', 'b'];
    await w.snapshots.prepare(ctx, key, parent);
    await w.snapshots.commit(ctx, 'layer', key, { labels: rooted });
    // Another caller changes what this run has read.
    if (runs === 1) await w.host.engine.update((tx) => tx.put(keyOf('a'), tx.get(keyOf('a')) ?? ''));
  });
  assert.equal(runs, 2);
  assert.equal(w.snapshot('ns1', 'layer')?.parent, 'b');
  const inBackend = await w.native.stat(w.snapshot('ns1', 'layer')?.name ?? '');
  assert.equal(inBackend.parent, w.snapshot('ns1', 'b')?.name);
  await w.collect();
  const named = ['a', 'b', 'layer'].map((name) => w.snapshot('ns1', name)?.name);
  assert.deepEqual(await w.backendNames(), named.sort());
});
