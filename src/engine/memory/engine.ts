/**
 * Engines whose records are in memory: for tests and experiments, the reference that other engines are compared with, and for records of
 * another program.
 */
import type { EngineOptions } from '../contract.js';
import { CoreEngine, type CoreOptions } from '../core/engine.js';
import { FilledStorage } from './filled-storage.js';
import { Filling } from './filling.js';
import { MemoryStorage } from './storage.js';

/** An empty engine in memory. */
export async function openMemoryEngine(options: EngineOptions): Promise<CoreEngine> {
  return engineOf({ ...options, storage: new MemoryStorage() });
}

/** One with what `fill` puts in, to be read only. The graph must be empty; if `fill` fails, it is of no use any more. */
export async function openFilledEngine(
  options: EngineOptions,
  fill: (filling: Filling) => Promise<void>,
): Promise<CoreEngine> {
  const filling = new Filling(options.indexer, options.graph);
  await fill(filling);
  return engineOf({ ...options, storage: new FilledStorage(filling.end()), readOnly: true });
}

const engineOf = (options: EngineOptions & Pick<CoreOptions, 'storage' | 'readOnly'>): CoreEngine =>
  new CoreEngine({ ...options, kind: 'memory', revision: 0, cleanStart: true });
