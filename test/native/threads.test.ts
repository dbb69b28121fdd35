import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { isKind } from '../../src/errors.js';
import { add, batch, C, kinds, label, nativeMissing, newCore, P, R, remove, set } from './cores.js';

if (nativeMissing !== undefined) console.log(`native core not tested: ${nativeMissing}`);
const worker = (data: { nodes: number; once: boolean }): Worker =>
  new Worker(new URL('./graph-worker.js', import.meta.url), { workerData: data });

describe('the addon in several threads', { skip: nativeMissing ?? false }, () => {
  it('given several workers, when each builds and marks, then each has its own graph', async () => {
    const sizes = [2_000, 30_000, 40_000];
    const results = await Promise.all(
      sizes.map(async (nodes) => {
        const w = worker({ nodes, once: true });
        const exited = once(w, 'exit');
        const [message] = (await once(w, 'message')) as [{ marked: number }];
        await exited;
        return message.marked;
      }),
    );
    assert.deepEqual(results, sizes);
  });

  it('given workers that mark and save, when they are terminated, then the process lives', async () => {
    for (let round = 0; round < 6; round++) {
      const w = worker({ nodes: 60_000, once: false });
      await once(w, 'message');
      await new Promise((resolve) => setTimeout(resolve, round * 3));
      await w.terminate();
    }
    const graph = newCore('native');
    graph.apply(batch(set(0, P)));
    assert.equal(graph.stats().nodes, 1);
  });

  it('given a process that ends while it marks, when it exits, then its exit code is its own', () => {
    const cores = new URL('./cores.js', import.meta.url).href;
    const script = `
      const { newCore, set } = await import(${JSON.stringify(cores)});
      const graph = newCore('native');
      graph.apply(Uint32Array.from(Array.from({ length: 200000 }, (_, id) => set(id, 3)).flat()));
      graph.mark(0n); graph.save();
      setTimeout(() => process.exit(7), 1);`;
    const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script]);
    assert.equal(status, 7, stderr.toString());
  });
});

for (const kind of kinds) {
  describe(`ops beside a run of the ${kind} graph core`, () => {
    const n = 100_000;
    const filled = (): ReturnType<typeof newCore> => {
      const graph = newCore(kind);
      const ops = new Uint32Array(n * 9);
      for (let id = 0; id < n; id++) ops.set(set(id, id === 0 ? P | R : P | C), id * 5);
      for (let id = 1; id < n; id++)
        ops.set(add(id - 1 - ((id * 7) % Math.min(id, 50)), id, label), n * 5 + id * 4);
      graph.apply(ops.subarray(0, n * 5));
      graph.apply(ops.subarray(n * 5 + 4));
      return graph;
    };

    it('given edges that move about while marking, when it ends, then nothing reachable is a candidate', async () => {
      const graph = filled();
      const parent = Uint32Array.from({ length: n }, (_, id) =>
        id === 0 ? 0 : id - 1 - ((id * 7) % Math.min(id, 50)),
      );
      let done = false;
      const marking = graph.mark(0n).finally(() => {
        done = true;
      });
      let moved = 0;
      for (let step = 1; !done || step < 2000; step++) {
        const id = 1 + ((step * 7919) % (n - 1));
        const to = (step * 104_729) % id;
        graph.apply(batch(add(to, id, label), remove(parent[id]!, id, label)));
        parent[id] = to;
        moved++;
        if (step % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      assert.equal((await marking).marked, n);
      assert(moved >= 1999);
      assert.deepEqual([...graph.candidates()], []);
      graph.endRun();
    });

    it('given nodes that appear while marking, when it ends, then none of them is a candidate', async () => {
      const graph = filled();
      const marking = graph.mark(0n);
      for (let id = n; id < n + 500; id++) graph.apply(batch(set(id, P | C)));
      await marking;
      assert.deepEqual([...graph.candidates()], []);
      assert.equal(graph.marksOf(n + 499), 4);
    });

    it('given a signal, when it ends during marking, then mark is Canceled and the next run is right', async () => {
      const graph = filled();
      const controller = new AbortController();
      const marking = graph.mark(0n, { signal: controller.signal });
      controller.abort();
      await assert.rejects(marking, (e) => isKind(e, 'Canceled'));
      graph.apply(batch(remove(0, 1, label)));
      await graph.mark(0n);
      assert(graph.candidates().includes(1));
      graph.endRun();
    });

    it('given a run under way, when the graph is cleared or loaded, then mark is Canceled', async () => {
      const graph = filled();
      const image = await graph.save();
      for (const drop of [() => graph.clear(), () => graph.load(image), () => graph.endRun()]) {
        graph.load(image);
        const marking = graph.mark(0n);
        drop();
        await assert.rejects(marking, (e) => isKind(e, 'Canceled'));
      }
      assert.equal((await graph.mark(0n)).marked, n);
    });
  });
}
