/**
 * A deterministic scheduler: everything that could happen next waits as a step, and a seed decides which goes first.
 * Used by the schedule tests only. Between two steps every promise settles, so one seed always gives one schedule.
 *
 * While `underControl` runs, the globals that let time pass (setImmediate, setTimeout, performance.now, Date.now) belong to
 * the scheduler: a turn of the event loop and the end of a patience are steps like any other.
 */
import { MINUTE } from '../support/host-clock.js';
import type { Random } from '../support/random.js';
import { TrueTime } from './true-time.js';

interface Step {
  readonly name: string;
  readonly go: () => void;
}

interface Timer extends Step {
  readonly due: number;
}

const realImmediate = globalThis.setImmediate;
const promisesSettle = (): Promise<void> => new Promise((resolve) => realImmediate(resolve));

/** Steps a schedule may take before it counts as running in circles. */
const STEPS_MAX = 20_000;
/** What is reported of a schedule that failed. */
const TRACE_STEPS = 60;

export class Scheduler {
  readonly #random: Random;
  /** How likely each kind of step (the name up to the first space) is: some schedules starve a task. */
  readonly #weights = new Map<string, number>();
  readonly #trace: string[] = [];
  /** Clocks of the host. */
  readonly time = new TrueTime();
  #steps: Step[] = [];
  #timers: Timer[] = [];
  #tasks = 0;
  /** Tasks of a process that has died end nowhere. */
  #life = 0;
  #stopped: string | undefined;
  #clockMs = 0;
  readonly #tickMs: number;
  #count = 0;

  constructor(random: Random) {
    this.#random = random;
    this.#tickMs = random.pick([0, 0.02, 3, 3]);
  }

  /** Steps taken. */
  get count(): number {
    return this.#count;
  }

  /** The last steps, for the report of a failure. */
  get trace(): readonly string[] {
    return this.#trace.slice(-TRACE_STEPS);
  }

  /** Why the schedule was ended early. */
  get stopped(): string | undefined {
    return this.#stopped;
  }

  /** Time passes, by every clock. */
  pass(minutes: number): void {
    this.time.clock.pass(BigInt(minutes) * MINUTE);
    this.#clockMs += minutes * 60_000;
  }

  /** Adds a line to the trace. */
  log(text: string): void {
    this.#trace.push(`  ${text}`);
  }

  /** Waits until this is what happens next. */
  step(name: string): Promise<void> {
    return new Promise((go) => this.#steps.push({ name, go }));
  }

  /** Ends the schedule: no task gets another step. */
  stop(reason: string): void {
    this.#stopped ??= reason;
  }

  spawn(name: string, task: () => Promise<void>): void {
    this.#tasks++;
    const life = this.#life;
    this.step(`${name} starts`)
      .then(task)
      .catch((error: unknown) => this.stop(`${name} failed: ${textOf(error)}`))
      .finally(() => {
        if (life === this.#life) this.#tasks--;
      });
  }

  /** The process dies: nothing that was to happen does. */
  abandon(): void {
    this.#life++;
    this.#tasks = 0;
    this.#steps = [];
    this.#timers = [];
  }

  /**
   * Takes up to `most` steps, until every task has ended, or one fails, or the schedule is stopped. Resolves
   * with whether every task has ended.
   */
  async run(most = Number.POSITIVE_INFINITY): Promise<boolean> {
    await promisesSettle();
    for (let taken = 0; this.#tasks > 0 && this.#stopped === undefined; taken++) {
      if (taken >= most) return false;
      const step = this.#next();
      if (step === undefined) {
        this.stop('every task waits for another');
        return false;
      }
      this.#trace.push(step.name);
      if (++this.#count > STEPS_MAX) this.stop('the schedule runs in circles');
      step.go();
      await promisesSettle();
    }
    return this.#stopped === undefined;
  }

  #next(): Step | undefined {
    // Patience seldom ends while others can go on.
    if (this.#timers.length > 0 && (this.#steps.length === 0 || this.#random.chance(0.01))) {
      const timer = this.#timers.reduce((a, b) => (b.due < a.due ? b : a));
      this.#timers.splice(this.#timers.indexOf(timer), 1);
      this.#clockMs = Math.max(this.#clockMs, timer.due);
      return timer;
    }
    const weights = this.#steps.map(({ name }) => this.#weightOf(name));
    let at = this.#random.next() * weights.reduce((a, b) => a + b, 0);
    const index = weights.findIndex((weight) => {
      at -= weight;
      return at < 0;
    });
    return this.#steps.splice(index, 1)[0];
  }

  #weightOf(name: string): number {
    const kind = name.slice(0, name.indexOf(' '));
    let weight = this.#weights.get(kind);
    if (weight === undefined) {
      weight = this.#random.pick([1, 4, 4, 16]);
      this.#weights.set(kind, weight);
    }
    return weight;
  }

  /** Runs `fn` with the globals of time in this scheduler's hands. */
  async underControl<T>(fn: () => Promise<T>): Promise<T> {
    const { setImmediate, setTimeout, clearTimeout } = globalThis;
    Object.assign(globalThis, {
      setImmediate: (go: () => void) => void this.#steps.push({ name: 'turn of the event loop', go }),
      setTimeout: (fn: (...args: unknown[]) => void, ms: number, ...args: unknown[]) =>
        this.#setTimeout(() => fn(...args), ms),
      clearTimeout: (timer: unknown) => {
        this.#timers = this.#timers.filter((t) => t !== timer);
      },
    });
    const { now } = Date;
    Date.now = () => Number(this.time.clock.wall() / 1_000_000n);
    performance.now = () => {
      this.#clockMs += this.#tickMs;
      return this.#clockMs;
    };
    try {
      return await fn();
    } finally {
      Object.assign(globalThis, { setImmediate, setTimeout, clearTimeout });
      Date.now = now;
      Reflect.deleteProperty(performance, 'now');
    }
  }

  #setTimeout(go: () => void, ms: number): Timer {
    const timer = { name: `timer of ${ms} ms`, go, due: this.#clockMs + ms };
    this.#timers.push(timer);
    return timer;
  }
}

const textOf = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error);
