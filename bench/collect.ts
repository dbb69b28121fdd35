/** Times whole collections: the first on the store as it is, the next ones with nothing to remove. */
import type { GCStats } from '../src/gc/stats.js';
import { noRecords } from '../src/synth/shape.js';
import type { Collected, Collection } from './results.js';
import { type BenchStore, openStore, peakWhile } from './store.js';

export async function collect(dir: string, runs: number): Promise<Collected> {
  const store = await openStore(dir);
  const first = await collectOnce(store);
  // Removals are durable in the log by then; this is the work that is left for the flusher's thread.
  const end = performance.now();
  await store.drain();
  const drainedMs = performance.now() - end;
  const next: Collection[] = [];
  for (let i = 0; i < runs; i++) next.push(await collectOnce(store));
  const { bytes, nodes } = store.db.engine.graph.stats();
  await store.db.close();
  return {
    openMs: store.openMs,
    first,
    drainedMs,
    next,
    backendBytes: 0,
    graphBytes: bytes,
    graphNodes: nodes,
  };
}

async function collectOnce({ db }: BenchStore): Promise<Collection> {
  const before = recordsOf(db);
  let totalMs = 0;
  const { result, memory } = await peakWhile(async () => {
    const start = performance.now();
    const stats = await db.garbageCollect();
    totalMs = performance.now() - start;
    return stats;
  });
  const removed = removedBy(result);
  const gone = before - recordsOf(db);
  const reported = Object.values(removed).reduce((a, b) => a + b, 0);
  if (gone !== reported)
    throw new Error(`the collection reports ${reported} removed records, but ${gone} are gone`);
  return { totalMs, lockedMs: result.pauseMax, markMs: result.phases.mark, memory, removed };
}

/** Records but the store's own state, of which a first collection makes one. */
function recordsOf({ engine }: BenchStore['db']): number {
  let own = 0;
  for (const _ of engine.scan('meta')) own++;
  return engine.stats().records - own;
}

const removedBy = ({ removed }: GCStats): Collection['removed'] => ({
  ...noRecords,
  images: removed.image ?? 0,
  blobs: removed.content ?? 0,
  snapshots: removed.snapshot ?? 0,
  ingests: removed.ingest ?? 0,
  leases: removed.lease ?? 0,
});
