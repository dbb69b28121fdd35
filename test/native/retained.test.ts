import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { NO_ITEM, type RetainedQuery } from '../../src/engine/graph.js';
import { isKind } from '../../src/errors.js';
import {
  add,
  batch,
  C,
  flat,
  kinds,
  label,
  Model,
  nativeMissing,
  newCore,
  P,
  R,
  remove,
  set,
  structural,
  X,
} from './cores.js';
import { aQuery, retainedOf } from './queries.js';

if (nativeMissing !== undefined) console.log(`native core not tested: ${nativeMissing}`);
const IDS = 12;

const words = (...numbers: number[]): Uint32Array => Uint32Array.from(numbers);
/** Every node an item of its own, of 2^id bytes; one set for each of `sets`. */
function query(...sets: number[][]): RetainedQuery {
  let end = 0;
  return {
    now: 0n,
    itemOf: Uint32Array.from({ length: 20 }, (_, id) => id),
    sizes: Float64Array.from({ length: 20 }, (_, id) => 2 ** id),
    members: words(...sets.flat()),
    ends: words(...sets.map((ids) => (end += ids.length))),
  };
}

for (const kind of kinds) {
  describe(`retained sizes of the ${kind} graph core`, () => {
    it('given any graph of all kinds of edges, when asked, then it says what the definition says', async () => {
      const id = fc.nat(IDS - 1);
      const graphs = fc.record({
        nodes: fc.array(fc.tuple(fc.nat(15), fc.bigInt({ min: -3n, max: 3n })), { maxLength: IDS }),
        edges: fc.array(fc.tuple(id, id, fc.nat(2)), { maxLength: 40 }),
      });
      await fc.assert(
        fc.asyncProperty(
          graphs,
          fc.array(aQuery(IDS), { minLength: 1, maxLength: 4 }),
          async (input, queries) => {
            const { nodes, edges } = input;
            const model = new Model();
            const ops = [
              ...nodes.map(([flags, expiry], i) => set(i, flags, expiry)),
              ...edges.filter((e) => e[0] < nodes.length && e[1] < nodes.length).map((e) => add(...e)),
            ];
            const graph = newCore(kind);
            graph.apply(batch(...ops));
            model.follow(ops);
            for (const q of queries) {
              const { durationMs: _, ...sizes } = await graph.retained(q);
              assert.deepEqual(sizes, retainedOf(model, q));
            }
          },
        ),
        { numRuns: 300 },
      );
    });

    it('given flat leases, expired roots and shared targets, when asked, then each set has its own result', async () => {
      const graph = newCore(kind);
      graph.apply(
        batch(
          set(0, P | R), // an image of 2 and 3
          set(1, P | R | X, 5n), // a flat lease of 2, for some time still
          ...[2, 3, 4].map((id) => set(id, P | C)),
          set(5, P | R | X, -5n), // a lease that ended, of 3
          add(0, 2, structural),
          add(2, 3, label),
          add(1, 2, flat),
          add(2, 4, structural),
          add(5, 3, label),
        ),
      );
      const { durationMs: _, ...sizes } = await graph.retained(
        query([0], [1], [0, 1], [2], [5], [0, 0], [9], []),
      );
      assert.deepEqual(sizes, {
        kept: 1 + 2 + 4 + 8 + 16,
        total: Float64Array.of(1 + 4 + 8 + 16, 2 + 4 + 16, 31, 4 + 8 + 16, 0, 29, 0, 0),
        retained: Float64Array.of(1 + 8, 2, 31, 4 + 8 + 16, 0, 9, 0, 0),
        reached: words(1, 1, 2, 1, 0, 1, 0, 0),
      });
    });

    it('given ids far apart, big lists and long chains, when asked, then it returns', async () => {
      const graph = newCore(kind);
      const n = 50_000;
      const far = 1_000_000_000;
      const ops = [set(far, P | R), ...Array.from({ length: n }, (_, id) => set(id, P | C))];
      for (let id = 0; id < n; id++) ops.push(add(id, id + 1 < n ? id + 1 : far, structural));
      for (let id = 0; id < 600; id++) ops.push(add(far, id, flat), add(far, id, flat));
      graph.apply(batch(...ops));
      const { kept, retained, reached } = await graph.retained({
        now: 0n,
        itemOf: new Uint32Array(n),
        sizes: Float64Array.of(7),
        members: words(far, 0, n - 1, ...Array.from({ length: n }, (_, id) => id)),
        ends: words(1, 2, 3, 3 + n),
      });
      assert.deepEqual([kept, [...retained], [...reached]], [7, [7, 0, 0, 7], [1, 1, 1, n]]);
    });

    it('given a query under way, when ops follow, then the result is of the state at the call', async () => {
      const graph = newCore(kind);
      const n = 60_000;
      const ops = [set(0, P | R)];
      for (let id = 1; id < n; id++) ops.push(set(id, P | C), add(id >> 1, id, label));
      graph.apply(batch(...ops));
      const q: RetainedQuery = {
        now: 0n,
        itemOf: Uint32Array.from({ length: n }, (_, id) => id),
        sizes: new Float64Array(n).fill(1),
        members: Uint32Array.from({ length: 500 }, (_, id) => id),
        ends: Uint32Array.from({ length: 500 }, (_, id) => id + 1),
      };
      const { durationMs: _, ...before } = await graph.retained(q);
      let done = false;
      const asking = graph.retained(q).finally(() => {
        done = true;
      });
      for (let id = n - 1; !done && id > 1; id -= 7) {
        graph.apply(batch(remove(id >> 1, id, label), add(0, id, label), set(id, P), set(n + id, P | R)));
        if (id % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      const { durationMs, ...sizes } = await asking;
      assert.deepEqual(sizes, before);
      const { durationMs: later, ...after } = await graph.retained(q);
      assert.notDeepEqual(after, before);
      assert(durationMs >= 0 && later >= 0);
    });

    it('given a question under way, when it is aborted or the graph is forgotten, then it is Canceled', async () => {
      const graph = newCore(kind);
      const n = 100_000;
      const build = (): void => graph.apply(batch(...Array.from({ length: n }, (_, id) => set(id, P | R))));
      build();
      const q = {
        now: 0n,
        itemOf: new Uint32Array(n).fill(NO_ITEM),
        sizes: new Float64Array(),
        members: new Uint32Array(),
        ends: new Uint32Array(),
      };
      const image = await graph.save();
      const controller = new AbortController();
      const asking = graph.retained(q, { signal: controller.signal });
      controller.abort();
      await assert.rejects(asking, (e) => isKind(e, 'Canceled'));
      await assert.rejects(graph.retained(q, { signal: controller.signal }), (e) => isKind(e, 'Canceled'));
      for (const forget of [() => graph.clear(), () => graph.load(image)]) {
        graph.load(image);
        const result = graph.retained(q);
        forget();
        await assert.rejects(result, (e) => isKind(e, 'Canceled'));
      }
      assert.equal((await graph.retained(q)).kept, 0);
    });

    it('given numbers out of their range, when asked, then InvalidArgument, and the next query has its result', async () => {
      const graph = newCore(kind);
      graph.apply(batch(set(0, P | R), set(1, P)));
      const good = query([0], [1]);
      const wrong: Partial<Record<keyof RetainedQuery, unknown>>[] = [
        { itemOf: words(20) },
        { itemOf: [0] },
        { sizes: Float64Array.of(1, -1) },
        { sizes: new Float64Array(20).fill(0.5) },
        { sizes: new Float64Array(20).fill(Number.NaN) },
        { sizes: new Float64Array(20).fill(Number.POSITIVE_INFINITY) },
        { sizes: new Float64Array(20).fill(2 ** 52) },
        { sizes: words(...new Array(20).fill(1)) },
        { sizes: new Float64Array(new SharedArrayBuffer(160)) },
        { members: words(0, 2 ** 30) },
        { ends: words(2, 1) },
        { ends: words(1) },
        { ends: words(1, 3) },
        { roots: words(0xffffffff) },
        { edges: words(0, 1, 2) },
        { edges: words(0, 2 ** 30) },
        { now: 2n ** 64n },
      ];
      for (const change of wrong) {
        const bad = { ...good, ...change } as RetainedQuery;
        await assert.rejects(
          (async () => graph.retained(bad))(),
          (e) => isKind(e, 'InvalidArgument'),
          String(Object.entries(change)),
        );
      }
      assert.equal((await graph.retained(good)).kept, 1);
    });
  });
}
