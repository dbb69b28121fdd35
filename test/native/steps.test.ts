/**
 * Marking in steps, as the schedules use it: other things happen between two steps on either core. Each protection is
 * also taken away, and must then be missed.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { GraphCore, MarkOptions } from '../../src/engine/graph.js';
import { isKind } from '../../src/errors.js';
import { add, batch, C, kinds, label, Model, nativeMissing, newCore, P, R, remove, set } from './cores.js';

if (nativeMissing !== undefined) console.log(`native core not tested: ${nativeMissing}`);
const IDS = 8;
const aTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const id = fc.nat(IDS - 1);
const edge = fc.tuple(id, id, fc.nat(2));
const anOp = fc.oneof(
  fc.tuple(id, fc.constantFrom(0, P | C, P | C, P | R)).map((a) => set(...a)),
  edge.map((a) => add(...a)),
  edge.map((a) => remove(...a)),
);
/** Batches that follow, one for each turn of the event loop. */
const aStory = fc.record({
  nodes: fc.array(fc.constantFrom(0, P | C, P | C, P | R), { minLength: IDS, maxLength: IDS }),
  edges: fc.array(edge, { maxLength: 14 }),
  batches: fc.array(fc.array(anOp, { minLength: 1, maxLength: 3 }), { maxLength: 12 }),
});

/** Runs a story during marking; returns what is wrong at its end. */
async function wrongs(
  kind: GraphCore['kind'],
  { nodes, edges, batches }: typeof aStory extends fc.Arbitrary<infer S> ? S : never,
  options: MarkOptions,
): Promise<string[]> {
  const graph = newCore(kind);
  const model = new Model();
  const first = [...nodes.map((flags, i) => set(i, flags)), ...edges.map((e) => add(...e))];
  graph.apply(batch(...first));
  model.follow(first);
  const absent = new Set([...nodes.keys()].filter((i) => (nodes[i]! & P) === 0));
  const marking = graph.mark(0n, options);
  for (const ops of batches) {
    await aTurn();
    try {
      graph.apply(batch(...ops));
      model.follow(ops);
    } catch (error) {
      assert(isKind(error, 'InvalidArgument'), String(error));
    }
  }
  await marking;
  const { plain, flat } = model.reachable(0n);
  return [...graph.candidates()].filter((i) => plain.has(i) || flat.has(i) || absent.has(i)).map(String);
}

for (const kind of kinds) {
  describe(`marking in steps by the ${kind} graph core`, () => {
    it('given any ops between its steps, when it ends, then no candidate is reachable or new', async () => {
      await fc.assert(
        fc.asyncProperty(aStory, fc.constantFrom(1, 2, 100), async (story, stepNodes) => {
          assert.deepEqual(await wrongs(kind, story, { stepNodes }), []);
        }),
        { numRuns: 300 },
      );
    });

    for (const barrier of [false, 'late'] as const) {
      it(`given barrier ${barrier}, when stories are run, then one loses an object`, async () => {
        const { failed } = await fc.check(
          fc.asyncProperty(aStory, async (story) => {
            assert.deepEqual(await wrongs(kind, story, { stepNodes: 1, barrier }), []);
          }),
          { numRuns: 3000, endOnFailure: true },
        );
        assert.equal(failed, true);
      });
    }

    it('given a late barrier, when an edge moves during marking and one afterwards, then only the latter counts', async () => {
      const lost = async (barrier: boolean | 'late'): Promise<number[]> => {
        const graph = newCore(kind);
        // 0 → 1 → … → 9 → 10; 11 hangs on 10 too.
        const chain = Array.from({ length: 10 }, (_, i) => add(i, i + 1, label));
        const all = Array.from({ length: 12 }, (_, i) => set(i, i === 0 ? P | R : P | C));
        graph.apply(batch(...all, ...chain, add(10, 11, label)));
        const marking = graph.mark(0n, { stepNodes: 1, barrier });
        for (let turns = 0; turns < 3; turns++) await aTurn();
        graph.apply(batch(add(0, 10, label), remove(9, 10, label)));
        await marking;
        const found = [...graph.candidates()];
        graph.apply(batch(add(0, 11, label)));
        return [...found, ...graph.candidates()];
      };
      assert.deepEqual(await lost(true), []);
      assert.deepEqual(await lost('late'), [10, 11, 10]);
      assert.deepEqual(await lost(false), [10, 11, 10, 11]);
    });

    it('given a run in steps, when it is ended or aborted, then mark is Canceled and another run can follow', async () => {
      const graph = newCore(kind);
      const n = 100;
      const ops = Array.from({ length: n }, (_, i) => set(i, i === 0 ? P | R : P | C));
      graph.apply(batch(...ops, ...Array.from({ length: n - 1 }, (_, i) => add(i, i + 1, label))));
      const controller = new AbortController();
      for (const end of [() => graph.endRun(), () => controller.abort()]) {
        const marking = graph.mark(0n, { stepNodes: 1, signal: controller.signal });
        await aTurn();
        end();
        const next = end.toString().includes('endRun') ? graph.mark(0n, { stepNodes: 1000 }) : undefined;
        await assert.rejects(marking, (e) => isKind(e, 'Canceled'));
        assert.equal((await (next ?? graph.mark(0n))).marked, n);
        graph.endRun();
      }
      for (const stepNodes of [0, -1, 1.5, Number.NaN]) {
        await assert.rejects(graph.mark(0n, { stepNodes }), (e) => isKind(e, 'InvalidArgument'));
      }
      assert.equal((await graph.mark(0n, { stepNodes: 7 })).marked, n);
    });
  });
}
