/**
 * The daemon's collections: scheduled, or only on request. A caller waits for a run that begins after its
 * request; callers that request at the same time share one run. Called by the services and the daemon.
 */
import type { DB } from '../db.js';
import { abortError, canceled, throwIfAborted } from '../errors.js';
import { type Collectable, Scheduler } from '../gc/schedule/scheduler.js';
import type { SchedulerOptions } from '../gc/schedule/scheduler-params.js';
import type { GCStats } from '../gc/stats.js';

export type CollectMode = 'scheduled' | 'on-request';

export interface CollectionHooks {
  /** Called after each run, with its stats or its error. */
  onRun: (outcome: { stats: GCStats } | { error: unknown }) => void;
}

export class Collections implements AsyncDisposable {
  readonly #db: DB;
  readonly #hooks: CollectionHooks;
  #scheduler: Scheduler<GCStats> | undefined;
  #onMutation: (dirty: boolean) => void = () => undefined;
  readonly #closing = new AbortController();
  /** On request only: the run that callers requesting now will get. */
  #waiting: Promise<GCStats> | undefined;
  #running: Promise<unknown> = Promise.resolve();

  constructor(db: DB, mode: CollectMode, schedule: SchedulerOptions, hooks: CollectionHooks) {
    this.#db = db;
    this.#hooks = hooks;
    db.registerMutationCallback((dirty) => this.#onMutation(dirty));
    this.#schedule(mode, schedule);
  }

  #schedule(mode: CollectMode, schedule: SchedulerOptions): void {
    const db = this.#db;
    const target: Collectable<GCStats> = {
      garbageCollect: (ctx, options) => db.garbageCollect(ctx, options),
      // One scheduler at a time is notified.
      registerMutationCallback: (fn) => {
        this.#onMutation = fn;
      },
      nextExpiry: (after) => db.nextExpiry(after),
      expiryTime: db.expiryTime,
    };
    this.#scheduler =
      mode === 'scheduled' ? new Scheduler<GCStats>(target, schedule, this.#hooks) : undefined;
  }

  /** Collects by another schedule from now on. A scheduled run under way ends between two slices. */
  async reschedule(mode: CollectMode, schedule: SchedulerOptions): Promise<void> {
    await this.#scheduler?.close();
    if (this.#closing.signal.aborted) return;
    this.#schedule(mode, schedule);
    // What the last one had counted.
    this.#scheduler?.notify(true);
  }

  /**
   * A collection that begins after this call. The mass guard does not stop it: a client that deletes and
   * waits has asked for the removal.
   */
  run(): Promise<GCStats> {
    this.#waiting ??= this.#next();
    return this.#waiting;
  }

  /** As `run`. An aborted signal ends the wait only; the run goes on for the other callers. */
  async collect(signal: AbortSignal): Promise<GCStats> {
    throwIfAborted(signal);
    const run = this.run();
    return new Promise<GCStats>((resolve, reject) => {
      const onAbort = (): void => reject(abortError(signal));
      signal.addEventListener('abort', onAbort, { once: true });
      run.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
    });
  }

  /** Tells the hooks of a run that was not started here. */
  async observe<T>(run: () => Promise<T>, statsOf: (result: T) => GCStats): Promise<T> {
    try {
      const result = await run();
      this.#hooks.onRun({ stats: statsOf(result) });
      return result;
    } catch (error) {
      this.#hooks.onRun({ error });
      throw error;
    }
  }

  /** Stops scheduling and waits for a run under way. */
  async close(): Promise<void> {
    this.#closing.abort(canceled('the daemon is stopping'));
    await this.#scheduler?.close();
    await this.#running;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #next(): Promise<GCStats> {
    const run = this.#running.then(() => {
      this.#waiting = undefined;
      throwIfAborted(this.#closing.signal);
      return this.#db.garbageCollect({ signal: this.#closing.signal });
    });
    this.#running = run.then(
      (stats) => this.#hooks.onRun({ stats }),
      (error: unknown) => this.#hooks.onRun({ error }),
    );
    return run;
  }
}
