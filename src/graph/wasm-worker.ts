/** The thread of wasm-graph.ts that makes a report of retained sizes over a copy of the graph, and ends. */
import { parentPort, workerData } from 'node:worker_threads';
import { EbbtideError } from '../errors.js';
import { type Failure, type Report, WasmGraph } from './wasm-graph.js';

const { bytes, query, mostPages } = workerData as Report;
try {
  const graph = new WasmGraph(mostPages * 65_536);
  graph.load(bytes);
  parentPort?.postMessage(graph.retainedNow(...query));
} catch (error) {
  const { kind, message } =
    error instanceof EbbtideError ? error : new EbbtideError('Unknown', String(error));
  parentPort?.postMessage({ kind, message } satisfies Failure);
}
