/** What only WebAssembly does: a memory limit, steps on the event loop, threads for reports. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { GraphCore } from '../../src/engine/graph.js';
import { EbbtideError } from '../../src/errors.js';
import { CoreGraph } from '../../src/graph/core-graph.js';
import { WasmGraph } from '../../src/graph/wasm-graph.js';
import { add, batch, C, label, newCore, P, R, set } from './cores.js';

const MIB = 1 << 20;
const withMemory = (bytes: number): GraphCore => new CoreGraph('wasm', new WasmGraph(bytes));
const isExhausted = (error: unknown): boolean => {
  assert(error instanceof EbbtideError && error.kind === 'ResourceExhausted', String(error));
  assert.match(error.remedy ?? '', /4 GiB/);
  return true;
};
/** A chain of nodes, each with an edge to one before it, so that every block has its edges. */
function chain(graph: GraphCore, from: number, to: number): void {
  const ops: number[] = [];
  for (let id = from; id < to; id++) {
    ops.push(...set(id, id === 0 ? P | R : P | C));
    if (id > 0) ops.push(...add(id - 1, id, label), ...add(id, 0, label));
  }
  graph.apply(Uint32Array.from(ops));
}

describe('the graph core as WebAssembly', () => {
  it('given a ceiling of memory, when the graph reaches it, then ResourceExhausted, and the graph is as it was', async () => {
    const graph = withMemory(24 * MIB);
    let nodes = 0;
    assert.throws(() => {
      for (; ; nodes += 5000) chain(graph, nodes, nodes + 5000);
    }, isExhausted);
    assert(nodes > 100_000, `${nodes} nodes`);
    assert.equal(graph.stats().nodes, nodes);
    assert.deepEqual([...graph.edgesOf(nodes - 1)], [0, label]);
    // What has no room to be done says so; what has is done.
    for (const work of [() => graph.save(), () => graph.mark(0n).then(() => graph.endRun())]) {
      await work().catch(isExhausted);
    }
    graph.endRun();
    graph.clear();
    chain(graph, 0, 5000);
    assert.equal((await graph.mark(0n)).marked, 5000);
  });

  it('given memory for the graph only, when it is asked for more and more, then each result is right or ResourceExhausted', async () => {
    const graph = withMemory(10 * MIB);
    chain(graph, 0, 20_000);
    let exhausted = 0;
    const kept: Promise<unknown>[] = [];
    for (let round = 0; round < 200; round++) {
      kept.push(graph.save().catch((error) => (exhausted += isExhausted(error) ? 1 : 0)));
    }
    await Promise.all(kept);
    assert(exhausted > 0, 'there is room for 200 copies');
    assert.equal((await graph.mark(0n)).marked, 20_000);
    graph.endRun();
    assert.equal(withMemory(10 * MIB).load(await graph.save()), true);
  });

  it('given live marks that have much to process, when there is no memory, then marksOf is right or ResourceExhausted', async () => {
    const graph = withMemory(18 * MIB);
    const COUNT = 150_000;
    for (let from = 0; from < COUNT; from += 10_000) {
      const ids = Array.from({ length: 10_000 }, (_, i) => from + i);
      const edges = ids.flatMap((id) => (id > 1 ? add(1, id, label) : []));
      graph.apply(batch(...ids.map((id) => set(id, id === 0 ? P | R : P | C)), edges));
    }
    assert.equal((await graph.mark(0n, { live: true })).marked, 1);
    // All of them are reached now, which a read finds out.
    graph.apply(batch(add(0, 1, label)));
    const kept = Array.from({ length: 100 }, () => graph.save().catch(isExhausted));
    let marks = -1;
    try {
      marks = graph.marksOf(2);
    } catch (error) {
      isExhausted(error);
    }
    assert.notEqual(marks, 0, 'it is reached');
    await Promise.all(kept);
    graph.endRun();
    assert.equal((await graph.mark(0n, { live: true })).marked, COUNT);
  });

  it('given an image that has no room, when it is loaded, then ResourceExhausted, and the graph is empty', async () => {
    const large = newCore('wasm');
    for (let from = 0; from < 300_000; from += 30_000) chain(large, from, from + 30_000);
    const graph = withMemory(7 * MIB);
    const image = await large.save();
    assert.throws(() => graph.load(image), isExhausted);
    assert.equal(graph.stats().nodes, 0);
    chain(graph, 0, 10);
    assert.equal((await graph.mark(0n)).marked, 10);
  });

  it('given a large graph, when it is marked and saved, then the event loop turns in between', async () => {
    const graph = newCore('wasm');
    for (let from = 0; from < 400_000; from += 40_000) chain(graph, from, from + 40_000);
    let turns = 0;
    let done = false;
    const count = (): void => {
      turns++;
      if (!done) setImmediate(count);
    };
    setImmediate(count);
    await graph.mark(0n);
    const [whileMarked] = [turns];
    await graph.save();
    done = true;
    assert(whileMarked >= 5 && turns - whileMarked >= 5, `${whileMarked} and ${turns - whileMarked} turns`);
  });

  it('given hundreds of graphs without a reference, when made, then their memory is given back', () => {
    for (let n = 0; n < 600; n++) newCore('wasm').apply(batch(set(0, P)));
  });
});
