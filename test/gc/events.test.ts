/** Events of collections. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { world } from '../support/gc-world.js';

test('given removed blobs, when collected, then each has its event, thousands too; an idle publisher hears nothing', async (t) => {
  const w = await world(t);
  const topics = new Map<string, number>();
  let isIdle = false;
  w.publisher = {
    publish: async (_namespace, topic) => void topics.set(topic, (topics.get(topic) ?? 0) + 1),
    get isIdle() {
      return isIdle;
    },
  };
  for (let n = 0; n < 5000; n++) await w.blob(`b${n}`);
  await w.collect();
  assert.deepEqual([...topics], [['/content/delete', 5000]]);
  isIdle = true;
  await w.blob('later');
  await w.collect();
  assert.deepEqual([...topics], [['/content/delete', 5000]]);
  assert.deepEqual(w.left(), []);
});
