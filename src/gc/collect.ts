/**
 * A collection: marks beside the writers, removes unreachable records in short slices, then has the backends
 * remove what no record names any more. Called by db.ts, one run at a time.
 *
 * Promise: a run never removes an object that is reachable at the moment of its removal, and removes every
 * object that was unreachable when the run began and still is when its slice comes. What becomes garbage during
 * a run may wait for the next.
 *
 * No lock is held. Marks live on between runs, so marking takes up what has changed since the last one, on a thread of its
 * own if that is much; from then to the end of the run the graph core keeps the marks closed over every commit, and each
 * slice is one synchronous transaction that asks again before it removes. Bytes go only after the removal of their records is on disk.
 */
import { yieldToEventLoop } from '../backends/files.js';
import type { MarkResult } from '../engine/graph.js';
import { invalidArgument, isKind, throwIfAborted } from '../errors.js';
import { type Instant, now } from '../model/time.js';
import { publishAll } from '../stores/events.js';
import { endCollectors, type StartedCollector, startCollectors } from './collectors.js';
import type { CollectHost } from './host.js';
import { RunEdges } from './mark/run-edges.js';
import { type CollectionRecord, RemovedNames, recordOf } from './report/collection-record.js';
import { listCandidates } from './report/dry-run.js';
import { type Candidate, type Counts, count, emptyStats, type GCStats } from './stats.js';
import { BackendSweeper, type Swept } from './sweep/backend-sweeper.js';
import { CONTENT_BACKEND } from './sweep/dirty.js';
import { checkMass, isMarked, type MassGuard, massGuard } from './sweep/mass-guard.js';
import type { BackendItem } from './sweep/orphan-candidates.js';
import { orphanLimits } from './sweep/orphan-guard.js';
import { RecordSweep } from './sweep/record-sweep.js';
import { checkLimits, limitCandidates, type RunLimits } from './sweep/run-limits.js';
import { Slicer } from './sweep/slicer.js';
import { ITEMS_FOR_THREAD } from './sweep/sweep-content.js';
import { kindName, type Node } from './types.js';

/** How one collection is made. */
export interface CollectOptions extends RunLimits {
  /** Ends marking and removing with its error; what was removed stays so. Backends are not interrupted. */
  signal?: AbortSignal | undefined;
  /** Removes nothing and lists what would go. */
  dryRun?: boolean | undefined;
  /** Milliseconds a slice may hold the main thread; default 2. */
  sliceBudgetMs?: number | undefined;
  /**
   * Walks every backend for items that no record names, instead of looking at what was removed; and marks from the roots,
   * without the marks that live on between runs.
   */
  fullSweep?: boolean | undefined;
  /** Stops, before it removes anything, a run that would remove nearly everything; default off. */
  massGuard?: boolean | MassGuard | undefined;
  /**
   * Stops, before it removes anything, a run that would remove many backend items only because no record names them: in
   * a store whose metadata was lost, all of them. On unless `false`, which is consent. Limits: `maxShare` of a backend's
   * items, default 0.5, and `floor`, default 20; none at all may go from a store that is or began empty.
   */
  orphanGuard?: boolean | MassGuard | undefined;
  /** The run removes what is chosen, and its bytes, only: no collector's resources, nothing a sweep would find. */
  only?: Choice | undefined;
}

export interface Choice {
  /** Chooses among the candidates. */
  choose(candidates: Uint32Array): Uint32Array;
  /** Backend items to be removed too if no record names them. */
  readonly orphans: readonly BackendItem[];
  /** Roots that were retired for this run, counted and named with what it removes. */
  readonly retired?: readonly Candidate[];
}

const SLICE_BUDGET_MS = 2;
/** Places of the removal order looked at in one go: a fraction of a millisecond. */
const PLACES_AT_ONCE = 32 * 1024;

/** One collection. Rejects with the first error of marking or removing; backends' failures are in the stats. */
export async function collect(host: CollectHost, options: CollectOptions = {}): Promise<GCStats> {
  const collection = new Collection(host, options);
  if (options.dryRun) return collection.run();
  try {
    const stats = await collection.run();
    host.collected(collection.record());
    return stats;
  } catch (error) {
    host.collected(collection.record({ error }));
    throw error;
  }
}

class Collection {
  readonly #host: CollectHost;
  readonly #options: CollectOptions;
  readonly #stats = emptyStats();
  readonly #slicer: Slicer;
  /** Backend items of the records that a run with a choice removed. */
  #items: readonly BackendItem[] = [];
  #collectors: StartedCollector[] = [];
  readonly #sweeper: BackendSweeper;
  readonly #names = new RemovedNames();
  readonly #startedAt = now();
  readonly #start = performance.now();

  constructor(host: CollectHost, options: CollectOptions) {
    this.#host = host;
    this.#options = options;
    this.#sweeper = new BackendSweeper(host, orphanLimits(options.orphanGuard), options.signal);
    this.#slicer = new Slicer(options.sliceBudgetMs ?? SLICE_BUDGET_MS);
    for (const { kind, namespace, key } of options.only?.retired ?? []) {
      count(this.#stats.removed, kind);
      if (this.#names.wants(kind)) this.#names.add({ kind, namespace, key });
    }
  }

  /** What is kept of the run. To be called when it has ended, with its error if it failed. */
  record(failed?: { error: unknown }): CollectionRecord {
    const durationMs = performance.now() - this.#start;
    const [startedAt, planned] = [this.#startedAt, this.#options.only !== undefined];
    return recordOf({ startedAt, durationMs, stats: this.#stats, names: this.#names, planned }, failed);
  }

  async run(): Promise<GCStats> {
    const { signal, dryRun, only, fullSweep } = this.#options;
    throwIfAborted(signal);
    checkBudget(this.#options.sliceBudgetMs);
    checkLimits(this.#options);
    massGuard(this.#options.massGuard);
    if (!dryRun) await this.#host.orphans.mark();
    if (!dryRun && !only) await this.#sweeper.survey(fullSweep === true);
    try {
      return await this.#run();
    } catch (error) {
      this.#sweeper.abandon();
      throw error;
    }
  }

  async #run(): Promise<GCStats> {
    const { signal, dryRun } = this.#options;
    const start = performance.now();
    this.#collectors = await startCollectors(this.#host.collectors, signal, this.#warn);
    this.#stats.phases.collectors = performance.now() - start;
    try {
      await this.#records();
    } catch (error) {
      await endCollectors(this.#collectors, 'cancel', this.#warn);
      throw error;
    }
    this.#stats.metaD = performance.now() - start;
    if (dryRun) await endCollectors(this.#collectors, 'cancel', this.#warn);
    else await this.#afterwards();
    return this.#finished();
  }

  readonly #warn = (message: string, details: Readonly<Record<string, unknown>>): void =>
    this.#host.log('warn', message, details);

  // --------------------------------------------------------------------------------------------- the records

  async #records(): Promise<void> {
    const { engine, dirty, expiryClock } = this.#host;
    const { signal, dryRun, only } = this.#options;
    const markStart = performance.now();
    if (!dryRun) await expiryClock.save(engine);
    const at = expiryClock.beginRun();
    // What is deleted from here on may be garbage that this run does not see.
    const seenDeletions = dirty.deletions;
    this.#stats.revision = engine.revision;
    // A run that walks everything also marks everything, whatever the live marks say.
    const live = this.#options.fullSweep !== true && this.#host.liveMarks.areTrusted;
    const result = await this.#mark(at, live);
    this.#stats.marking = result.marking;
    try {
      countMarked(this.#stats.marked, result.markedByType);
      const edges = new RunEdges(engine, this.#collectors, at, signal);
      await edges.followAll();
      const sweepStart = performance.now();
      this.#stats.phases.mark = sweepStart - markStart;
      throwIfAborted(signal);
      const candidates = await this.#candidates(result.markedByType);
      if (dryRun) {
        this.#stats.wouldRemove = await listCandidates(this.#host, candidates);
        this.#stats.wouldRemove.push(...(await this.#sweeper.list(this.#options.fullSweep === true)));
        return;
      }
      await this.#removal(candidates, edges, at);
      if (!only) await this.#collectorResources(edges, at);
      // What was left over is a reason for the next run.
      if (!only && !this.#stats.limited) dirty.resetDeletions(seenDeletions);
      await engine.flush();
      this.#stats.phases.sweep = performance.now() - sweepStart;
    } finally {
      engine.graph.endRun();
    }
  }

  async #mark(at: Instant, live: boolean): Promise<MarkResult> {
    const { engine } = this.#host;
    const { signal } = this.#options;
    try {
      return await engine.graph.mark(at, { live, ...(signal && { signal }) });
    } catch (error) {
      // Live marks take memory of their own. A run without them may be what frees some.
      if (!live || !isKind(error, 'ResourceExhausted')) throw error;
      this.#warn('no memory for live marks: this run marks from the roots', { error: String(error) });
      return this.#mark(at, false);
    }
  }

  /** What this run is to remove: the garbage, as far as choice, limits and guard let it. */
  async #candidates(markedByType: Uint32Array): Promise<Uint32Array> {
    const { engine } = this.#host;
    const { only, dryRun } = this.#options;
    const garbage = await this.#garbage();
    const chosen = only ? this.#slicer.timed(() => only.choose(garbage)) : garbage;
    const candidates = await limitCandidates(this.#host, chosen, this.#options);
    this.#stats.limited = candidates.length < chosen.length;
    const guard = massGuard(this.#options.massGuard);
    if (guard && !dryRun)
      await checkMass(engine, candidates, guard, { isKept: isMarked(engine), marked: markedByType });
    return candidates;
  }

  async #garbage(): Promise<Uint32Array> {
    const { graph } = this.#host.engine;
    const places = this.#slicer.timed(() => graph.places());
    const garbage = new Uint32Array(places);
    let size = 0;
    for (let from = 0; from < places; from += PLACES_AT_ONCE) {
      const part = this.#slicer.timed(() => graph.candidates(from, PLACES_AT_ONCE));
      garbage.set(part, size);
      size += part.length;
      if (from + PLACES_AT_ONCE < places) await yieldToEventLoop();
      throwIfAborted(this.#options.signal);
    }
    return garbage.subarray(0, size);
  }

  async #removal(candidates: Uint32Array, edges: RunEdges, at: Instant): Promise<void> {
    const keepItems = this.#options.only !== undefined;
    // The thread that looks names up afterwards runs by then.
    if (candidates.length >= ITEMS_FOR_THREAD)
      this.#host.engine.mightBeReferenced([], []).catch(() => undefined);
    const sweep = new RecordSweep(this.#host, edges, this.#slicer, this.#stats.removed, {
      at,
      keepItems,
      names: this.#names,
      publish: (events) => publishAll(this.#host.publisher, events, this.#warn),
    });
    try {
      await sweep.run(candidates, this.#options.signal);
    } finally {
      this.#items = sweep.items;
    }
  }

  /** Passes to collectors which of their resources nothing keeps, in one synchronous step with the last look at the store. */
  async #collectorResources(edges: RunEdges, at: Instant): Promise<void> {
    if (this.#collectors.length === 0) return;
    const all: [StartedCollector, Node][] = [];
    for (const collector of this.#collectors) {
      await collector.context.all((node) => all.push([collector, node]));
    }
    do await edges.followAll();
    while (!edges.tryFollowNew());
    this.#host.expiryClock.checkRun(at);
    for (const [{ context, type }, node] of all) {
      if (edges.isReached(node)) continue;
      context.remove(node);
      const kind = kindName(type);
      count(this.#stats.removed, kind);
      this.#names.add({ kind, namespace: node.namespace, key: node.key });
    }
  }

  // -------------------------------------------------------------------------------------------- what follows

  async #afterwards(): Promise<void> {
    const { only } = this.#options;
    const start = performance.now();
    // Before the directories of snapshots go that may be mounted.
    await this.#sweepMounts();
    await Promise.all([
      endCollectors(this.#collectors, only ? 'cancel' : 'finish', this.#warn),
      // After a run with a choice the dirty flags stay for the next ordinary run.
      only
        ? this.#sweeper.removeOnly(this.#items, only.orphans, this.#swept)
        : this.#sweeper.sweep(this.#swept),
    ]);
    this.#stats.phases.backends = performance.now() - start;
    if (!only) this.#stats.retryInMs = this.#host.dirty.retryInMs;
  }

  async #sweepMounts(): Promise<void> {
    const errors = await this.#host.mounts.sweep();
    this.#stats.backendErrors += errors.length;
    if (errors.length > 0) this.#warn('unmounting failed and is tried again', { errors: errors.slice(0, 8) });
  }

  readonly #swept: Swept = (name, { bytes, errors, orphans, orphanBytes, orphanNames, refused }, ms) => {
    const stats = this.#stats;
    stats.bytesFreed += bytes;
    stats.refused += refused.length;
    stats.backendErrors += errors.length;
    for (const [kind, n] of Object.entries(orphans)) count(stats.orphans, kind, n);
    for (const { kind, key } of orphanNames) this.#names.add({ kind, namespace: '', key, orphan: true });
    for (const [kind, n] of Object.entries(orphanBytes)) count(stats.orphanBytes, kind, n);
    if (this.#options.only) return;
    if (name === CONTENT_BACKEND) stats.contentD = ms;
    else stats.snapshotD[name] = ms;
  };

  #finished(): GCStats {
    const stats = this.#stats;
    stats.pauseMax = this.#slicer.pauseMax;
    stats.pauseTotal = this.#slicer.pauseTotal;
    stats.slices = this.#slicer.slices;
    stats.walked = this.#sweeper.walked;
    if (this.#host.sweepsHeld && !this.#options.dryRun) stats.sweepsHeld = true;
    stats.expiryHeldBackMs = this.#host.expiryClock.heldBackMs;
    return stats;
  }
}

function checkBudget(ms: number | undefined): void {
  if (ms === undefined || ms > 0) return;
  throw invalidArgument(`a slice budget of ${ms} ms is not valid`, { remedy: 'use a number above 0' });
}

function countMarked(marked: Counts, byType: Uint32Array): void {
  byType.forEach((n, type) => {
    if (n > 0) count(marked, kindName(type), n);
  });
}
