/**
 * Named locks within one process: exclusive and shared, in the order they were asked for. Two requests conflict only
 * if their names are equal; `a` and `a/b` have nothing to do with each other. Not re-entrant. Called by the engines
 * and, through them, by users of the raw key space.
 */
import {
  abortError,
  canceled,
  failedPrecondition,
  invalidArgument,
  throwIfAborted,
  unavailable,
} from '../errors.js';
import type { Locks, Unlock } from './contract.js';

interface Request {
  shared: boolean;
  grant: () => void;
  refuse: (error: Error) => void;
}

interface Queue {
  /** Holders now: one exclusive, or any number of shared ones. */
  holders: Set<Request>;
  waiting: Request[];
}

export class NamedLocks implements Locks {
  readonly #queues = new Map<string, Queue>();
  #closed = false;

  lock(name: string, signal?: AbortSignal): Promise<Unlock> {
    return this.#request(name, false, signal);
  }

  rLock(name: string, signal?: AbortSignal): Promise<Unlock> {
    return this.#request(name, true, signal);
  }

  async tryLock(name: string): Promise<Unlock> {
    if (this.#queues.has(name)) {
      throw unavailable(`lock "${name}" is held`, { object: name, remedy: 'try again later' });
    }
    return this.#request(name, false, undefined);
  }

  /** Rejects waiting and later requests; locks that are held stay until they are released. */
  close(): void {
    this.#closed = true;
    for (const queue of this.#queues.values()) {
      for (const request of queue.waiting.splice(0)) request.refuse(canceled('the store was closed'));
    }
  }

  async #request(name: string, shared: boolean, signal: AbortSignal | undefined): Promise<Unlock> {
    if (name === '') throw invalidArgument('a lock needs a name');
    if (this.#closed) throw failedPrecondition('the store is closed', { remedy: 'open it again' });
    throwIfAborted(signal);
    const queue = this.#queues.get(name) ?? { holders: new Set<Request>(), waiting: [] };
    this.#queues.set(name, queue);
    const request: Request = { shared, grant: () => {}, refuse: () => {} };
    if (queue.waiting.length === 0 && mayHold(queue, request)) queue.holders.add(request);
    else await this.#wait(name, queue, request, signal);
    let held = true;
    return async () => {
      if (!held) {
        throw failedPrecondition(`lock "${name}" was unlocked already`, { object: name });
      }
      held = false;
      queue.holders.delete(request);
      this.#advance(name, queue);
    };
  }

  #wait(name: string, queue: Queue, request: Request, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        queue.waiting.splice(queue.waiting.indexOf(request), 1);
        if (signal !== undefined) reject(abortError(signal));
        // Later requests may have waited only for this one.
        this.#advance(name, queue);
      };
      request.grant = () => {
        signal?.removeEventListener('abort', abort);
        resolve();
      };
      request.refuse = (error) => {
        signal?.removeEventListener('abort', abort);
        reject(error);
      };
      queue.waiting.push(request);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** Grants as many requests as may have the lock now, in order. */
  #advance(name: string, queue: Queue): void {
    for (let first = queue.waiting[0]; first !== undefined; first = queue.waiting[0]) {
      if (!mayHold(queue, first)) break;
      queue.waiting.shift();
      queue.holders.add(first);
      first.grant();
    }
    if (queue.holders.size === 0 && queue.waiting.length === 0) this.#queues.delete(name);
  }
}

function mayHold(queue: Queue, request: Request): boolean {
  if (queue.holders.size === 0) return true;
  if (!request.shared) return false;
  for (const holder of queue.holders) return holder.shared;
  return true;
}
