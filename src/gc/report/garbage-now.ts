/**
 * What nothing keeps at this moment: counted by the live marks, so it costs no walk. For metrics and callers of the DB. What a
 * run would remove can be less: conditions and collectors, which only a run asks, may keep some of it.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import { throwIfAborted } from '../../errors.js';
import type { CollectHost } from '../host.js';
import { type Counts, count } from '../stats.js';
import { kindName, ResourceContent } from '../types.js';

export interface GarbageNow {
  /** By kind; exact. */
  objects: Counts;
  /** Of the blobs among them, by their records; an estimate beyond 10,000 blobs. Snapshots' bytes take a walk: see `du`. */
  blobBytes: number;
  isExact: boolean;
  /** For how long the oldest of them has been garbage, milliseconds: since the store was opened, at most. */
  ageMs: number;
}

/** Records looked at for their sizes, those looked at at a stretch, and places of the list of garbage looked through for them. */
const BLOBS_MAX = 10_000;
const PLACES_MAX = 65_536;
const BLOBS_AT_ONCE = 64;

/** Undefined while no marks live: before the first collection, and where marks are not relied on. */
export async function garbageNow(
  host: CollectHost,
  ageMs: () => Promise<number>,
  signal?: AbortSignal,
): Promise<GarbageNow | undefined> {
  const { graph } = host.engine;
  while (!graph.bringUpToDate()) await yieldToEventLoop();
  throwIfAborted(signal);
  if (!graph.stats().hasLiveMarks) return undefined;
  const byType = graph.garbageByType();
  const objects: Counts = {};
  byType.forEach((n, type) => {
    if (n > 0) count(objects, kindName(type), n);
  });
  const blobs = byType[ResourceContent] ?? 0;
  const { bytes, looked } = blobs === 0 ? { bytes: 0, looked: 0 } : await sizes(host, signal);
  const isExact = looked >= blobs;
  const blobBytes = isExact || looked === 0 ? bytes : Math.round((bytes / looked) * blobs);
  return { objects, blobBytes, isExact, ageMs: await ageMs() };
}

async function sizes(
  { engine }: CollectHost,
  signal: AbortSignal | undefined,
): Promise<{ bytes: number; looked: number }> {
  const { graph } = engine;
  const isBlob = (id: number): boolean => graph.flagsOf(id) >> 8 === ResourceContent;
  const blobs = graph.garbage(0, PLACES_MAX).filter(isBlob).subarray(0, BLOBS_MAX);
  let bytes = 0;
  for (const [n, id] of blobs.entries()) {
    const record = engine.keyOf(id);
    const value = record === undefined ? undefined : engine.get(record);
    if (typeof value === 'object' && typeof value.size === 'number') bytes += value.size;
    if (n % BLOBS_AT_ONCE < BLOBS_AT_ONCE - 1) continue;
    await yieldToEventLoop();
    throwIfAborted(signal);
  }
  return { bytes, looked: blobs.length };
}
