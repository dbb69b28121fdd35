/**
 * The memory engine: the whole contract over a storage that forgets. For tests and experiments, and the
 * reference that other engines are compared with.
 */
import type { EngineOptions } from '../contract.js';
import { CoreEngine } from '../core/engine.js';
import { MemoryStorage } from './storage.js';

/** An empty engine in memory. The graph must be empty, too. */
export async function openMemoryEngine(options: EngineOptions): Promise<CoreEngine> {
  return new CoreEngine({
    ...options,
    kind: 'memory',
    storage: new MemoryStorage(),
    revision: 0,
    cleanStart: true,
  });
}
