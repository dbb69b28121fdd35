/** What keeps a leaf, on any graph: compared with what the graph core says of the removal of roots. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NodeFlag } from '../../src/engine/contract.js';
import { GraphOp, NO_ITEM } from '../../src/engine/graph.js';
import { isKind } from '../../src/errors.js';
import { GraphView } from '../../src/gc/report/reach.js';
import { createGraph } from '../../src/graph/carriers.js';
import { Leaves } from '../../src/pictures/leaves.js';
import { Reached } from '../../src/pictures/reached.js';
import { KEEPERS_MAX, NOBODY, SEVERAL, Support } from '../../src/pictures/support.js';
import { rootSets } from '../../src/pictures/view/sets.js';
import { Pace } from '../../src/stores/listing.js';

const NODES = 24;
const ITEMS = 10;
const nodes = fc.integer({ min: 0, max: NODES - 1 });
const graphs = fc.record({
  roots: fc.uniqueArray(nodes, { minLength: 1, maxLength: 14 }),
  edges: fc.array(fc.tuple(nodes, nodes, fc.constantFrom(0, 1, 2)), { maxLength: 60 }),
  items: fc.array(fc.option(fc.integer({ min: 0, max: ITEMS - 1 }), { nil: NO_ITEM }), {
    minLength: NODES,
    maxLength: NODES,
  }),
  removed: fc.array(fc.nat(), { maxLength: 5 }),
});
type Drawn = typeof graphs extends fc.Arbitrary<infer T> ? T : never;

/** Powers of two: a sum says which are in it. */
const sizes = Array.from({ length: ITEMS }, (_, item) => 2 ** item);

async function made({ roots, edges, items }: Drawn) {
  const graph = createGraph();
  const ops: number[] = [];
  for (let id = 0; id < NODES; id++)
    ops.push(GraphOp.set, id, NodeFlag.present | (roots.includes(id) ? NodeFlag.root : 0), 0, 0);
  for (const [from, to, kind] of edges) ops.push(GraphOp.add, from, to, kind);
  graph.apply(Uint32Array.from(ops));
  const view = await GraphView.read(graph, 1n);
  const names = sizes.map((_, item) => `sha256:${item}`);
  const itemOf = Uint32Array.from(items);
  const leaves = new Leaves({ names, sizes, ofNode: itemOf });
  const ids = view.roots;
  const namespaces = ids.map((id) => id % 2);
  const pace = new Pace({});
  const support = await Support.find(view, leaves, { ids, namespaces }, pace);
  const retained = (sets: readonly (readonly number[])[]) =>
    graph.retained({
      now: 1n,
      itemOf,
      sizes: Float64Array.from(sizes),
      members: Uint32Array.from(sets.flat()),
      ends: Uint32Array.from(sets, (_, n) => sets.slice(0, n + 1).flat().length),
    });
  return { view, leaves, ids, namespaces, support, retained, pace };
}

test('given any graph, when its leaves are given to the roots that keep them, then each root has what its removal frees', async () => {
  await fc.assert(
    fc.asyncProperty(graphs, async (drawn) => {
      const { view, leaves, ids, support, retained } = await made(drawn);
      const { total, retained: freed, kept } = await retained(ids.map((id) => [id]));
      const own = ids.map(() => 0);
      let all = 0;
      for (let leaf = 0; leaf < leaves.count; leaf++) {
        const first = support.first[leaf]!;
        if (first === NOBODY) continue;
        all += leaves.sizeOf(leaf);
        if (support.countOf(leaf) === 1) own[first]! += leaves.sizeOf(leaf);
      }
      assert.equal(all, kept);
      assert.deepEqual(own, [...freed]);
      const reached = new Reached(view, leaves);
      const totals = ids.map((id) => {
        let sum = 0;
        reached.of(id, (leaf) => {
          sum += leaves.sizeOf(leaf);
        });
        return sum;
      });
      assert.deepEqual(totals, [...total]);
    }),
    { numRuns: 300 },
  );
});

test('given any graph, when several roots are chosen, then the sets add up to what their removal frees', async () => {
  await fc.assert(
    fc.asyncProperty(graphs, async (drawn) => {
      const { ids, retained, ...kept } = await made(drawn);
      const sets = await rootSets({ ...kept, roots: ids.map((id) => ({ id })) });
      assert.ok(sets && !sets.isAtLeast);
      const chosen = new Set(drawn.removed.map((n) => n % ids.length));
      let freed = 0;
      for (const [bytes, ...members] of sets.sets)
        if (members.every((place) => chosen.has(sets.listed[place]!))) freed += bytes;
      const { retained: expected } = await retained([[...chosen].map((n) => ids[n]!)]);
      assert.equal(freed, expected[0]);
    }),
    { numRuns: 300 },
  );
});

test('given any graph, when leaves are counted, then as a walk from each root counts them', async () => {
  await fc.assert(
    fc.asyncProperty(graphs, async (drawn) => {
      const { view, leaves, ids, namespaces, support } = await made(drawn);
      const roots = new Set(ids);
      const keepers = Array.from({ length: leaves.count }, () => new Set<number>());
      for (const [n, id] of ids.entries()) {
        // As slowly as can be: all states, until nothing is new.
        const seen = new Set([id * 2]);
        for (let before = 0; before !== seen.size; ) {
          before = seen.size;
          for (const state of [...seen])
            view.forEachStep(state, (to) => {
              if (!roots.has(to >> 1)) seen.add(to);
            });
        }
        for (const state of seen) leaves.forEachOf(state >> 1, (leaf) => keepers[leaf]!.add(n));
      }
      for (const [leaf, set] of keepers.entries()) {
        assert.equal(support.countOf(leaf), Math.min(set.size, KEEPERS_MAX));
        const of = new Set([...set].map((n) => namespaces[n]));
        assert.equal(support.namespaceOf(leaf), of.size > 1 ? SEVERAL : ([...of][0] ?? NOBODY));
      }
    }),
    { numRuns: 300 },
  );
});

test('given roots that reach more than may be, when a leaf is to be in the branch of each, then that is refused', async () => {
  const edges = Array.from({ length: NODES - 1 }, (_, n): [number, number, 0] => [n, n + 1, 0]);
  const items = Array.from({ length: NODES }, () => NO_ITEM);
  const { view, leaves } = await made({ roots: [0], edges, items, removed: [] });
  assert.throws(
    () => new Reached(view, leaves, NODES - 2).of(0, () => undefined),
    (error) => isKind(error, 'ResourceExhausted'),
  );
});
