/**
 * Named locks across hosts: exclusive and shared, in the order etcd got the requests. Called by users of the raw key
 * space and by the election of the collecting host.
 *
 * A request is a record bound to the session's lease; it holds when no older record stands in its way. The end of a
 * session ends its locks, and their owner may not know yet: what must not happen without the lock compares the
 * record's creation revision (`fenceOf`) in its commit.
 */
import {
  abortError,
  canceled,
  type EbbtideError,
  failedPrecondition,
  invalidArgument,
  throwIfAborted,
  unavailable,
} from '../../../errors.js';
import type { Locks, Unlock } from '../../contract.js';
import type { EtcdClient, KeyValue } from '../client/client.js';
import { prefixEnd } from '../client/client.js';
import { EtcdFailure } from '../client/failure.js';
import { lockPrefix } from '../format/layout.js';
import type { Session } from './session.js';

/** A record that a commit needs as it was: a lock's, or by 0 none at all. */
export interface Fence {
  readonly key: string;
  /** Its creation revision. */
  readonly create: number;
  /** The error when it is not so; a lost lock's unless given. */
  readonly lost?: () => EbbtideError;
}

const fences = new WeakMap<Unlock, Fence>();

/** The fence of a lock taken over etcd; undefined for locks of other engines. */
export const fenceOf = (unlock: Unlock): Fence | undefined => fences.get(unlock);

/** The watch shows changes; one that was missed costs this long. */
const POLL_MS = 1_000;

export class EtcdLocks implements Locks {
  readonly #client: EtcdClient;
  readonly #session: Session;
  /** Requests reach etcd in the order they were made here. */
  #requests: Promise<unknown> = Promise.resolve();
  readonly #waiters = new Set<{ prefix: string; wake: () => void }>();
  readonly #nonce = `${process.pid.toString(36)}${Date.now().toString(36)}`;
  #sequence = 0;
  #closed = false;

  constructor(client: EtcdClient, session: Session) {
    this.#client = client;
    this.#session = session;
  }

  lock(name: string, signal?: AbortSignal): Promise<Unlock> {
    return this.#queued(name, 'w', signal);
  }

  rLock(name: string, signal?: AbortSignal): Promise<Unlock> {
    return this.#queued(name, 'r', signal);
  }

  async tryLock(name: string): Promise<Unlock> {
    this.#check(name);
    const dir = lockPrefix(name);
    for (let attempt = 1; ; attempt++) {
      const { lease } = await this.#session.current();
      try {
        return await this.#tryOnce(name, dir, lease);
      } catch (error) {
        if (!(error instanceof EtcdFailure) || error.kind !== 'NotFound' || attempt === 3) throw error;
        this.#session.leaseGone(lease);
      }
    }
  }

  async #tryOnce(name: string, dir: string, lease: string): Promise<Unlock> {
    const key = this.#newKey(dir, 'w');
    try {
      const result = await this.#inOrder(() =>
        this.#client.txn(
          [{ key: dir, end: prefixEnd(dir), is: 'absent' }],
          [{ put: key, value: this.#owner(), lease }],
        ),
      );
      if (!result.succeeded) {
        throw unavailable(`lock "${name}" is held`, { object: name, remedy: 'try again later' });
      }
      return this.#unlock(name, lease, { key, create: result.revision });
    } catch (error) {
      if (error instanceof EtcdFailure && error.ambiguous) void this.#remove(key).catch(() => undefined);
      throw error;
    }
  }

  /** A lock's record came or went. */
  changed(key: string): void {
    for (const waiter of [...this.#waiters]) if (key.startsWith(waiter.prefix)) waiter.wake();
  }

  /** Rejects waiting and later requests. */
  close(): void {
    this.#closed = true;
    for (const { wake } of [...this.#waiters]) wake();
  }

  async #queued(name: string, mode: 'w' | 'r', signal: AbortSignal | undefined): Promise<Unlock> {
    this.#check(name);
    throwIfAborted(signal);
    const dir = lockPrefix(name);
    const key = this.#newKey(dir, mode);
    const { lease, create } = await this.#inOrder(() => this.#request(key));
    try {
      await this.#wait(dir, key, create, mode, signal);
    } catch (error) {
      await this.#remove(key).catch(() => undefined);
      throw error;
    }
    return this.#unlock(name, lease, { key, create });
  }

  async #request(key: string): Promise<{ lease: string; create: number }> {
    for (let attempt = 1; ; attempt++) {
      const { lease } = await this.#session.current();
      try {
        const { revision } = await this.#client.txn([], [{ put: key, value: this.#owner(), lease }]);
        return { lease, create: revision };
      } catch (error) {
        const failure = error instanceof EtcdFailure ? error : undefined;
        if (failure?.ambiguous) {
          const { kvs } = await this.#client.range(key);
          if (kvs[0] !== undefined) return { lease, create: kvs[0].create };
        } else if (failure?.kind !== 'NotFound') throw error;
        if (attempt === 3) throw error;
        if (failure.kind === 'NotFound') this.#session.leaseGone(lease);
        else await this.#session.refence();
      }
    }
  }

  async #wait(
    dir: string,
    key: string,
    create: number,
    mode: 'w' | 'r',
    signal: AbortSignal | undefined,
  ): Promise<void> {
    for (;;) {
      if (this.#closed) throw canceled('the store was closed');
      if (signal?.aborted) throw abortError(signal);
      // Begun before the look, so that no change is missed.
      const change = this.#change(dir, signal);
      try {
        const { kvs } = await this.#client.range(dir, { end: prefixEnd(dir) });
        if (!kvs.some((kv) => kv.key === key && kv.create === create)) {
          throw failedPrecondition('session expired while waiting for a lock', {
            remedy: 'ask for it again',
          });
        }
        if (!kvs.some((kv) => kv.create < create && isInTheWay(kv, dir, mode))) return;
        await change.happened;
      } finally {
        change.end();
      }
    }
  }

  #change(prefix: string, signal: AbortSignal | undefined): { happened: Promise<void>; end: () => void } {
    let end!: () => void;
    const happened = new Promise<void>((resolve) => {
      const waiter = { prefix, wake: () => end() };
      const timer = setTimeout(() => end(), POLL_MS);
      const stop = (): void => end();
      end = () => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
        signal?.removeEventListener('abort', stop);
        resolve();
      };
      this.#waiters.add(waiter);
      signal?.addEventListener('abort', stop, { once: true });
    });
    return { happened, end };
  }

  #unlock(name: string, lease: string, fence: Fence): Unlock {
    let held = true;
    const unlock: Unlock = async () => {
      if (!held) throw failedPrecondition(`lock "${name}" was unlocked already`, { object: name });
      held = false;
      if (this.#closed) return; // The session ended with the store, and its records with it.
      const result = await this.#client.txn(
        [{ key: fence.key, is: 'created at', revision: fence.create }],
        [{ del: fence.key }],
      );
      if (result.succeeded) return;
      throw failedPrecondition(`session expired: lock "${name}" was lost before it was unlocked`, {
        object: name,
        remedy: `keep the host's pauses below the session's time to live (lease ${lease})`,
      });
    };
    fences.set(unlock, fence);
    return unlock;
  }

  async #remove(key: string): Promise<void> {
    if (!this.#closed) await this.#client.txn([], [{ del: key }]);
  }

  #inOrder<T>(request: () => Promise<T>): Promise<T> {
    const turn = this.#requests.then(request);
    this.#requests = turn.catch(() => undefined);
    return turn;
  }

  #check(name: string): void {
    if (name === '') throw invalidArgument('a lock needs a name');
    if (this.#closed) throw failedPrecondition('the store is closed', { remedy: 'open it again' });
  }

  #newKey(dir: string, mode: 'w' | 'r'): string {
    return `${dir}${mode}-${this.#client.settings.hostId}-${this.#nonce}-${++this.#sequence}`;
  }

  #owner(): string {
    return this.#client.settings.hostId;
  }
}

function isInTheWay(kv: KeyValue, dir: string, mode: 'w' | 'r'): boolean {
  return mode === 'w' || kv.key.startsWith(`${dir}w-`);
}
