/**
 * Live marks, on both carriers: after any changes they are what a run of its own marks finds, and what a
 * walk over the graph counts. native/mark/live.h has the mechanism, test/native/live_test.cc its stories without Node.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type GraphCore, type LiveFault, liveFaults } from '../../src/engine/graph.js';
import {
  add,
  batch,
  C,
  flat,
  free,
  kinds,
  label,
  Model,
  newCore,
  P,
  R,
  remove,
  set,
  structural,
  X,
} from './cores.js';

const IDS = 14;
const id = fc.nat(IDS - 1);
const expiry = fc.bigInt({ min: -3n, max: 3n });
const flags = fc.constantFrom(P | C, P | C, P | C, P | C | (1 << 8), P | R, P | R | X, R | C, 0);
const anOp = fc.oneof(
  { weight: 2, arbitrary: fc.tuple(id, flags, expiry).map((a) => set(...a)) },
  { weight: 1, arbitrary: id.map((i) => free(i)) },
  {
    weight: 6,
    arbitrary: fc.tuple(id, id, fc.constantFrom(label, label, structural, flat)).map((a) => add(...a)),
  },
  {
    weight: 6,
    arbitrary: fc.tuple(id, id, fc.constantFrom(label, label, structural, flat)).map((a) => remove(...a)),
  },
);
const nodes = fc.array(fc.tuple(flags, expiry), { minLength: IDS, maxLength: IDS });
const aRound = fc.record({
  batches: fc.array(fc.array(anOp, { minLength: 1, maxLength: 3 }), { maxLength: 8 }),
  now: expiry,
  during: fc.array(fc.array(anOp, { minLength: 1, maxLength: 2 }), { maxLength: 3 }),
});

/** Edges of a tree under each node, and back to it, so that cycles are common. */
const edges = fc.array(fc.tuple(id, id, fc.constantFrom(label, label, label, structural, flat)), {
  minLength: 8,
  maxLength: 24,
});

/** Throws where the marks of a core, taken up round by round, are not what the model reaches. */
async function follow(
  graph: GraphCore,
  first: [number, bigint][],
  between: [number, number, number][],
  rounds: { batches: number[][][]; now: bigint; during: number[][][] }[],
  live: true | LiveFault,
): Promise<void> {
  const model = new Model();
  const apply = (ops: number[][]): void => {
    try {
      graph.apply(batch(...ops));
    } catch {
      return; // not possible in this state, hence without effect
    }
    model.follow(ops);
  };
  apply(first.map(([bits, at], i) => set(i, bits, at)));
  apply(between.map((edge) => add(...edge)));
  for (const { batches, now, during } of rounds) {
    for (const ops of batches) apply(ops);
    await graph.mark(now, { live, stepNodes: 3 });
    assert.deepEqual([...(graph.wrongLive() ?? [-1])], []);
    const allocated = new Set<number>();
    const candidates = [...graph.candidates()];
    const { plain, flat: flatly } = model.reachable(now);
    const isGarbage = (i: number): boolean => {
      const { flags: bits = 0 } = model.nodes.get(i) ?? {};
      return (bits & (P | C)) === (P | C) && !plain.has(i) && !flatly.has(i);
    };
    assert.deepEqual(
      candidates.toSorted((a, b) => a - b),
      Array.from({ length: IDS }, (_, i) => i).filter(isGarbage),
    );
    for (const ops of during) {
      const was = new Map([...model.nodes].map(([i, node]) => [i, node.flags & P]));
      apply(ops);
      for (const [i, node] of model.nodes) if ((node.flags & P) !== 0 && !was.get(i)) allocated.add(i);
      while (!graph.catchUp(1));
      const reached = model.reachable(now);
      for (let i = 0; i < IDS; i++) {
        if (reached.plain.has(i)) assert.ok(graph.marksOf(i) & 1, `${i} is reached`);
        if (reached.flat.has(i)) assert.ok(graph.marksOf(i) & 2, `${i} is reached flat`);
      }
      for (const i of graph.stillCandidates(Uint32Array.from(candidates))) {
        assert.ok(!reached.plain.has(i) && !reached.flat.has(i) && !allocated.has(i), `candidate ${i}`);
      }
    }
    graph.endRun();
  }
}

for (const kind of kinds) {
  describe(`${kind} graph core: live marks`, () => {
    it('given changes between runs and in them, then they are what is reached, and so are the candidates', async () => {
      const property = fc.asyncProperty(
        nodes,
        edges,
        fc.array(aRound, { minLength: 1, maxLength: 6 }),
        (...story) => follow(newCore(kind), ...story, true),
      );
      await fc.assert(property, { numRuns: kind === 'native' ? 300 : 100 });
    });

    it('given a large store of which one image goes, then a run follows the edges of that image only', async () => {
      const graph = newCore(kind);
      const n = 20_000;
      const ops: number[][] = [set(0, P | R)];
      for (let i = 1; i <= n; i++) ops.push(set(i, P | C));
      for (let i = 1; i <= n; i++) ops.push(add(0, i, label));
      ops.push(set(n + 1, P | R), set(n + 2, P | C), set(n + 3, P | C));
      ops.push(add(n + 1, n + 2, structural), add(n + 2, n + 3, label), add(n + 2, 5, label));
      graph.apply(batch(...ops));
      assert.equal((await graph.mark(0n, { live: true })).marked, n + 4);
      graph.endRun();
      assert.equal((await graph.mark(0n, { live: true })).edgesFollowed, 0);
      graph.endRun();
      graph.apply(batch(set(n + 1, 0), remove(n + 1, n + 2, structural)));
      const { edgesFollowed, marked } = await graph.mark(0n, { live: true });
      assert.deepEqual([...graph.candidates()], [n + 2, n + 3]);
      assert.equal(marked, n + 1);
      assert.equal(edgesFollowed, 2);
      graph.endRun();
    });

    it('given live marks, when the graph is loaded again, then they are counted again', async () => {
      const graph = newCore(kind);
      graph.apply(batch(set(0, P | R), set(1, P | C), set(2, P | C), add(0, 1, label)));
      const image = await graph.save();
      await graph.mark(0n, { live: true });
      graph.endRun();
      graph.apply(batch(remove(0, 1, label), add(0, 2, label)));
      assert.equal(graph.load(image), true);
      assert.equal(graph.wrongLive(), undefined);
      await graph.mark(0n, { live: true });
      assert.deepEqual([...graph.candidates()], [2]);
      graph.endRun();
      graph.clear();
    });
  });

  for (const fault of liveFaults) {
    it(`given ${kind} live marks with ${fault}, then a story fails`, async () => {
      const property = fc.asyncProperty(
        nodes,
        edges,
        fc.array(aRound, { minLength: 2, maxLength: 6 }),
        (...story) => follow(newCore(kind), ...story, fault),
      );
      const { failed } = await fc.check(property, { numRuns: 1000, endOnFailure: true });
      assert.ok(failed, 'a fault that no story finds');
    });
  }
}
