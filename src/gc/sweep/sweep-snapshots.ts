/**
 * The sweep of one snapshotter: removes backend snapshots that no record in any namespace names, children
 * before parents, each under its own guard; then lets the snapshotter reclaim its disk.
 *
 * A snapshot that cannot be removed keeps its ancestors, and nothing else: siblings and other trees go on.
 */
import type { RemovalReport, SnapshotterBackend } from '../../backends/contract.js';
import { isKind, isNotFound } from '../../errors.js';
import { snapshotGuard } from '../../stores/guards.js';
import type { RemovedSnapshot } from '../../stores/host.js';
import { messageOf } from '../../system/system-errors.js';
import { count } from '../stats.js';
import type { SweepWork } from './dirty.js';
import { LoopPacer } from './loop-pacer.js';
import type { OrphanCandidates } from './orphan-candidates.js';
import {
  checkCertain,
  emptyReport,
  type InFlight,
  isRefusal,
  isSnapshotNamed,
  MAX_SWEEP_ERRORS,
  ORPHAN_NAMES_MAX,
  type SweepHost,
  type SweepReport,
  underGuard,
} from './sweep.js';

/** Removes what the order names. Never throws for the backend's failure: the report has it. */
export async function sweepSnapshotter(
  host: SweepHost,
  snapshotter: string,
  backend: SnapshotterBackend,
  work: SweepWork,
  inFlight: InFlight,
): Promise<SweepReport> {
  const sweep = new SnapshotSweep(host, snapshotter, backend, inFlight);
  try {
    if (work.orphans && work.orphans.length > 0) await sweep.removeOrphans(work, work.orphans);
    else await sweep.remove(work);
  } catch (error) {
    sweep.report.errors.push(messageOf(error));
  }
  await sweep.cleanup();
  return sweep.report;
}

/** Whether the removal of a snapshot's record is known to be on disk. */
const Gone = { forGood: 0, perhaps: 1 } as const;
type Gone = (typeof Gone)[keyof typeof Gone];

/** What is known of a backend snapshot that may have to go. */
type Swept = Pick<RemovedSnapshot, 'name' | 'parent' | 'goneSince'>;

/** Removed, or not to be removed; failed; refused by the backend; left to the next run. All but the first keep ancestors. */
const Outcome = { done: 0, failed: 1, refused: 2, postponed: 3 } as const;
type Outcome = (typeof Outcome)[keyof typeof Outcome];

class SnapshotSweep {
  readonly report = emptyReport();
  readonly #host: SweepHost;
  readonly #snapshotter: string;
  readonly #backend: SnapshotterBackend;
  readonly #inFlight: InFlight;
  /** Backend names that must stay because a child of theirs did. */
  readonly #kept = new Set<string>();
  readonly #pacer: LoopPacer;

  constructor(host: SweepHost, snapshotter: string, backend: SnapshotterBackend, inFlight: InFlight) {
    this.#host = host;
    this.#pacer = new LoopPacer(host.engine);
    this.#snapshotter = snapshotter;
    this.#backend = backend;
    this.#inFlight = inFlight;
  }

  /** The items come in the order their records went, which has children before parents. */
  async remove(work: SweepWork): Promise<void> {
    // Their records must be gone for good; a backend name is never given to another snapshot.
    await this.#host.engine.flush();
    for (const item of work.items) {
      // Its record went: asking under the guard is enough.
      if (item.kind === 'snapshot') await this.#sweepOne(item, Gone.forGood);
    }
  }

  /**
   * Removes orphans of a survey together with the items: one may be the other's child. The backend says in which order;
   * memory grows with its snapshots.
   */
  async removeOrphans(work: SweepWork, orphans: OrphanCandidates): Promise<void> {
    const parents = new Map<string, string>();
    await this.#backend.walk(({ name, parent }) => void parents.set(name, parent));
    const listed = namesOf(orphans);
    const wanted = namesOf(work.items);
    for (const name of childrenFirst(parents)) {
      if (this.#pacer.isDue) await this.#pacer.pause();
      const isOrphan = listed.has(name);
      if (!isOrphan && !wanted.has(name)) continue;
      const size = isOrphan ? await this.#sizeOf(name) : 0;
      const before = this.report.removed;
      // The record of one may have gone a moment ago, and would be back after a crash.
      await this.#sweepOne({ name, parent: parents.get(name) }, Gone.perhaps);
      if (!isOrphan || this.report.removed === before) continue;
      count(this.report.orphans, 'snapshot');
      count(this.report.orphanBytes, 'snapshot', size);
      const { orphanNames } = this.report;
      if (orphanNames.length < ORPHAN_NAMES_MAX)
        orphanNames.push({ kind: 'snapshot', key: `${this.#snapshotter}/${name}` });
    }
  }

  async #sizeOf(name: string): Promise<number> {
    try {
      return (await this.#backend.usage(name)).size;
    } catch {
      return 0;
    }
  }

  async cleanup(): Promise<void> {
    if (!this.#backend.cleanup) return;
    try {
      this.#add(await this.#backend.cleanup());
    } catch (error) {
      if (!isKind(error, 'NotImplemented')) this.report.errors.push(`cleanup: ${messageOf(error)}`);
    }
  }

  #add(report: RemovalReport | undefined): void {
    if (report === undefined) return;
    this.report.bytes += report.bytes;
    for (const { path, message } of report.errors) this.report.errors.push(`${path}: ${message}`);
  }

  /**
   * `gone`: how far the removal of the snapshot's record has come. A parent that is not known is asked for when it
   * matters, which is when the snapshot stays.
   */
  async #sweepOne({ name, parent, goneSince }: Swept, gone: Gone): Promise<void> {
    const { guards } = this.#host;
    if (this.#pacer.isDue) await this.#pacer.pause();
    if (this.#kept.has(name)) {
      const above = parent ?? (await this.#parentOf(name));
      this.#kept.add(above);
      this.report.refused.push({ kind: 'snapshot', snapshotter: this.#snapshotter, name, parent: above });
      return;
    }
    let outcome: Outcome = Outcome.postponed;
    const guard = snapshotGuard(this.#snapshotter, name);
    const release = guards.tryAcquire(guard);
    if (release === undefined) {
      await underGuard(guards, guard, async () => {
        outcome = await this.#guarded(name, gone, goneSince);
      });
    } else {
      try {
        outcome = await this.#guarded(name, gone, goneSince);
      } finally {
        release();
      }
    }
    if (outcome === Outcome.done) return;
    const above = parent ?? (await this.#parentOf(name));
    const item = { kind: 'snapshot', snapshotter: this.#snapshotter, name, parent: above } as const;
    if (outcome === Outcome.postponed) this.report.postponed.push(item);
    else if (outcome === Outcome.refused) this.report.refused.push(item);
    if (above !== '') this.#kept.add(above);
  }

  /** The caller holds the guard. */
  async #guarded(name: string, gone: Gone, goneSince: number | undefined): Promise<Outcome> {
    const { engine } = this.#host;
    if (this.#inFlight().has(name) || isSnapshotNamed(engine, this.#snapshotter, name, goneSince))
      return Outcome.done;
    checkCertain(this.#host);
    if (gone === Gone.perhaps) await engine.flush();
    return this.#remove(name);
  }

  async #parentOf(name: string): Promise<string> {
    try {
      return (await this.#backend.stat(name)).parent;
    } catch {
      return '';
    }
  }

  async #remove(name: string): Promise<Outcome> {
    try {
      await this.#backend.remove(name);
      this.report.removed++;
      return Outcome.done;
    } catch (error) {
      if (isNotFound(error)) return Outcome.done;
      if (isRefusal(error)) {
        this.#host.log('info', 'a snapshot was not removed: the snapshotter says it is in use', {
          snapshotter: this.#snapshotter,
          name,
          error: messageOf(error),
        });
        return Outcome.refused;
      }
      this.report.errors.push(`${name}: ${messageOf(error)}`);
      if (this.report.errors.length >= MAX_SWEEP_ERRORS) throw new Error('too many failures');
      return Outcome.failed;
    }
  }
}

function namesOf(items: OrphanCandidates): Set<string> {
  const names = new Set<string>();
  for (const item of items) if (item.kind === 'snapshot') names.add(item.name);
  return names;
}

/**
 * The names of a forest given as name → parent, each after its children. Parents that do not occur end a tree,
 * as '' does; a cycle, which only a damaged backend has, comes last in no particular order.
 */
export function childrenFirst(parents: ReadonlyMap<string, string>): string[] {
  const waiting = new Map<string, number>();
  for (const parent of parents.values()) {
    if (parents.has(parent)) waiting.set(parent, (waiting.get(parent) ?? 0) + 1);
  }
  const order: string[] = [];
  for (const name of parents.keys()) if (!waiting.has(name)) order.push(name);
  for (let at = 0; at < order.length; at++) {
    const parent = parents.get(order[at] ?? '');
    const left = parent === undefined ? undefined : waiting.get(parent);
    if (parent === undefined || left === undefined) continue;
    if (left > 1) waiting.set(parent, left - 1);
    else {
      waiting.delete(parent);
      order.push(parent);
    }
  }
  return [...order, ...waiting.keys()];
}
