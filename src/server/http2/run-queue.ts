/**
 * Time of the event loop for connections, in slices of a few milliseconds. What arrives is taken care of at once, unless
 * its connection has had more than its part or others wait already; those queue here, and between two slices the event
 * loop looks after everything else. One queue for a daemon; called by inbox.ts.
 *
 * Fair queueing in three levels: users share evenly, then the processes of a user, then the connections of a process. At
 * each level the one that has had the least is next; one that comes back after a while is ahead of those that go on and on.
 */

/** Who shares, at some level. */
export interface Sharer {
  /** Milliseconds that it has had, counted from where the others were when it came. The queue's to change. */
  hadMs: number;
}

export interface Task extends Sharer {
  readonly uid: number;
  readonly pid: number;
  /** Milliseconds that it may take at once when something arrives; the queue's to change. */
  creditMs: number;
  /** Works for about a slice, and queues again if there is more to do. */
  run(): void;
}

/** About so much is done for one connection before the next. */
export const SLICE_MS = 1;
/** What arrives together is taken care of at once for so long. */
const BURST_MS = 3;
/** What an arrival brings along, so that one that does little is always next. */
const ARRIVAL_MS = SLICE_MS / 4;
const DEBT_MS_MAX = 50;
/** How far a newcomer is ahead of the one that is next. */
const AHEAD_MS = 2 * SLICE_MS;
/** Sharers that are remembered while they have nothing to do. */
const REMEMBERED_MAX = 1000;

/** Those of one level that share and have something to do. */
class Level<Item extends Sharer> {
  readonly #waiting = new Set<Item>();
  #hadMs = 0;

  get size(): number {
    return this.#waiting.size;
  }

  add(item: Item): void {
    if (this.#waiting.has(item)) return;
    item.hadMs = Math.max(item.hadMs, this.#hadMs - AHEAD_MS);
    this.#waiting.add(item);
  }

  delete(item: Item): void {
    this.#waiting.delete(item);
  }

  next(): Item {
    let found: Item | undefined;
    for (const item of this.#waiting) {
      if (found === undefined || item.hadMs < found.hadMs) found = item;
    }
    this.#hadMs = Math.max(this.#hadMs, found!.hadMs);
    return found!;
  }
}

/** A user, or a process of one: all within share what it gets. */
class Group<Item extends Sharer> implements Sharer {
  hadMs = 0;
  readonly items = new Level<Item>();
}

/** Groups by number; those that have nothing to do are forgotten when there are many. */
class Groups<Item extends Group<Sharer>> {
  readonly #known = new Map<number, Item>();

  get(number: number, make: () => Item): Item {
    let group = this.#known.get(number);
    if (group === undefined) {
      if (this.#known.size >= REMEMBERED_MAX) this.#forget();
      group = make();
      this.#known.set(number, group);
    }
    return group;
  }

  #forget(): void {
    for (const [number, { items }] of this.#known) if (items.size === 0) this.#known.delete(number);
  }
}

class Process extends Group<Task> {}
class User extends Group<Process> {
  readonly processes = new Groups<Process>();
}

export class RunQueue {
  readonly #users = new Groups<User>();
  readonly #waiting = new Level<User>();
  /** When the event loop was last given the time to look after everything. */
  #since = 0;
  #scheduled = false;
  /** Those whose slice it is. */
  #serving: readonly Sharer[] = [];

  /** Something has come for a task that is not queued; whether it may be taken care of at once. */
  arrives(task: Task, now: number): boolean {
    task.creditMs = Math.min(SLICE_MS, Math.max(task.creditMs, -DEBT_MS_MAX) + ARRIVAL_MS);
    return task.creditMs > 0 && now - this.#since < BURST_MS;
  }

  /** Queues a task that is not queued yet. */
  add(task: Task): void {
    const user = this.#users.get(task.uid, () => new User());
    const process = user.processes.get(task.pid, () => new Process());
    process.items.add(task);
    user.items.add(process);
    this.#waiting.add(user);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#slice);
  }

  /** Takes note of time that a task had. */
  spent(task: Task, ms: number): void {
    task.creditMs -= ms;
    if (this.#serving[0] === task) for (const sharer of this.#serving) sharer.hadMs += ms;
  }

  readonly #slice = (): void => {
    this.#scheduled = false;
    const user = this.#waiting.next();
    const process = user.items.next();
    const task = process.items.next();
    process.items.delete(task);
    if (process.items.size === 0) user.items.delete(process);
    if (user.items.size === 0) this.#waiting.delete(user);
    // What services do at once goes on after this, until `spent`.
    this.#serving = [task, process, user];
    task.run();
    this.#since = performance.now();
    if (this.#scheduled || this.#waiting.size === 0) return;
    this.#scheduled = true;
    setImmediate(this.#slice);
  };
}
