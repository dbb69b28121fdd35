import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { GraphCore } from '../../src/engine/graph.js';
import { add, batch, describeGraph, kinds, nativeMissing, newCore, P, R, set, X } from './cores.js';
import { crc32c } from './crc32c.js';

if (nativeMissing !== undefined) console.log(`native checkpoints not tested: ${nativeMissing}`);
const IDS = 30;

function sample(kind: GraphCore['kind']): GraphCore {
  const graph = newCore(kind);
  const ops: number[][] = [];
  for (let id = 0; id < IDS; id++)
    if (id % 7 !== 3) ops.push(set(id, (id % 4) | ((id % 5) << 8) | (id % 6 ? 0 : X), BigInt(id) - 9n));
  for (let id = 0; id < IDS; id++) {
    const to = (id * 11) % IDS;
    if (id % 7 !== 3 && to % 7 !== 3) ops.push(add(id, to, id % 3), add(to, id, 0), add(id, id, 1));
  }
  graph.apply(batch(...ops));
  return graph;
}

for (const kind of kinds) {
  describe(`checkpoints of the ${kind} graph core`, () => {
    it('given any byte flipped, when loaded, then it is refused and the graph is empty', async () => {
      const whole = await sample(kind).save();
      const graph = newCore(kind);
      for (let at = 0; at < whole.length; at++) {
        const damaged = Buffer.from(whole);
        damaged[at]! ^= 1 << (at % 8);
        assert.equal(graph.load(damaged), false, `byte ${at}`);
        const { nodes, edges, limit } = graph.stats();
        assert.deepEqual({ nodes, edges, limit }, { nodes: 0, edges: 0, limit: 0 });
      }
    });

    it('given any shorter or longer file, when loaded, then it is refused', async () => {
      const whole = await sample(kind).save();
      const graph = newCore(kind);
      for (let length = 0; length < whole.length; length++)
        assert.equal(graph.load(whole.subarray(0, length)), false);
      assert.equal(graph.load(Buffer.concat([whole, Buffer.of(0)])), false);
      assert.equal(graph.load(whole), true);
    });

    it('given another format or version, when loaded, then it is refused', async () => {
      const whole = await sample(kind).save();
      for (const [offset, value] of [
        [0, 0x12345678],
        [4, 3],
      ] as const) {
        const other = Buffer.from(whole);
        other.writeUInt32LE(value, offset);
        other.writeUInt32LE(crc32c(other.subarray(0, 40)), 40);
        assert.equal(newCore(kind).load(other), false);
      }
    });

    it('given damage under a right checksum, when loaded, then it is refused or gives a graph that works', async () => {
      const whole = await sample(kind).save();
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(fc.nat(whole.length - 57), fc.nat(255)), { minLength: 1, maxLength: 4 }),
          async (changes) => {
            const forged = Buffer.from(whole);
            for (const [at, byte] of changes) forged[56 + at] = byte;
            forged.writeUInt32LE(crc32c(forged.subarray(56), crc32c(forged.subarray(44, 52))), 52);
            const graph = newCore(kind);
            if (!graph.load(forged)) return;
            await graph.mark(0n);
            graph.candidates();
            graph.endRun();
            await graph.save();
          },
        ),
        { numRuns: 300 },
      );
    });

    it('given a checkpoint, when it is loaded, then the graph, its free-able ids and its image are equal', async () => {
      const graph = sample(kind);
      const image = await graph.save();
      for (const other of kinds.map(newCore)) {
        assert.equal(other.load(image), true);
        assert.deepEqual(describeGraph(other, IDS), describeGraph(graph, IDS));
        assert.deepEqual(await other.save(), image);
        assert.deepEqual(other.takeFreeable(), sample(kind).takeFreeable());
      }
    });

    it('given an empty graph, when saved and loaded, then it is an empty graph', async () => {
      const graph = newCore(kind);
      assert.equal(graph.load(await graph.save()), true);
      assert.equal(graph.stats().nodes, 0);
    });

    it('given a save under way, when ops follow at once, then the image is of the moment of the call', async () => {
      const graph = newCore(kind);
      const n = 60_000;
      graph.apply(batch(...Array.from({ length: n }, (_, id) => set(id, P | R))));
      const before = await graph.save();
      const saving = graph.save();
      for (let id = n - 1; id > n - 3000; id--) {
        graph.apply(batch(set(id, P), add(id, 0, 0), add(n - id, id, 1), set(n + id, P)));
      }
      assert.deepEqual(await saving, before);
      assert.notDeepEqual(await graph.save(), before);
    });

    it('given two saves at once, when both end, then both are whole', async () => {
      const graph = newCore(kind);
      graph.apply(batch(...Array.from({ length: 40_000 }, (_, id) => set(id, P))));
      const first = graph.save();
      graph.apply(batch(set(50_000, P)));
      const [a, b] = await Promise.all([first, graph.save()]);
      assert(newCore(kind).load(a) && newCore(kind).load(b));
      assert.notDeepEqual(a, b);
    });
  });
}
