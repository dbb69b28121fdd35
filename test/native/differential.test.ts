import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { GraphCore, RetainedQuery } from '../../src/engine/graph.js';
import { EbbtideError } from '../../src/errors.js';
import {
  add,
  batch,
  describeGraph,
  describeRun,
  flat,
  free,
  kinds,
  Model,
  nativeMissing,
  newCore,
  P,
  remove,
  set,
  structural,
} from './cores.js';
import { Oracle } from './oracle.js';
import { aQuery } from './queries.js';

const IDS = 12;
if (nativeMissing !== undefined) console.log(`native core not compared: ${nativeMissing}`);

const id = fc.nat(IDS - 1);
const kind = fc.nat(2);
const flags = fc.tuple(fc.nat(127), fc.nat(3)).map(([bits, type]) => bits | (type << 8));
const expiry = fc.bigInt({ min: -3n, max: 3n });
const anOp = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(id, flags, expiry).map((a) => set(...a)) },
  { weight: 2, arbitrary: id.map((i) => set(i, 0)) },
  { weight: 2, arbitrary: id.map((i) => free(i)) },
  { weight: 6, arbitrary: fc.tuple(id, id, kind).map((a) => add(...a)) },
  { weight: 4, arbitrary: fc.tuple(id, id, kind).map((a) => remove(...a)) },
);
const aBatch = fc.array(anOp, { minLength: 1, maxLength: 4 });
/** Nodes to begin with, so that most ops are possible. */
const someNodes = fc.array(
  fc.tuple(id, flags, expiry).map((a) => set(...a)),
  { maxLength: 2 * IDS },
);
type Step =
  | { do: 'apply'; ops: number[][] }
  | { do: 'mark'; now: bigint; barrier: boolean; live: boolean }
  | { do: 'markFrom'; ids: number[] }
  | { do: 'retained'; query: RetainedQuery }
  | { do: 'end' | 'freeable' | 'reload' };
const aStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: aBatch.map((ops): Step => ({ do: 'apply', ops })) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(expiry, fc.boolean(), fc.boolean())
      .map(([now, off, live]): Step => ({ do: 'mark', now, barrier: live || !off || now > 0n, live })),
  },
  { weight: 1, arbitrary: fc.array(id, { maxLength: 3 }).map((ids): Step => ({ do: 'markFrom', ids })) },
  { weight: 2, arbitrary: aQuery(IDS).map((query): Step => ({ do: 'retained', query })) },
  { weight: 2, arbitrary: fc.constantFrom<Step>({ do: 'end' }, { do: 'freeable' }) },
  { weight: 1, arbitrary: fc.constantFrom<Step>({ do: 'end' }, { do: 'reload' }) },
);

const untimed = (result: object): object => ({ ...result, durationMs: 0 });

/** Live marks follow what has changed only. */
const markOutcome = (result: object, live: boolean): object =>
  untimed(live ? { ...result, edgesFollowed: 0 } : result);

/** What a step returns, or the kind of its error. */
async function outcome(core: GraphCore | Oracle, step: Step): Promise<unknown> {
  try {
    switch (step.do) {
      case 'apply':
        return core.apply(batch(...step.ops));
      case 'mark':
        return markOutcome(await core.mark(step.now, step), step.live);
      case 'markFrom':
        return core.markFrom(Uint32Array.from(step.ids));
      case 'retained':
        return untimed(await core.retained(step.query));
      case 'end':
        return core.endRun();
      case 'freeable':
        return core.takeFreeable();
      case 'reload':
        return core.load(await core.save());
    }
  } catch (error) {
    assert(error instanceof EbbtideError, `not one of our errors: ${error}`);
    return error.kind;
  }
}

const started = (core: GraphCore | Oracle): unknown => {
  try {
    return describeRun(core, IDS);
  } catch (error) {
    assert(error instanceof EbbtideError);
    return error.kind;
  }
};

describe('the graph core, however it comes, and the oracle', () => {
  it('given any steps, when all take them, then every result and every state is equal', async () => {
    await fc.assert(
      fc.asyncProperty(someNodes, fc.array(aStep, { minLength: 1, maxLength: 40 }), async (nodes, steps) => {
        const cores = [new Oracle(), ...kinds.map(newCore)];
        for (const core of cores) core.apply(batch(...nodes));
        for (const step of steps) {
          const [first, ...others] = await Promise.all(cores.map((core) => outcome(core, step)));
          for (const other of others) assert.deepEqual(other, first);
          // Reading live marks brings them up to date first; the oracle's always are.
          for (const core of cores)
            if (!(core instanceof Oracle)) assert.deepEqual([...(core.wrongLive() ?? [])], []);
          const [graph, ...graphs] = cores.map((core) => describeGraph(core, IDS));
          for (const other of graphs) assert.deepEqual(other, graph);
          const [run, ...runs] = cores.map(started);
          for (const other of runs) assert.deepEqual(other, run);
          const [image, ...images] = await Promise.all(cores.map((core) => core.save()));
          for (const other of images) assert.deepEqual(other, image);
        }
      }),
      { numRuns: 150 },
    );
  });
});

for (const core of kinds) {
  describe(`${core} graph core against the definition`, () => {
    const edge = fc.record({ from: id, to: id, kind });
    const node = fc.record({ flags, expiry });

    it('given any graph, when it is marked, then marks are exactly what the definition reaches', async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(node, { minLength: IDS, maxLength: IDS }),
          fc.array(edge, { maxLength: 40 }),
          expiry,
          async (nodes, edges, now) => {
            const model = new Model();
            for (const [i, n] of nodes.entries()) model.nodes.set(i, n);
            model.edges = edges;
            const graph = newCore(core);
            graph.apply(
              batch(
                ...nodes.map((n, i) => set(i, n.flags, n.expiry)),
                ...edges.map((e) => add(e.from, e.to, e.kind)),
              ),
            );
            const result = await graph.mark(now);
            const { plain, flat: flatly } = model.reachable(now);
            for (let i = 0; i < IDS; i++) {
              assert.equal(graph.marksOf(i), (plain.has(i) ? 1 : 0) | (flatly.has(i) ? 2 : 0), `node ${i}`);
            }
            const reached = new Set([...plain, ...flatly]);
            assert.equal(result.marked, reached.size);
            const present = [...reached].filter((i) => nodes[i]!.flags & P).length;
            assert.equal(
              result.markedByType.reduce((a, b) => a + b, 0),
              present,
            );
            checkPaths(graph, model, reached, now);
          },
        ),
        { numRuns: 200 },
      );
    });

    it('given a run, when ops follow, then marks include all that is reachable and no new node is a candidate', async () => {
      await fc.assert(
        fc.asyncProperty(
          someNodes,
          fc.array(aBatch, { minLength: 2, maxLength: 30 }),
          fc.nat(20),
          async (nodes, batches, when) => {
            const graph = newCore(core);
            const model = new Model();
            graph.apply(batch(...nodes));
            model.follow(nodes);
            const absentAtStart = new Set<number>();
            for (const [n, ops] of batches.entries()) {
              if (n === when % batches.length) {
                await graph.mark(0n);
                for (let i = 0; i < IDS; i++) if ((graph.flagsOf(i) & P) === 0) absentAtStart.add(i);
              }
              try {
                graph.apply(batch(...ops));
              } catch {
                continue; // not possible in this state, hence without effect
              }
              model.follow(ops);
            }
            const { plain, flat: flatly } = model.reachable(0n);
            for (const i of plain) assert.equal(graph.marksOf(i) & 1, 1, `node ${i} is reachable`);
            for (const i of flatly) assert.equal(graph.marksOf(i) & 2, 2, `node ${i} is reachable flat`);
            for (const i of graph.candidates()) {
              assert(!plain.has(i) && !flatly.has(i) && !absentAtStart.has(i), `candidate ${i}`);
            }
          },
        ),
        { numRuns: 200 },
      );
    });
  });
}

/** Every reached node, and no other, has a path, and every step of it is an edge that marking follows. */
function checkPaths(graph: GraphCore, model: Model, reached: Set<number>, now: bigint): void {
  for (let i = 0; i < IDS; i++) {
    const path = graph.path(i, now);
    assert.equal(path !== undefined, reached.has(i), `path to ${i}`);
    if (path === undefined) continue;
    assert.equal(path.at(-1), i);
    let variants = new Set(['plain']);
    for (const [n, to] of [...path].entries()) {
      if (n === 0) continue;
      const edges = model.edges.filter((e) => e.from === path[n - 1] && e.to === to);
      const next = new Set<string>();
      for (const variant of variants) {
        for (const e of edges) {
          if (e.kind === structural) next.add(variant);
          else if (variant === 'plain') next.add(e.kind === flat ? 'flat' : 'plain');
        }
      }
      assert(next.size > 0, `no edge ${path[n - 1]} to ${to}`);
      variants = next;
    }
  }
}
