/**
 * A worker thread of threads.test.ts: builds a graph in an addon instance of its own, says how it went, then marks
 * and saves without end until it is terminated (or once, on request).
 */
import { parentPort, workerData } from 'node:worker_threads';
import { add, C, newCore, P, R, set, structural } from './cores.js';

const { nodes, once } = workerData as { nodes: number; once: boolean };
const graph = newCore('native');
const ops: number[][] = [];
for (let id = 0; id < nodes; id++) ops.push(set(id, id === 0 ? P | R : P | C));
for (let id = 0; id + 1 < nodes; id++) ops.push(add(id, id + 1, structural));
graph.apply(Uint32Array.from(ops.flat()));
do {
  const [{ marked }, image] = await Promise.all([graph.mark(0n), graph.save()]);
  parentPort?.postMessage({ marked, bytes: image.length });
  graph.endRun();
} while (!once);
