/** The verify mode of the harness finds a graph that has lost an edge, in the transaction that lost it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GraphOp } from '../../src/engine/graph.js';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import { suiteIndexer, verifyEachCommit } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { altered } from '../stores/store-world.js';

test('given a graph that loses an edge, when transactions are verified, then the one that lost it fails', async () => {
  const core = createGraph();
  let loses = false;
  const graph = altered(core, {
    apply: (ops) => {
      const at = loses ? ops.indexOf(GraphOp.add) : -1;
      core.apply(at < 0 ? ops : Uint32Array.from([...ops.subarray(0, at), ...ops.subarray(at + 4)]));
    },
  });
  const engine = await openMemoryEngine({ indexer: suiteIndexer, graph });
  const reported: string[] = [];
  const put = (name: string, to: string): Promise<void> =>
    engine.update((tx) => tx.put(`images\0ns\0${name}`, { refs: { label: `blobs\0ns\0${to}` } }));
  await put('before', 'a');
  verifyEachCommit(engine, (difference) => reported.push(difference));
  await put('sound', 'b');
  assert.deepEqual(reported, []);
  loses = true;
  await put('lost', 'c');
  assert.equal(reported.length, 1);
  verifyEachCommit(engine);
  await assert.rejects(put('another', 'd'), {
    kind: 'Unknown',
    message: /^the graph is not what the records say/,
  });
  await engine.close();
});
