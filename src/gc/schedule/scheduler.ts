/**
 * Decides when to collect: after deletions, after many mutations, when a lease or an image expires, or when a caller
 * asks, but never so often that collections take more than their share of time. Fed by mutation callbacks; runs collections one at a time.
 *
 * Nothing is stored. Mutations go on during a collection; those that happen before its start are covered by it,
 * later ones are counted for the next.
 */
import { abortError, canceled, EbbtideError, kindOf, orAborted, throwIfAborted } from '../../errors.js';
import type { Instant } from '../../model/time.js';
import { timerMs } from '../../system/timers.js';
import { type MassGuard, massGuard } from '../sweep/mass-guard.js';
import { orphanLimits } from '../sweep/orphan-guard.js';
import type { ExpiryTime } from './expiry-clock.js';
import { ExpiryWake } from './expiry-wake.js';
import { MarksCheck, type MarksCheckParts } from './marks-check.js';
import { type SchedulerOptions, type SchedulerParams, schedulerParams } from './scheduler-params.js';

/** Where time comes from; tests give their own. */
export interface Clock {
  /** Milliseconds; only differences count. */
  now(): number;
  /** As the global one. */
  setTimeout(fn: () => void, ms: number): unknown;
  /** As the global one. */
  clearTimeout(timer: unknown): void;
}

const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout: (fn, ms) => setTimeout(fn, timerMs(ms)),
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout),
};

/** What is scheduled: a DB is one. */
export interface Collectable<S> {
  /** Runs one collection. */
  garbageCollect(
    ctx: { signal?: AbortSignal | undefined },
    options: { massGuard: boolean | MassGuard; orphanGuard: boolean | MassGuard },
  ): Promise<S>;
  /** Calls `fn` after every update. */
  registerMutationCallback(fn: (deletionSinceLastGC: boolean) => void): void;
  /** When the next root later than `after` expires; without it and `expiryTime`, nothing wakes an idle scheduler. */
  nextExpiry?(after: Instant): Instant | undefined;
  /** The time that expiries are compared with. */
  readonly expiryTime?: ExpiryTime;
  /** Reports new garbage, for `immediate`; without it every deletion counts as such. */
  readonly garbageWatch?: { listen(fn: () => void): () => void };
  /** Compares the marks that live on with a count anew. */
  checkMarks?: MarksCheckParts['check'];
}

/** What a scheduler uses and tells. */
export interface SchedulerHooks<S> {
  /** Where time comes from; default the system's. */
  clock?: Clock;
  /** Ends planning, as `close` does. */
  signal?: AbortSignal;
  /** Called after each run with its stats, or its error. */
  onRun?: (outcome: { stats: S } | { error: unknown }) => void;
}

/** What is looked at of a collection's stats, in milliseconds. */
interface HasElapsed {
  elapsed(): number;
  /** Time for which it delayed others; `elapsed` where that is not known. */
  readonly pauseTotal?: number;
  readonly retryInMs?: number | undefined;
}

interface Event {
  /** Clock time. */
  at: number;
  mutation: boolean;
  dirty: boolean;
}

interface Waiter<S> {
  resolve(stats: S): void;
  reject(error: unknown): void;
}

/** Average that a collection is taken to need at least, so that tiny ones do not run all the time. */
const MINIMUM_RUN_MS = 5;
const FIRST_INTERVAL_MS = 1000;
const RETRY_MS = 1000;

/** Decides when to collect, and does it. */
export class Scheduler<S extends HasElapsed> implements AsyncDisposable {
  /** The options with their defaults, within their limits. */
  readonly params: SchedulerParams;
  readonly #target: Collectable<S>;
  readonly #clock: Clock;
  readonly #onRun: SchedulerHooks<S>['onRun'];
  readonly #abort = new AbortController();

  #timer: unknown;
  /** When the planned run is due; undefined before the first plan. */
  #next: number | undefined;
  #interval = FIRST_INTERVAL_MS;
  /** Start of the last collection: what happened before is covered by it. */
  #lastStart: number | undefined;
  /** End of the last collection or failed attempt. */
  #lastEnd: number | undefined;
  #triggered = false;
  #deletions = 0;
  #mutations = 0;
  #pauseSum = 0;
  #runTimeSum = 0;
  #runs = 0;

  #running: Promise<void> | undefined;
  /** What happened during the run under way. */
  #postponed: Event[] = [];
  #waiters = new Set<Waiter<S>>();
  readonly #expiry: ExpiryWake | undefined;
  readonly #marksCheck: MarksCheck | undefined;
  #unlisten: (() => void) | undefined;
  readonly #guards: { massGuard: boolean | MassGuard; orphanGuard: boolean | MassGuard };
  /** When items that a backend refused to remove are tried again. */
  #retryTimer: unknown;

  constructor(target: Collectable<S>, options: SchedulerOptions = {}, hooks: SchedulerHooks<S> = {}) {
    this.params = schedulerParams(options);
    this.#target = target;
    const { massGuard: mass = true, orphanGuard = true } = options;
    this.#guards = { massGuard: mass, orphanGuard };
    massGuard(mass);
    orphanLimits(orphanGuard);
    this.#clock = hooks.clock ?? systemClock;
    this.#onRun = hooks.onRun;
    target.registerMutationCallback((dirty) => this.notify(dirty));
    if (this.params.startupDelay > 0) this.#plan(this.params.startupDelay);
    // As if a caller had asked for a collection.
    if (this.params.immediate) this.#unlisten = target.garbageWatch?.listen(() => this.#request());
    this.#expiry = this.#watchExpiry();
    this.#marksCheck = this.#checkMarks();
    const { signal } = hooks;
    if (signal?.aborted) this.#stop(abortError(signal));
    else signal?.addEventListener('abort', () => this.#stop(abortError(signal)), { once: true });
  }

  /** A mutation happened; `dirty` when something was deleted since the last collection. Never blocks. */
  notify(dirty: boolean): void {
    this.#post({ at: this.#clock.now(), mutation: true, dirty });
    this.#expiry?.changed();
  }

  /**
   * Asks for a collection and returns its stats. A call during a run gets the next one. Rejects when the run
   * fails, with the signal's error when that ends first (the run goes on), Canceled when the scheduler closes.
   */
  async scheduleAndWait(signal?: AbortSignal): Promise<S> {
    return this.#wait(signal, true);
  }

  /** Returns the stats of the next collection without asking for one. */
  async waitForNext(signal?: AbortSignal): Promise<S> {
    return this.#wait(signal, false);
  }

  /** Ends planning and waits for a run under way. Again: no error. */
  async close(): Promise<void> {
    this.#stop(canceled('the scheduler is closed'));
    await this.#running;
    await this.#marksCheck?.close();
  }

  /** Closes it, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #watchExpiry(): ExpiryWake | undefined {
    const target = this.#target;
    const time = target.expiryTime;
    if (target.nextExpiry === undefined || time === undefined) return undefined;
    return new ExpiryWake({
      nextExpiry: (after) => target.nextExpiry?.(after),
      wake: () => this.#request(),
      time,
      setTimeout: (fn, ms) => this.#clock.setTimeout(fn, ms),
      clearTimeout: (timer) => this.#clock.clearTimeout(timer),
    });
  }

  #checkMarks(): MarksCheck | undefined {
    const target = this.#target;
    const { marksCheckInterval } = this.params;
    if (target.checkMarks === undefined || marksCheckInterval === 0) return undefined;
    return new MarksCheck(marksCheckInterval, {
      check: async () => (await target.checkMarks?.()) ?? 'not checked',
      setTimeout: (fn, ms) => this.#clock.setTimeout(fn, ms),
      clearTimeout: (timer) => this.#clock.clearTimeout(timer),
    });
  }

  // ------------------------------------------------------------------------------------------------ waiting

  async #wait(signal: AbortSignal | undefined, trigger: boolean): Promise<S> {
    while (this.#running !== undefined) await orAborted(this.#running, signal);
    throwIfAborted(signal);
    throwIfAborted(this.#abort.signal);
    let waiter: Waiter<S> | undefined;
    const result = new Promise<S>((resolve, reject) => {
      waiter = { resolve, reject };
      this.#waiters.add(waiter);
    });
    if (trigger) this.#request();
    try {
      return await orAborted(result, signal);
    } finally {
      if (waiter) this.#waiters.delete(waiter);
    }
  }

  // ----------------------------------------------------------------------------------------------- planning

  #request(): void {
    this.#post({ at: this.#clock.now(), mutation: false, dirty: false });
  }

  #post(event: Event): void {
    if (this.#abort.signal.aborted) return;
    if (this.#running !== undefined) this.#postponed.push(event);
    else this.#take(event);
  }

  #take({ at, mutation, dirty }: Event): void {
    if (this.#lastStart !== undefined && at < this.#lastStart) return;
    if (dirty) this.#deletions++;
    if (mutation) this.#mutations++;
    else this.#triggered = true;
    if (!this.#isDue()) return;
    const delay = this.#delay();
    if (this.#next === undefined || this.#next > this.#clock.now() + delay) this.#plan(delay);
  }

  /** Runs that nobody asked for keep the distance that their share of time says. */
  #delay(): number {
    const { scheduleDelay, immediate } = this.params;
    if (!immediate || this.#lastEnd === undefined || this.#waiters.size > 0) return scheduleDelay;
    return Math.max(scheduleDelay, this.#lastEnd + this.#interval - this.#clock.now());
  }

  #isDue(): boolean {
    const { deletionThreshold, mutationThreshold, immediate } = this.params;
    if (this.#triggered) return true;
    if (immediate) return this.#target.garbageWatch === undefined && this.#deletions > 0;
    if (deletionThreshold > 0 && this.#deletions >= deletionThreshold) return true;
    if (this.#next !== undefined) return false;
    return (
      (deletionThreshold <= 0 && this.#deletions > 0) ||
      (mutationThreshold > 0 && this.#mutations >= mutationThreshold)
    );
  }

  #plan(delayMs: number): void {
    if (this.#abort.signal.aborted) return;
    this.#clock.clearTimeout(this.#timer);
    this.#next = this.#clock.now() + delayMs;
    this.#timer = this.#clock.setTimeout(() => this.#tick(), delayMs);
  }

  #tick(): void {
    if (this.#abort.signal.aborted || this.#running !== undefined) return;
    const { mutationThreshold } = this.params;
    const fewMutations = mutationThreshold === 0 || this.#mutations < mutationThreshold;
    if (!this.#triggered && this.#lastEnd !== undefined && this.#deletions === 0 && fewMutations) {
      this.#plan(this.#interval);
      return;
    }
    this.#running = this.#collect().finally(() => {
      this.#running = undefined;
      for (const event of this.#postponed.splice(0)) this.#take(event);
    });
  }

  #stop(reason: EbbtideError): void {
    if (this.#abort.signal.aborted) return;
    this.#abort.abort(reason);
    this.#clock.clearTimeout(this.#timer);
    this.#clock.clearTimeout(this.#retryTimer);
    this.#expiry?.close();
    this.#unlisten?.();
    if (this.#running === undefined) this.#endWaiters((waiter) => waiter.reject(reason));
  }

  // ------------------------------------------------------------------------------------------------ running

  async #collect(): Promise<void> {
    const start = this.#clock.now();
    const time = this.#target.expiryTime?.now();
    try {
      const stats = await this.#target.garbageCollect({ signal: this.#abort.signal }, this.#guards);
      this.#succeeded(start, stats);
      if (time !== undefined) this.#expiry?.collected(time);
    } catch (error) {
      this.#failed(start, error);
    }
  }

  #succeeded(start: number, stats: S): void {
    this.#pauseSum += stats.pauseTotal ?? stats.elapsed();
    this.#runTimeSum += stats.elapsed();
    this.#runs++;
    this.#triggered = false;
    this.#deletions = 0;
    this.#mutations = 0;
    const { pauseThreshold } = this.params;
    if (pauseThreshold > 0) {
      const average = Math.max(MINIMUM_RUN_MS, this.#pauseSum / this.#runs);
      // A run takes a processor's time also where it delays no caller: at most half of all time goes to runs.
      this.#interval = Math.max(average / pauseThreshold - average, this.#runTimeSum / this.#runs);
    }
    this.#lastStart = start;
    this.#lastEnd = this.#clock.now();
    if (this.params.immediate) this.#next = undefined;
    else this.#plan(this.#interval);
    this.#retryIn(stats.retryInMs);
    this.#report({ stats });
    this.#endWaiters((waiter) => waiter.resolve(stats));
  }

  #retryIn(ms: number | undefined): void {
    this.#clock.clearTimeout(this.#retryTimer);
    if (ms === undefined || this.#abort.signal.aborted) return;
    this.#retryTimer = this.#clock.setTimeout(() => this.#request(), Math.max(this.#interval, ms));
  }

  #failed(start: number, error: unknown): void {
    const { scheduleDelay } = this.params;
    const planned = this.#next ?? start;
    const delay = this.#lastEnd === undefined ? scheduleDelay : planned - this.#lastEnd + RETRY_MS;
    this.#lastStart = start;
    this.#lastEnd = this.#clock.now();
    this.#plan(Math.max(0, delay));
    this.#report({ error });
    const text = error instanceof Error ? error.message : String(error);
    const failure = new EbbtideError(kindOf(error), `gc failed: ${text}`, { cause: error });
    this.#endWaiters((waiter) => waiter.reject(failure));
  }

  #report(outcome: { stats: S } | { error: unknown }): void {
    try {
      this.#onRun?.(outcome);
    } catch {
      // An observer's trouble is not the scheduler's.
    }
  }

  #endWaiters(fn: (waiter: Waiter<S>) => void): void {
    const waiters = this.#waiters;
    this.#waiters = new Set();
    for (const waiter of waiters) fn(waiter);
  }
}
