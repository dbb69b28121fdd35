/**
 * Since when objects have been garbage, and which of them, and of the leases, is the oldest. For reports: why.ts and
 * retained.ts.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import type { Engine, Value } from '../../engine/contract.js';
import { throwIfAborted } from '../../errors.js';
import type { Instant } from '../../model/time.js';
import type { CollectHost } from '../host.js';
import { ResourceLease } from '../types.js';
import { presentNodes } from './items.js';
import { whileMarked } from './marked-run.js';
import { describeKey } from './objects.js';
import { isRootAt } from './reach.js';

/**
 * The store does not record when the last reference went, so unless the object itself expired this is the last change of
 * its record: it has been garbage since then at the earliest.
 */
export interface GarbageSince {
  /** The time. */
  at: Instant;
  /** What happened then. */
  meaning: 'expired' | 'record last changed';
}

/** An object with the time that it is sorted by. */
export interface DatedObject {
  /** One of `objectKinds`. */
  kind: string;
  /** Where it is. */
  namespace: string;
  /** Digest, name, id or ref; `<snapshotter>/<key>` for snapshots. */
  key: string;
  /** The time. */
  at: Instant;
}

const NODES_PER_PAUSE = 1024;

export function garbageSince(engine: Engine, id: number): GarbageSince | undefined {
  const expired = engine.graph.expiryOf(id);
  if (expired !== undefined) return { at: expired, meaning: 'expired' };
  const value = recordOf(engine, id);
  const at = timeIn(value, 'updatedat') ?? timeIn(value, 'createdat');
  return at === undefined ? undefined : { at, meaning: 'record last changed' };
}

/** What has been garbage for longest. REQUIRES: no collection runs meanwhile. */
export function oldestGarbage(
  host: CollectHost,
  at: Instant,
  signal?: AbortSignal,
): Promise<DatedObject | undefined> {
  const { engine } = host;
  return whileMarked(host, at, signal, () =>
    oldest(engine, candidates(engine), signal, (id) => garbageSince(engine, id)?.at),
  );
}

function* candidates({ graph }: Engine): Generator<number> {
  for (let from = 0; from < graph.places(); from += NODES_PER_PAUSE)
    yield* graph.candidates(from, NODES_PER_PAUSE);
}

/** The lease that was made first of those that have not expired. */
export function oldestLease(
  { engine }: CollectHost,
  now: Instant,
  signal?: AbortSignal,
): Promise<DatedObject | undefined> {
  const { graph } = engine;
  return oldest(engine, presentNodes(graph, ResourceLease), signal, (id) =>
    isRootAt(graph.flagsOf(id), graph.expiryOf(id), now)
      ? timeIn(recordOf(engine, id), 'createdat')
      : undefined,
  );
}

async function oldest(
  engine: Engine,
  ids: Iterable<number>,
  signal: AbortSignal | undefined,
  timeOf: (id: number) => Instant | undefined,
): Promise<DatedObject | undefined> {
  let found: DatedObject | undefined;
  let looked = 0;
  for (const id of ids) {
    if (++looked % NODES_PER_PAUSE === 0) {
      await yieldToEventLoop();
      throwIfAborted(signal);
    }
    const at = timeOf(id);
    const record = engine.keyOf(id);
    if (at === undefined || record === undefined) continue;
    if (found === undefined || at < found.at) found = { ...describeKey(record), at };
  }
  return found;
}

function recordOf(engine: Engine, id: number): Value | undefined {
  const record = engine.keyOf(id);
  return record === undefined ? undefined : engine.get(record);
}

function timeIn(value: Value | undefined, field: string): Instant | undefined {
  const time = typeof value === 'object' ? value[field] : undefined;
  return typeof time === 'bigint' ? time : undefined;
}
