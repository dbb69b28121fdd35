/**
 * Divides the event loop among connections, in slices of a few milliseconds. What arrives is processed at
 * once, unless its connection has had more than its share or others wait already; those queue here, and
 * between two slices the event loop does everything else. One queue for a daemon; called by inbox.ts.
 *
 * Fair queueing in three levels: users share evenly, then the processes of a user, then the connections of a
 * process. At each level the one that has had the least is next; one that returns after a pause goes before
 * those that run continuously. Of a process's connections those that have ended go first: they give back what
 * the others would take in addition.
 */

import { present } from '../../errors.js';

/** A participant at some level. */
export interface Sharer {
  /** Milliseconds it has had, relative to the others when it arrived. Written by the queue. */
  hadMs: number;
  /** A connection that has ended: all it does is end its calls. */
  readonly ending?: boolean;
}

export interface Task extends Sharer {
  readonly uid: number;
  readonly pid: number;
  /** Milliseconds it may take without queueing when something arrives. Written by the queue. */
  creditMs: number;
  /** Works for about one slice, and queues again if there is more to do. */
  run(): void;
}

/** Work for one connection before the next one runs. */
export const SLICE_MS = 1;
/** Work on what arrives together before it has to queue. */
const BURST_MS = 3;
/** Credit for each arrival, so that one that does little never queues. */
const ARRIVAL_MS = SLICE_MS / 4;
const DEBT_MS_MAX = 50;
/** How far a new entry goes ahead of the next one. */
const AHEAD_MS = 2 * SLICE_MS;
/** Idle participants that are remembered. */
const REMEMBERED_MAX = 1000;

/** The participants of one level that have something to do. */
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
      if (found === undefined || isBefore(item, found)) found = item;
    }
    const next = present(found, 'a participant that waits');
    this.#hadMs = Math.max(this.#hadMs, next.hadMs);
    return next;
  }
}

const isBefore = (a: Sharer, b: Sharer): boolean =>
  a.ending === b.ending ? a.hadMs < b.hadMs : a.ending === true;

/** A user, or a process of a user; its members share its time. */
class Group<Item extends Sharer> implements Sharer {
  hadMs = 0;
  readonly items = new Level<Item>();
}

/** Groups by number; idle ones are dropped when there are many. */
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
  /** When the event loop last had time for everything else. */
  #since = 0;
  #scheduled = false;
  /** The participants whose slice it is. */
  #serving: readonly Sharer[] = [];

  /** Called when data arrives for a task that is not queued; returns whether it may be processed at once. */
  arrives(task: Task, now: number): boolean {
    task.creditMs = Math.min(SLICE_MS, Math.max(task.creditMs, -DEBT_MS_MAX) + ARRIVAL_MS);
    return task.creditMs > 0 && now - this.#since < BURST_MS;
  }

  /** REQUIRES: the task is not queued. */
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

  /** Accounts for the time that a task took. */
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
    // What services do directly after this is charged too, until `spent`.
    this.#serving = [task, process, user];
    task.run();
    this.#since = performance.now();
    if (this.#scheduled || this.#waiting.size === 0) return;
    this.#scheduled = true;
    setImmediate(this.#slice);
  };
}
