/**
 * Runs the body of an update until it commits: attempt after attempt, alone after too many conflicts. Outside effects run
 * once over all attempts, and are undone when the update fails or its last attempt did not ask for them. Base of the
 * engines (engine.ts, etcd/engine.ts), which say what an attempt may do, whether what it read has changed, and how it commits.
 *
 * Where the engine's steps are synchronous, a synchronous body has committed when `update` returns its promise.
 */
import { OutcomeUnknown, throwIfAborted } from '../../errors.js';
import type { Transaction, UpdateOptions } from '../contract.js';
import { Effects } from './effects.js';
import { type EndRun, ExclusiveRuns } from './exclusive.js';
import type { Attempt, EngineTransaction } from './transaction.js';

export type Body<T> = (tx: Transaction) => T | Promise<T>;

/** What an attempt may do that others may not. */
export interface Privilege<Commit> {
  /** Set: it runs alone. */
  readonly run?: EndRun | undefined;
  /** Called at the end of the attempt, before its durability is waited for; without `commit` nothing was committed. */
  end(commit: Commit | undefined): void | Promise<void>;
}

/** Without `commit`: a conflict. */
interface Outcome<T, Tx, Commit> {
  readonly tx: Tx;
  readonly result?: T;
  readonly commit?: Commit;
}

export abstract class UpdateLoop<
  Tx extends EngineTransaction,
  Commit,
  P extends Privilege<Commit> = Privilege<Commit>,
> {
  protected readonly exclusive = new ExclusiveRuns();

  /** FailedPrecondition when the store is closed. */
  protected abstract checkOpen(): void;
  /** FailedPrecondition when nothing can be written. */
  protected abstract checkWritable(): void;
  /** Before an attempt; `last` is the one before it. Waits while another transaction runs alone. */
  protected abstract enter(
    attempt: number,
    last: Tx | undefined,
    signal: AbortSignal | undefined,
  ): P | undefined | Promise<P | undefined>;
  protected abstract begin(attempt: Attempt): Tx;
  protected abstract end(tx: Tx): void;
  /** Commits, if `tx` is not stale. Undefined: a conflict. */
  protected abstract commit(
    tx: Tx,
    privilege: P | undefined,
    signal: AbortSignal | undefined,
  ): Commit | undefined | Promise<Commit | undefined>;
  /** Resolves when the commit is as durable as the caller asked for. */
  protected abstract durable(commit: Commit, options: UpdateOptions): Promise<void>;
  /** After a commit of background work: resolves when more of it keeps no other commit waiting. */
  protected abstract paced(commit: Commit): Promise<void>;
  /** After a conflict. False: this attempt does not count. Throws when there were too many. */
  protected abstract conflicted(tx: Tx, attempt: number): boolean | Promise<boolean>;

  /** Whether anything that was read has changed since; then the outcome of the body means nothing. */
  protected isStale(tx: Tx): boolean {
    return tx.isStale;
  }

  /** As `isStale`, of a body that failed: its error counts only if what it read is true. */
  protected isOutdated(tx: Tx): boolean | Promise<boolean> {
    return this.isStale(tx);
  }

  /** Whether the commit has to wait for another transaction that runs alone. */
  protected isBlocked(privilege: P | undefined): boolean {
    return this.exclusive.isBlocked(privilege?.run);
  }

  protected run<T>(fn: Body<T>, tx: Tx): T | Promise<T> {
    return fn(tx);
  }

  async view<T>(fn: Body<T>): Promise<T> {
    this.checkOpen();
    const tx = this.begin({ writable: false, attempt: 1, effects: new Effects(), background: false });
    try {
      return await fn(tx);
    } finally {
      this.end(tx);
    }
  }

  async update<T>(fn: Body<T>, options: UpdateOptions = {}): Promise<T> {
    const effects = new Effects();
    let last: Tx | undefined;
    try {
      for (let attempt = 1; ; ) {
        this.checkWritable();
        throwIfAborted(options.signal);
        const entered = this.enter(attempt, last, options.signal);
        const privilege = isPromise(entered) ? await entered : entered;
        const { tx, result, commit } = await this.#privileged(fn, attempt, effects, privilege, options);
        if (commit !== undefined) {
          await this.durable(commit, options);
          for (const hook of tx.hooks) hook();
          if (options.background) await this.paced(commit);
          if (attempt > 1) await effects.undo(attempt);
          return result as T; // Set together with `commit`.
        }
        last = tx;
        if (await this.conflicted(tx, attempt)) attempt++;
      }
    } catch (error) {
      if (!(error instanceof OutcomeUnknown)) await effects.undo();
      throw error;
    }
  }

  /** Up to its first wait synchronous, as `#attempt`. */
  async #privileged<T>(
    fn: Body<T>,
    attempt: number,
    effects: Effects,
    privilege: P | undefined,
    options: UpdateOptions,
  ): Promise<Outcome<T, Tx, Commit>> {
    const tx = this.begin({ writable: true, attempt, effects, background: options.background ?? false });
    let outcome: Outcome<T, Tx, Commit> = { tx };
    try {
      const running = this.#attempt(fn, tx, privilege, options.signal);
      outcome = isPromise(running) ? await running : running;
      return outcome;
    } finally {
      this.end(tx);
      if (privilege !== undefined) await privilege.end(outcome.commit);
    }
  }

  #attempt<T>(
    fn: Body<T>,
    tx: Tx,
    privilege: P | undefined,
    signal: AbortSignal | undefined,
  ): Outcome<T, Tx, Commit> | Promise<Outcome<T, Tx, Commit>> {
    let result: T | Promise<T>;
    try {
      result = this.run(fn, tx);
    } catch (error) {
      return this.#failed(tx, error);
    }
    if (isPromise(result) || this.isBlocked(privilege)) return this.#awaited(tx, result, privilege, signal);
    return this.#finish(tx, result, privilege, signal);
  }

  async #awaited<T>(
    tx: Tx,
    body: T | Promise<T>,
    privilege: P | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Outcome<T, Tx, Commit>> {
    let result: T;
    try {
      result = await body;
    } catch (error) {
      return this.#failed(tx, error);
    }
    while (this.isBlocked(privilege)) await this.exclusive.pass(signal);
    return this.#finish(tx, result, privilege, signal);
  }

  /** Of the body only: after an error of the commit the body must not run again. */
  async #failed(tx: Tx, error: unknown): Promise<{ tx: Tx }> {
    if (await this.isOutdated(tx)) return { tx };
    throw error;
  }

  #finish<T>(
    tx: Tx,
    result: T,
    privilege: P | undefined,
    signal: AbortSignal | undefined,
  ): Outcome<T, Tx, Commit> | Promise<Outcome<T, Tx, Commit>> {
    throwIfAborted(signal);
    this.checkWritable();
    if (this.isStale(tx)) return { tx };
    const commit = this.commit(tx, privilege, signal);
    if (isPromise(commit)) return commit.then((done) => outcomeOf(tx, result, done));
    return outcomeOf(tx, result, commit);
  }
}

const outcomeOf = <T, Tx, Commit>(tx: Tx, result: T, commit: Commit | undefined): Outcome<T, Tx, Commit> =>
  commit === undefined ? { tx } : { tx, result, commit };

const isPromise = <T>(value: T | Promise<T>): value is Promise<T> =>
  typeof value === 'object' && value !== null && typeof (value as Promise<T>).then === 'function';
