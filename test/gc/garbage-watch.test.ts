/** What becomes garbage is noticed; on the real graph core. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { EbbtideError } from '../../src/errors.js';
import { GarbageWatch } from '../../src/gc/schedule/garbage-watch.js';
import { world } from '../support/gc-world.js';

/** A world that was collected once, so that marks live, and a watch of it. */
async function watched(t: TestContext) {
  const w = await world(t);
  await w.collect();
  const { graph } = w.engine;
  const watch = new GarbageWatch({ graph, hasDeletions: () => true });
  t.after(() => watch.close());
  const heard = { times: 0 };
  watch.listen(() => heard.times++);
  return { w, graph, watch, heard };
}

test('given no memory for a look, when the store has changed, then it ends quietly, and the next one finds what is new', async (t) => {
  const { w, graph, watch, heard } = await watched(t);
  let looks = 0;
  const bringUpToDate = graph.bringUpToDate.bind(graph);
  const exhausted = t.mock.method(graph, 'bringUpToDate', () => {
    looks++;
    throw new EbbtideError('ResourceExhausted', 'out of memory');
  });
  await w.blob('garbage');
  watch.changed();
  while (looks === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  await assert.rejects(watch.look(), /out of memory/);
  assert.equal(heard.times, 0);

  exhausted.mock.mockImplementation(bringUpToDate);
  watch.changed();
  while (heard.times === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok((await watch.age()) >= 0);
});

test('given a look that takes long, when changes come meanwhile, then they and later ones are looked at', async (t) => {
  const { w, graph, watch, heard } = await watched(t);
  const bringUpToDate = graph.bringUpToDate.bind(graph);
  let isSlow = true;
  const slow = t.mock.method(graph, 'bringUpToDate', () => !isSlow && bringUpToDate());
  const first = watch.look();
  watch.changed();
  // Longer than changes wait.
  await new Promise((resolve) => setTimeout(resolve, 500));
  isSlow = false;
  await first;
  const looks = slow.mock.callCount();
  await w.blob('garbage');
  watch.changed();
  const end = performance.now() + 60_000;
  while (heard.times === 0 && performance.now() < end)
    await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(heard.times, 1);
  assert.ok(slow.mock.callCount() > looks);
});
