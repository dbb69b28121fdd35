/**
 * The sweeps of one run: decides for each backend whether lists of what lost its record are enough or the whole backend
 * has to be surveyed, has the orphans judged before the first removal, sweeps, and updates the dirty flags. Called by
 * collect.ts, and by cluster.ts for the backends of a host that does not collect.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import { throwIfAborted } from '../../errors.js';
import { messageOf } from '../../system/system-errors.js';
import { orphanCandidate } from '../report/dry-run.js';
import type { Candidate, Counts } from '../stats.js';
import { type BackendName, CONTENT_BACKEND, type DirtyFlags, type SweepWork } from './dirty.js';
import type { GuardLimits } from './mass-guard.js';
import { type BackendItem, OrphanCandidates } from './orphan-candidates.js';
import { type OrphanGuard, orphansOf, type Surveyed } from './orphan-guard.js';
import { type Survey, surveyContent, surveySnapshotter, type VisitOrphan } from './survey.js';
import { emptyReport, type InFlight, isUnnamed, type SweepHost, type SweepReport } from './sweep.js';
import { sweepContent } from './sweep-content.js';
import { sweepSnapshotter } from './sweep-snapshots.js';

/** Where it is known what calls under way have made and not yet recorded. */
export interface InFlightHost {
  /** @internal */
  readonly contentStore: { inFlightIngests(): ReadonlySet<string> };
  /** @internal */
  readonly snapshotterStores: ReadonlyMap<string, { inFlight(): ReadonlySet<string> }>;
}

export interface BackendSweepHost extends SweepHost, InFlightHost {
  readonly dirty: DirtyFlags;
  readonly orphans: OrphanGuard;
  /** A backup reads the backends: what loses its record meanwhile stays in them, and in the lists. */
  readonly sweepsHeld: boolean;
}

/** Called with the outcome of one backend's sweep, and how long it took. */
export type Swept = (name: BackendName, report: SweepReport, ms: number) => void;

export class BackendSweeper {
  readonly #host: BackendSweepHost;
  readonly #limits: GuardLimits | undefined;
  readonly #signal: AbortSignal | undefined;
  /** What was found before the run's first removal. */
  readonly #surveys = new Map<BackendName, Surveyed>();
  /** Backends whose walk was due, and whose lists this run took over. */
  readonly #taken = new Set<BackendName>();
  /** Backends that could not be walked. */
  readonly #failures = new Map<BackendName, string>();

  /** `limits`: of orphans; undefined: all may go. `signal` ends surveys, not sweeps. */
  constructor(host: BackendSweepHost, limits: GuardLimits | undefined, signal?: AbortSignal | undefined) {
    this.#host = host;
    this.#limits = limits;
    this.#signal = signal;
  }

  /** Names of the backends that were looked through. */
  get walked(): string[] {
    return [...this.#surveys.keys()].map(nameOf).sort();
  }

  /**
   * Looks through the backends that have to be, before anything is removed: all of them with `full`, else those that
   * are not known from lists. All, too, when records went that nobody removed. FailedPrecondition when the guard stops the run; they are looked through again then.
   */
  async survey(full: boolean): Promise<void> {
    const { dirty, backends, orphans, sweepsHeld } = this.#host;
    if (sweepsHeld) return;
    dirty.requireFullScanAfterUncleanStart(backends.keys());
    const due = dirty.walksDue(backends.keys());
    const names = full || dirty.isDoubtful ? this.#all : due;
    if (names.length === 0) return;
    const { doubts } = dirty;
    if (!full && this.#limits !== undefined) orphans.checkRecent();
    for (const name of due) this.#taken.add(name);
    try {
      const all = await Promise.all(names.map((name) => this.#surveyOne(name)));
      throwIfAborted(this.#signal);
      orphans.check(
        all.filter((one) => one !== undefined),
        this.#limits,
      );
      dirty.settle(doubts);
    } catch (error) {
      this.abandon();
      throw error;
    }
  }

  get #all(): BackendName[] {
    return [CONTENT_BACKEND, ...this.#host.backends.keys()];
  }

  /** Backends that a sweep has work in. */
  get #due(): BackendName[] {
    const { dirty } = this.#host;
    const isDirty = (name: BackendName): boolean =>
      name === CONTENT_BACKEND ? dirty.contentDirty : dirty.dirtySnapshotters.has(name);
    return this.#all.filter((name) => isDirty(name) || this.#surveys.has(name) || this.#failures.has(name));
  }

  async #surveyOne(name: BackendName): Promise<Surveyed | undefined> {
    const { dirty } = this.#host;
    // The survey stands in for the walk that is due; what loses its record from here on is listed again.
    if (this.#taken.has(name)) dirty.take(name);
    try {
      const surveyed = await this.#surveyed(name);
      this.#surveys.set(name, surveyed);
      return surveyed;
    } catch (error) {
      throwIfAborted(this.#signal);
      this.#failures.set(name, messageOf(error));
      return undefined;
    }
  }

  async #surveyed(name: BackendName): Promise<Surveyed> {
    const survey = await this.#look(name);
    // Asked after the walk, which has also seen what lost its record meanwhile.
    return { backend: nameOf(name), survey, accounted: this.#host.dirty.accounted(name) };
  }

  #look(name: BackendName, visit?: VisitOrphan): Promise<Survey> {
    const host = this.#host;
    const options = { inFlight: this.#inFlight(name), visit, signal: this.#signal };
    const backend = name === CONTENT_BACKEND ? undefined : host.backends.get(name);
    if (name === CONTENT_BACKEND || backend === undefined) return surveyContent(host, options);
    return surveySnapshotter(host, name, backend, options);
  }

  /** The run ended before its sweeps: walks that were due still are. */
  abandon(): void {
    for (const name of this.#taken) this.#host.dirty.failed(name);
    this.#taken.clear();
    this.#surveys.clear();
    this.#failures.clear();
  }

  /**
   * Sweeps all backends that have work, side by side, and calls `swept` after each. Never throws for a backend's failure:
   * its report has the errors, and its next sweep walks it.
   */
  async sweep(swept: Swept): Promise<void> {
    const { backends, orphans } = this.#host;
    let isClean = true;
    await this.#each(this.#due, swept, async (name) => {
      const report = await this.#sweepOne(name);
      if (report.errors.length > 0) isClean = false;
      return report;
    });
    // A store that began empty beside content has been put right.
    if (isClean && this.#surveys.size === backends.size + 1) await orphans.explained();
  }

  /** Removes these items, and leaves the dirty flags to the next `sweep`. */
  async removeOnly(
    removed: readonly BackendItem[],
    orphans: readonly BackendItem[],
    swept: Swept,
  ): Promise<void> {
    await this.#each(this.#all, swept, (name) => {
      const isOwn = (item: BackendItem): boolean => backendOf(item) === name;
      const items = OrphanCandidates.of(removed.filter(isOwn));
      const listed = OrphanCandidates.of(orphans.filter(isOwn));
      return items.length + listed.length === 0 ? undefined : this.#remove(name, { items, orphans: listed });
    });
  }

  async #each(
    names: readonly BackendName[],
    swept: Swept,
    run: (name: BackendName) => Promise<SweepReport> | undefined,
  ): Promise<void> {
    if (this.#host.sweepsHeld) return;
    const one = async (name: BackendName): Promise<void> => {
      const start = performance.now();
      const report = await run(name);
      if (report === undefined) return;
      if (report.errors.length > 0) {
        this.#host.log('warn', 'a backend sweep failed and is tried again', {
          backend: nameOf(name),
          errors: report.errors.slice(0, ERRORS_LOGGED),
        });
      }
      swept(name, report, performance.now() - start);
    };
    await Promise.all(names.map(one));
  }

  async #sweepOne(name: BackendName): Promise<SweepReport> {
    const { dirty } = this.#host;
    const order = dirty.take(name);
    const failure = this.#failures.get(name) ?? (order.walk ? await this.#lateSurvey(name) : undefined);
    const surveyed = this.#surveys.get(name);
    const report =
      failure === undefined
        ? await this.#remove(name, { ...order, orphans: surveyed?.survey.orphans })
        : { ...emptyReport(), errors: [failure] };
    if (report.errors.length > 0) {
      dirty.failed(name);
      return report;
    }
    this.#log(name, report, surveyed?.accounted ?? 0);
    dirty.postpone(name, report.postponed);
    dirty.refused(name, report.refused);
    // More than can be listed: the next run goes on.
    if (surveyed !== undefined && !isListed(surveyed.survey)) dirty.failed(name);
    await dirty.swept(name, order);
    return report;
  }

  /** The list outgrew its limit during the run. Returns why the backend cannot be swept. */
  async #lateSurvey(name: BackendName): Promise<string | undefined> {
    try {
      const surveyed = await this.#surveyed(name);
      this.#host.orphans.check([surveyed], this.#limits);
      this.#surveys.set(name, surveyed);
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }

  #remove(name: BackendName, work: SweepWork): Promise<SweepReport> {
    const host = this.#host;
    const backend = name === CONTENT_BACKEND ? undefined : host.backends.get(name);
    if (name === CONTENT_BACKEND || backend === undefined)
      return sweepContent(host, work, this.#inFlight(name));
    return sweepSnapshotter(host, name, backend, work, this.#inFlight(name));
  }

  #inFlight(name: BackendName): InFlight {
    const { contentStore, snapshotterStores } = this.#host;
    if (name === CONTENT_BACKEND) return () => contentStore.inFlightIngests();
    return () => snapshotterStores.get(name)?.inFlight() ?? new Set();
  }

  #log(name: BackendName, { orphans, orphanBytes, refused }: SweepReport, accounted: number): void {
    const host = this.#host;
    if (total(orphans) > 0) {
      host.log(total(orphans) > accounted ? 'warn' : 'info', 'removed what no record named', {
        backend: nameOf(name),
        removed: orphans,
        bytes: orphanBytes,
      });
    }
    if (refused.length > 0) {
      host.log('warn', 'the backend refused to remove what no record names; it is tried again later', {
        backend: nameOf(name),
        refused: refused.length,
      });
    }
  }

  // ------------------------------------------------------------------------------------------------- dry runs

  /**
   * What the sweeps of a run would remove beside the bytes of its own records: orphans of the backends that it would
   * look through, and elsewhere items that wait in a list. Changes nothing.
   */
  async list(full: boolean): Promise<Candidate[]> {
    const { dirty, backends } = this.#host;
    dirty.requireFullScanAfterUncleanStart(backends.keys());
    const all = this.#all;
    const due = new Set(full ? all : dirty.walksDue(backends.keys()));
    const found = new Map<string, Candidate>();
    const add = async (item: BackendItem, size?: number): Promise<void> => {
      const candidate = await orphanCandidate(this.#host, item, size);
      if (candidate !== undefined) found.set(`${candidate.kind} ${candidate.key}`, candidate);
    };
    for (const name of all) {
      if (due.has(name)) {
        const survey = await this.#look(name, add);
        this.#surveys.set(name, { backend: nameOf(name), survey, accounted: 0 });
      } else await this.#listWaiting(dirty.waiting(name), add);
    }
    return [...found.values()];
  }

  async #listWaiting(items: Iterable<BackendItem>, add: (item: BackendItem) => Promise<void>): Promise<void> {
    let looks = 0;
    for (const item of items) {
      if (++looks % LOOKS_PER_PAUSE === 0) await yieldToEventLoop();
      if (await isUnnamed(this.#host, item)) await add(item);
    }
  }
}

const LOOKS_PER_PAUSE = 64;

/** Errors of one sweep that the log has. */
const ERRORS_LOGGED = 8;

const backendOf = (item: BackendItem): BackendName =>
  item.kind === 'snapshot' ? item.snapshotter : CONTENT_BACKEND;

/** As logs and stats have it. */
const nameOf = (name: BackendName): string => (name === CONTENT_BACKEND ? 'content' : name);
const isListed = (survey: Survey): boolean => survey.orphans.length === orphansOf(survey);
const total = (counts: Counts): number => Object.values(counts).reduce((sum, n) => sum + n, 0);
