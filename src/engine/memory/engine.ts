/**
 * The memory engine: the whole contract over a storage that forgets. For tests and experiments, and the
 * reference that other engines are compared with.
 */
import type { EngineOptions } from '../contract.js';
import { CoreEngine } from '../core/engine.js';
import { Filling } from './filling.js';
import { type Contents, MemoryStorage } from './storage.js';

/** An engine in memory with what `fill` puts in, or empty. The graph must be empty; if `fill` fails, it is of no use any more. */
export async function openMemoryEngine(
  options: EngineOptions,
  fill?: (filling: Filling) => Promise<void>,
): Promise<CoreEngine> {
  let contents: Contents | undefined;
  if (fill !== undefined) {
    const filling = new Filling(options.indexer, options.graph);
    await fill(filling);
    contents = filling.end();
  }
  return new CoreEngine({
    ...options,
    kind: 'memory',
    storage: new MemoryStorage(contents),
    revision: 0,
    cleanStart: true,
  });
}
