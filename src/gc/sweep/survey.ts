/**
 * A survey of one backend: walks it and finds the orphans, which are the blobs, ingests and backend snapshots that no
 * record of any namespace names. Reads only, in steps beside the writers. Called by backend-sweeper.ts before a sweep that
 * is not content with lists, and by dry runs.
 *
 * The result is out of date at once: an item found here may get its record the next moment, so a sweep asks again under the
 * item's guard. Memory: the names of orphans as bytes, up to a limit; beyond it they are only counted, and left to
 * the next run. The walk of a snapshotter keeps the names and parents of its snapshots meanwhile.
 */
import type { SnapshotterBackend } from '../../backends/contract.js';
import { yieldToEventLoop } from '../../backends/files.js';
import { throwIfAborted } from '../../errors.js';
import { isDigest } from '../../model/digest.js';
import { LoopPacer } from './loop-pacer.js';
import { type BackendItem, ITEMS_BYTES_MAX, OrphanCandidates } from './orphan-candidates.js';
import { BlobNames, type InFlight, IngestNames, isSnapshotNamed, type SweepHost } from './sweep.js';

export interface Survey {
  /** Snapshots in no particular order. */
  readonly orphans: OrphanCandidates;
  /** All orphans, listed or not. */
  readonly found: { blobs: number; ingests: number; snapshots: number };
  /** Bytes of orphan blobs. */
  bytes: number;
  /** Items that a record names, or an operation under way has made. */
  named: number;
}

/** Called with each orphan; `size` in bytes where the walk shows it. */
export type VisitOrphan = (item: BackendItem, size: number | undefined) => Promise<void> | void;

export interface SurveyOptions {
  readonly inFlight: InFlight;
  readonly visit?: VisitOrphan | undefined;
  /** Ends the walk with its error. */
  readonly signal?: AbortSignal | undefined;
}

/** Items looked at between two pauses. */
const LOOKS_PER_PAUSE = 256;

class Finder implements Survey {
  readonly orphans = new OrphanCandidates();
  readonly found = { blobs: 0, ingests: 0, snapshots: 0 };
  bytes = 0;
  named = 0;
  readonly #visit: VisitOrphan | undefined;

  constructor(visit: VisitOrphan | undefined) {
    this.#visit = visit;
  }

  add(item: BackendItem, size?: number): Promise<void> | void {
    this.found[`${item.kind}s`]++;
    this.bytes += size ?? 0;
    if (this.orphans.size <= ITEMS_BYTES_MAX) this.orphans.push(item);
    return this.#visit?.(item, size);
  }
}

export async function surveyContent(
  host: SweepHost,
  { inFlight, visit, signal }: SurveyOptions,
): Promise<Survey> {
  const { content, engine } = host;
  const finder = new Finder(visit);
  let names = new BlobNames(engine);
  let visited = 0;
  await content.walk(async ({ digest, size }) => {
    // What was read is out of date soon, and the walk goes on.
    if (++visited % LOOKS_PER_PAUSE === 0) {
      await yieldToEventLoop();
      throwIfAborted(signal);
      names = new BlobNames(engine);
    }
    if (!isDigest(digest)) return;
    if (names.isNamed(digest)) finder.named++;
    else await finder.add({ kind: 'blob', digest }, size);
  });
  const ingests = await IngestNames.read(engine);
  const look = async (ref: string): Promise<void> => {
    if (++visited % LOOKS_PER_PAUSE === 0) {
      await yieldToEventLoop();
      throwIfAborted(signal);
    }
    if (ingests.isNamed(ref) || inFlight().has(ref)) finder.named++;
    else await finder.add({ kind: 'ingest', ref });
  };
  if (content.walkStatusRefs) await content.walkStatusRefs(look);
  else for (const { ref } of await content.listStatuses()) await look(ref);
  return finder;
}

export async function surveySnapshotter(
  host: SweepHost,
  snapshotter: string,
  backend: SnapshotterBackend,
  { inFlight, visit, signal }: SurveyOptions,
): Promise<Survey> {
  const finder = new Finder(visit);
  const pacer = new LoopPacer(host.engine);
  await backend.walk(async ({ name, parent }) => {
    if (pacer.isDue) {
      await pacer.pause();
      throwIfAborted(signal);
    }
    if (isSnapshotNamed(host.engine, snapshotter, name) || inFlight().has(name)) finder.named++;
    else await finder.add({ kind: 'snapshot', snapshotter, name, parent });
  });
  return finder;
}
