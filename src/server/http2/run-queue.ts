/**
 * Time of the event loop for connections, in slices of a few milliseconds. What arrives is taken care of at once while
 * there is time for that; beyond it connections queue here, and between two slices the event loop looks after everything
 * else. One queue for a daemon; called by connection.ts.
 *
 * As network schedulers do (FQ-CoDel): who comes now and then with little goes first, who goes on and on shares the rest
 * evenly. Users share the same way among themselves, by the time that they have had.
 */
export interface Task {
  readonly uid: number;
  /** Milliseconds that it may take before it stands behind others; the queue's to change. */
  creditMs: number;
  /** Works for about a slice, and queues again if there is more to do. */
  run(): void;
}

/** About so much is done for one connection before the next. */
export const SLICE_MS = 2;
/** What arrives together is taken care of at once for so long. */
const BURST_MS = 6;
/** What an arrival brings along, so that who does little is forgiven what went before. */
const ARRIVAL_MS = SLICE_MS / 4;
const DEBT_MS_MAX = 50;

interface Lane {
  readonly fresh: Task[];
  readonly rest: Task[];
  /** Milliseconds that the user's connections have had, from where the others were when it came. */
  hadMs: number;
}

export class RunQueue {
  readonly #lanes = new Map<number, Lane>();
  /** When the event loop was last given the time to look after everything. */
  #since = 0;
  #hadMs = 0;
  #scheduled = false;

  /** Something has come for a task that is not queued; whether it may be taken care of at once. */
  arrives(task: Task, now: number): boolean {
    task.creditMs = Math.min(SLICE_MS, Math.max(task.creditMs, -DEBT_MS_MAX) + ARRIVAL_MS);
    return now - this.#since < BURST_MS;
  }

  /** Queues a task that is not queued yet. */
  add(task: Task): void {
    let lane = this.#lanes.get(task.uid);
    if (lane === undefined) {
      lane = { fresh: [], rest: [], hadMs: this.#hadMs };
      this.#lanes.set(task.uid, lane);
    }
    (task.creditMs > 0 ? lane.fresh : lane.rest).push(task);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#slice);
  }

  /** Takes note of time that a task had. */
  spent(task: Task, ms: number): void {
    task.creditMs -= ms;
    const lane = this.#lanes.get(task.uid);
    if (lane !== undefined) lane.hadMs += ms;
  }

  readonly #slice = (): void => {
    this.#scheduled = false;
    const lane = this.#leastServed();
    if (lane === undefined) return;
    const task = lane.fresh.shift() ?? indebted(lane.rest);
    task.run();
    this.#since = performance.now();
    if (this.#scheduled || this.#leastServed() === undefined) return;
    this.#scheduled = true;
    setImmediate(this.#slice);
  };

  #leastServed(): Lane | undefined {
    let found: Lane | undefined;
    for (const [uid, lane] of this.#lanes) {
      if (lane.fresh.length === 0 && lane.rest.length === 0) this.#lanes.delete(uid);
      else if (found === undefined || lane.hadMs < found.hadMs) found = lane;
    }
    this.#hadMs = Math.max(this.#hadMs, found?.hadMs ?? 0);
    return found;
  }
}

/** The next of those that have used up what they had: who used more waits longer. */
function indebted(tasks: Task[]): Task {
  for (;;) {
    const task = tasks.shift()!;
    task.creditMs += SLICE_MS;
    if (task.creditMs > 0) return task;
    tasks.push(task);
  }
}
