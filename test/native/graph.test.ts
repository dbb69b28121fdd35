import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NodeFlag } from '../../src/engine/contract.js';
import type { GraphCore } from '../../src/engine/graph.js';
import { isKind } from '../../src/errors.js';
import { cpuMs } from '../support/cpu.js';
import {
  add,
  batch,
  C,
  flat,
  free,
  kinds,
  label,
  nativeMissing,
  newCore,
  P,
  R,
  remove,
  set,
  structural,
  X,
} from './cores.js';

if (nativeMissing !== undefined) console.log(`native core not tested: ${nativeMissing}`);

const MAX_ID = 2 ** 30 - 2;
const PC = P | C;

/** A chain 0 → 1 → … of this length, its first node a root. */
function chain(graph: GraphCore, length: number, kind: number): void {
  const ops = new Uint32Array(length * 9);
  for (let i = 0; i < length; i++) ops.set(set(i, i === 0 ? PC | R : PC), i * 5);
  for (let i = 0; i < length; i++) ops.set(add(i, (i + 1) % length, kind), length * 5 + i * 4);
  graph.apply(ops);
}

for (const kind of kinds) {
  describe(`${kind} graph core`, () => {
    it('given plain, flat and structural edges, when marked, then each variant follows its own', async () => {
      const graph = newCore(kind);
      // A flat root edge reaches 1; from there only the structural edge to 2 counts, and it stays flat.
      graph.apply(
        batch(
          set(0, PC | R),
          ...[1, 2, 3, 4].map((id) => set(id, PC | (2 << 8))),
          add(0, 1, flat),
          add(1, 2, structural),
          add(1, 3, label),
          add(2, 4, label),
        ),
      );
      const { markedByType, marked, edgesFollowed } = await graph.mark(0n);
      assert.deepEqual(
        [0, 1, 2, 3, 4].map((id) => graph.marksOf(id)),
        [1, 2, 2, 0, 0],
      );
      assert.deepEqual([marked, edgesFollowed, markedByType[0], markedByType[2]], [3, 2, 1, 2]);
      assert.deepEqual([...graph.candidates()], [3, 4]);
    });

    it('given expiries, when now is equal, then the root counts, and one nanosecond later not', async () => {
      const graph = newCore(kind);
      const at = -(2n ** 63n) + 5n;
      graph.apply(batch(set(0, PC | R | X, 7n), set(1, PC | R | X, at), set(2, PC | R | X, 2n ** 63n - 1n)));
      for (const [now, candidates] of [
        [at, []],
        [at + 1n, [1]],
        [7n, [1]],
        [8n, [0, 1]],
        [2n ** 63n - 1n, [0, 1]],
      ] as const) {
        await graph.mark(now);
        assert.deepEqual([...graph.candidates()], candidates);
        graph.endRun();
      }
    });

    it('given a run, when edges, roots and nodes are added, then marks stay closed and new nodes are allocated black', async () => {
      const graph = newCore(kind);
      graph.apply(batch(set(0, PC | R), ...[1, 2, 3, 4].map((i) => set(i, PC)), set(5, 0), add(1, 2, label)));
      await graph.mark(0n);
      assert.deepEqual([...graph.candidates()], [1, 3, 4, 2]);
      graph.apply(batch(add(0, 1, label)));
      graph.apply(batch(set(3, PC | R | X, 0n)));
      graph.apply(batch(set(5, PC), set(6, PC)));
      assert.deepEqual(
        [1, 2, 3, 4, 5, 6].map((id) => graph.marksOf(id)),
        [1, 1, 1, 0, 4, 4],
      );
      assert.deepEqual([...graph.stillCandidates(Uint32Array.of(6, 4, 3, 2, 99))], [4]);
      assert.equal(graph.markFrom(Uint32Array.of(4, 0, 77)), 1);
      assert.deepEqual([...graph.candidates()], []);
      graph.endRun();
      assert.equal(graph.marksOf(0), 0);
    });

    it('given no barrier, when an edge moves to a node that was already followed, then its target is lost', async () => {
      const lost = async (barrier: boolean): Promise<number[]> => {
        const graph = newCore(kind);
        graph.apply(batch(set(0, PC | R), set(1, PC), set(2, PC), add(1, 2, label)));
        const marking = graph.mark(0n, { barrier });
        graph.apply(batch(add(0, 2, label), remove(1, 2, label)));
        await marking;
        return [...graph.candidates()];
      };
      assert.deepEqual(await lost(false), [1, 2]);
      assert.deepEqual(await lost(true), [1]);
    });

    it('given referrers, parents and a cycle, when ordered, then referrers go first and the cycle last', async () => {
      const graph = newCore(kind);
      graph.apply(
        batch(
          ...[0, 1, 2, 3, 4, 5, 6].map((id) => set(id, PC)),
          add(5, 0, label),
          add(0, 1, structural),
          add(3, 1, flat),
          add(2, 4, label),
          add(4, 2, label),
          add(4, 6, label),
        ),
      );
      await graph.mark(0n);
      assert.deepEqual([...graph.candidates()], [3, 5, 0, 1, 2, 4, 6]);
    });

    it('given an invalid op anywhere in a batch, when applied, then the whole batch is without effect', async () => {
      const graph = newCore(kind);
      graph.apply(batch(set(0, PC), set(1, 0), set(2, 0), add(0, 1, label), set(9, P | R | X, 4n)));
      assert.deepEqual([...graph.takeFreeable()], [2]);
      const before = await graph.save();
      const bad: Record<string, number[]> = {
        'unknown code': [5, 0],
        zero: [0],
        'cut short': [1, 0, 0, 0],
        'free of a present node': free(0),
        'free of a referred node': free(1),
        'free of an unknown node': free(3),
        'edge to nowhere': add(0, 3, label),
        'edge from nowhere': add(3, 0, label),
        'unknown kind': add(0, 1, 3),
        'edge that is not there': remove(0, 1, structural),
        'edge of another node': remove(1, 0, label),
        'id beyond the limit': set(MAX_ID + 1, 0),
        'id of all ones': add(0, 0xffffffff, label),
        'flags too wide': set(0, 0x2000),
      };
      for (const [what, op] of Object.entries(bad)) {
        const ops = batch(
          set(4, P),
          free(2),
          set(9, P),
          add(4, 1, label),
          add(0, 4, flat),
          remove(0, 4, flat),
          op,
        );
        assert.throws(
          () => graph.apply(ops),
          (e) => isKind(e, 'InvalidArgument'),
          what,
        );
        assert.deepEqual(await graph.save(), before, what);
        assert.deepEqual([...graph.takeFreeable()], [], what);
      }
    });

    it('given nodes losing their last edge, when asked, then each free-able id is returned once', () => {
      const graph = newCore(kind);
      graph.apply(batch(set(0, P), set(1, 0), set(2, 0), add(0, 1, label), add(2, 2, label)));
      assert.deepEqual([...graph.takeFreeable()], []);
      graph.apply(batch(remove(0, 1, label), remove(2, 2, label), set(0, 0)));
      assert.deepEqual([...graph.takeFreeable()], [0, 1, 2]);
      assert.deepEqual([...graph.takeFreeable()], []);
      graph.apply(batch(add(0, 1, label), remove(0, 1, label)));
      graph.apply(batch(set(1, P)));
      assert.deepEqual([...graph.takeFreeable()], [0]);
      graph.apply(batch(free(0), free(2)));
      assert.deepEqual([...graph.unusedIds(0, 10)], [0]);
      assert.equal(graph.stats().limit, 2);
    });

    it('given more than 255 edges into and out of a node, when they go, then counts stay exact', () => {
      const graph = newCore(kind);
      const n = 700;
      const ids = Array.from({ length: n }, (_, i) => i + 1);
      graph.apply(batch(set(0, 0), ...ids.map((id) => set(id, 0))));
      graph.apply(batch(...ids.flatMap((id) => [add(0, id, label), add(id, 0, structural)])));
      assert.deepEqual(
        [graph.inDegreeOf(0), graph.edgesOf(0).length, graph.stats().edges],
        [255, 2 * n, 2 * n],
      );
      graph.apply(batch(...ids.slice(1).flatMap((id) => [remove(0, id, label), remove(id, 0, structural)])));
      assert.deepEqual([graph.inDegreeOf(0), [...graph.edgesOf(0)]], [1, [1, label]]);
      graph.apply(batch(remove(0, 1, label), remove(1, 0, structural)));
      assert.equal(graph.takeFreeable().length, n + 1);
    });

    it('given a lease of a million resources, when it loses them one by one, then it is quick', async () => {
      const graph = newCore(kind);
      const n = 1_000_000;
      const ops = new Uint32Array(n * 9);
      for (let i = 0; i < n; i++) ops.set(set(i, i === 0 ? PC | R : PC), i * 5);
      for (let i = 0; i < n; i++) ops.set(add(0, i, flat), n * 5 + i * 4);
      const started = cpuMs();
      graph.apply(ops);
      assert.equal((await graph.mark(0n)).marked, n);
      graph.endRun();
      const removals = new Uint32Array(n * 4);
      for (let i = 0; i < n; i++) removals.set(remove(0, (i * 7919) % n, flat), i * 4);
      graph.apply(removals);
      assert.equal(graph.stats().edges, 0);
      assert(cpuMs() - started < 30_000);
    });

    it('given a cycle of a million nodes, when marked, ordered and traced, then no stack is needed', async () => {
      const graph = newCore(kind);
      const n = 1_000_000;
      chain(graph, n, structural);
      assert.equal((await graph.mark(0n)).marked, n);
      graph.endRun();
      assert.equal(graph.path(n - 1, 0n)?.length, n);
      graph.apply(batch(set(0, PC), remove(n - 1, 0, structural)));
      assert.equal((await graph.mark(0n)).marked, 0);
      const order = graph.candidates();
      assert.deepEqual([order.length, order[0], order[n - 1]], [n, 0, n - 1]);
    });

    it('given the highest id, when it is used and freed, then nothing below it is paid for', async () => {
      const graph = newCore(kind);
      graph.apply(batch(set(MAX_ID, P | R), set(3, P), add(MAX_ID, 3, label)));
      assert(graph.stats().bytes < 64 << 20);
      assert.equal((await graph.mark(0n)).marked, 2);
      graph.endRun();
      const image = await graph.save();
      assert(image.length < 1 << 20);
      assert(newCore(kind).load(image));
      graph.apply(batch(remove(MAX_ID, 3, label), set(MAX_ID, 0), free(MAX_ID)));
      assert.equal(graph.stats().limit, 4);
      assert.deepEqual([...graph.unusedIds(0, 2 ** 32)], [0, 1, 2]);
    });

    it('given rare flags, when they come and go, then withFlags returns exactly the nodes that have them', () => {
      const graph = newCore(kind);
      const rare = NodeFlag.conditional;
      graph.apply(batch(set(5, P | rare), set(3, P | rare), set(4, P), set(6, rare)));
      assert.deepEqual([...graph.withFlags(rare)], [3, 5, 6]);
      assert.deepEqual([...graph.withFlags(rare | P)], [3, 5]);
      graph.apply(batch(set(3, P), set(6, 0), free(6)));
      assert.deepEqual([...graph.withFlags(rare)], [5]);
      assert.deepEqual([...graph.withFlags(0x10000)], []);
    });

    it('given a run, when it is misused, then the error says so', async () => {
      const graph = newCore(kind);
      for (const call of [
        () => graph.candidates(),
        () => graph.stillCandidates(Uint32Array.of()),
        () => graph.markFrom(Uint32Array.of()),
      ]) {
        assert.throws(call, (e) => isKind(e, 'FailedPrecondition'));
      }
      graph.endRun();
      await graph.mark(0n);
      await assert.rejects(graph.mark(0n), (e) => isKind(e, 'FailedPrecondition'));
      assert.throws(
        () => graph.markFrom(Uint32Array.of(MAX_ID + 1)),
        (e) => isKind(e, 'InvalidArgument'),
      );
      graph.endRun();
      await assert.rejects(graph.mark(2n ** 63n), (e) => isKind(e, 'InvalidArgument'));
      await assert.rejects(graph.mark(0n, { signal: AbortSignal.abort() }), (e) => isKind(e, 'Canceled'));
      await graph.mark(0n);
    });
  });
}
