/**
 * The daemon's policy: applied again and again, where it says so only while the file system is filled beyond the high
 * water. Called by daemon.ts and the services. A run that fails, or that the mass guard stops, is logged; the next one
 * begins at its time all the same.
 */
import type { DB } from '../db.js';
import { canceled, isKind, notFound } from '../errors.js';
import type { PlanOutcome } from '../gc/report/apply-plan.js';
import { fileSystemOf } from '../gc/report/disk-report.js';
import { formatSeconds, now } from '../model/time.js';
import { bytesOf, type CheckedPolicy, type Policy, parsePolicy } from '../policy/policy.js';
import { timerMs } from '../system/timers.js';

/** What the last run did. */
export interface PolicyRun {
  /** RFC 3339. */
  at: string;
  outcome: 'below high water' | 'nothing to retire' | 'applied' | 'failed';
  /** Roots that are gone, and bytes that were freed. */
  retired: number;
  bytes: number;
  /** Whether each rule had what it wants of space. */
  met: boolean;
  error?: string;
}

/** As `ebbtide policy show` prints it. */
export interface PolicyState {
  policy: Policy;
  last?: PolicyRun;
  /** RFC 3339. */
  next?: string;
}

interface PolicyLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

export interface PolicyHooks {
  readonly log: PolicyLog;
  /** After a collection. */
  onRun(outcome: PlanOutcome): void;
}

/** Names of retired roots in the log. */
const NAMES_LOGGED = 20;

export class Policies implements AsyncDisposable {
  readonly #db: DB;
  readonly #root: string;
  #policy: Policy | undefined;
  readonly #hooks: PolicyHooks;
  readonly #closing = new AbortController();
  #checked: CheckedPolicy | undefined;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #last: PolicyRun | undefined;
  #next: string | undefined;

  /** InvalidArgument: it is not a policy. */
  constructor(db: DB, root: string, policy: Policy | undefined, hooks: PolicyHooks) {
    this.#db = db;
    this.#root = root;
    this.#hooks = hooks;
    this.replace(policy);
  }

  /** From now on; a run under way ends by the policy that it began with. InvalidArgument: it is not a policy. */
  replace(policy: Policy | undefined): void {
    const checked = policy === undefined ? undefined : parsePolicy(policy);
    clearTimeout(this.#timer);
    this.#policy = policy;
    this.#checked = checked;
    this.#next = undefined;
    if (checked !== undefined) this.#plan(checked);
  }

  /** NotFound: the daemon has no policy. */
  get state(): PolicyState {
    return {
      policy: this.policy,
      ...(this.#last && { last: this.#last }),
      ...(this.#next !== undefined && { next: this.#next }),
    };
  }

  /** NotFound, as `state`. */
  get policy(): Policy {
    if (this.#policy !== undefined) return this.#policy;
    throw notFound('the daemon has no policy', {
      object: 'policy',
      remedy: 'name a file with --file, or start the daemon with --policy-file',
    });
  }

  /** No further run; waits for the one under way. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#closing.abort(canceled('the daemon is stopping'));
    await this.#running;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #plan(checked: CheckedPolicy): void {
    if (this.#closing.signal.aborted) return;
    this.#next = formatSeconds(now() + BigInt(checked.everyMs) * 1_000_000n);
    this.#wait(checked, checked.everyMs);
  }

  /** Longer than a timer can, where it must. */
  #wait(checked: CheckedPolicy, ms: number): void {
    const once = timerMs(ms);
    this.#timer = setTimeout(() => {
      if (ms > once) this.#wait(checked, ms - once);
      else {
        this.#running = this.#running
          .then(() => this.#run(checked))
          .then(() => {
            if (this.#checked === checked) this.#plan(checked);
          });
      }
    }, once).unref();
  }

  async #run(checked: CheckedPolicy): Promise<void> {
    const at = formatSeconds(now());
    try {
      this.#last = { at, ...(await this.#apply(checked)) };
    } catch (error) {
      if (isKind(error, 'Canceled')) return;
      this.#last = { at, outcome: 'failed', retired: 0, bytes: 0, met: false, error: String(error) };
      this.#hooks.log.warn({ err: error }, 'the policy could not be applied');
    }
  }

  async #apply({ highWater }: CheckedPolicy): Promise<Omit<PolicyRun, 'at'>> {
    const idle = { retired: 0, bytes: 0, met: true };
    if (highWater !== undefined) {
      const { size, free } = await fileSystemOf(this.#root);
      if (size - free < bytesOf(highWater, size)) return { ...idle, outcome: 'below high water' };
    }
    const { signal } = this.#closing;
    const plan = await this.#db.planPolicy(this.policy, { signal });
    const met = plan.rules.every((rule) => rule.met);
    if (plan.retired.length === 0) return { ...idle, met, outcome: 'nothing to retire' };
    const outcome = await this.#db.applyPlan(plan, { signal }, { massGuard: true });
    this.#hooks.onRun(outcome);
    const planned = new Set(plan.retired.map(({ kind, namespace, key }) => `${kind} ${namespace}/${key}`));
    const gone = outcome.removed
      .map(({ kind, namespace, key }) => `${kind} ${namespace}/${key}`)
      .filter((name) => planned.has(name));
    const bytes = outcome.stats.bytesFreed;
    this.#hooks.log.info(
      { retired: gone.length, names: gone.slice(0, NAMES_LOGGED), bytes, met, left: outcome.rest.length },
      'applied the policy',
    );
    return { outcome: 'applied', retired: gone.length, bytes, met };
  }
}
