/**
 * The memory engine: the whole contract over a storage that forgets. For tests and experiments, and the
 * reference that other engines are compared with.
 */
import type { EngineOptions } from '../contract.js';
import { CoreEngine } from '../core/engine.js';
import { Filling } from './filling.js';
import { MemoryStorage } from './storage.js';

/** An engine in memory with what `fill` puts in, or empty. The graph must be empty; if `fill` fails, it is of no use any more. */
export async function openMemoryEngine(
  options: EngineOptions,
  fill?: (filling: Filling) => Promise<void>,
): Promise<CoreEngine> {
  const storage = new MemoryStorage();
  if (fill !== undefined) {
    const filling = new Filling(storage, options.indexer, options.graph);
    await fill(filling);
    filling.end();
  }
  return new CoreEngine({
    ...options,
    kind: 'memory',
    storage,
    revision: 0,
    cleanStart: true,
  });
}
