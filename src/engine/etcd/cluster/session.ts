/**
 * This host's session: an etcd lease that is kept alive while the process runs, and the host's key bound to it. Called
 * by commit.ts (the key's revision is part of every commit) and locks.ts (lock records are bound to the lease).
 *
 * A host that was paused for longer than the TTL has lost its session: its locks are free for others and its
 * requests that are still on their way are refused, because the key they compare is gone.
 */
import { randomUUID } from 'node:crypto';
import { failedPrecondition } from '../../../errors.js';
import type { Compare, EtcdClient, KeepAliveStream, KeyValue, Op } from '../client/client.js';
import { Sys } from '../format/layout.js';
import { type Member, parseMember } from './members.js';

export interface SessionState {
  readonly lease: string;
  /** Revision of the host's key; commits compare it. */
  readonly fence: number;
}

export interface SessionOptions {
  /** What distinguishes this host from others on its machine; '' when nothing does. */
  readonly place: string;
  /** Begin only when no living host has the name; else `NameTaken`. Otherwise a predecessor's session is taken over. */
  readonly claims: boolean;
}

export class NameTaken extends Error {}

export class Session {
  readonly #client: EtcdClient;
  readonly #warn: (message: string) => void;
  #state: Promise<SessionState> | undefined;
  #changes: Promise<unknown> = Promise.resolve();
  readonly #nonce = randomUUID();
  readonly #place: string;
  readonly #claims: boolean;
  #registered = false;
  /** Whether the cluster knew this host before its first session here: one that was removed begins again. */
  wasKnown = false;
  #memberSince = '';
  #lease = '';
  /** Renewals that have no response yet. */
  #unanswered = 0;
  #stream: KeepAliveStream | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(client: EtcdClient, warn: (message: string) => void, options: SessionOptions) {
    this.#client = client;
    this.#warn = warn;
    this.#place = options.place;
    this.#claims = options.claims;
  }

  /** The session, begun when there is none. */
  current(): Promise<SessionState> {
    return this.#state ?? this.#become(() => this.#begin());
  }

  /** Makes every request of this host that compares an earlier fence fail from here on. */
  refence(): Promise<SessionState> {
    return this.#become(async () => {
      const lease = this.#lease;
      if (lease === '') return this.#begin();
      try {
        return { lease, fence: await this.#register(lease) };
      } catch (error) {
        // The lease may be gone; then a new one is due.
        if ((error as { kind?: string }).kind === 'NotFound') return this.#begin();
        throw error;
      }
    });
  }

  /** One change of the session after the other: two at once would leave one lease known and the other kept alive. */
  #become(change: () => Promise<SessionState>): Promise<SessionState> {
    const state = this.#changes.then(change);
    this.#changes = state.catch(() => undefined);
    this.#state = state;
    state.catch(() => {
      if (this.#state === state) this.#state = undefined;
    });
    return state;
  }

  /** The host's key was not what a commit compared: the session is over, unless it was fenced again meanwhile. */
  expired(fence: number): void {
    void this.#state?.then(
      (state) => {
        if (state.fence === fence) this.#lost(state.lease);
      },
      () => undefined,
    );
  }

  /** etcd does not know the lease any more. */
  leaseGone(lease: string): void {
    this.#lost(lease);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    const lease = this.#lease;
    this.#lease = '';
    this.#dropStream();
    if (lease === '') return;
    const { hostId } = this.#client.settings;
    // Unless the name has been taken, or the host was removed and its session is over.
    const isOurs = { key: Sys.host(hostId), is: 'present' } as const;
    await this.#client.txn([isOurs], [this.#memberPut(new Date().toISOString())]).catch(() => undefined);
    await this.#client.revokeLease(lease).catch(() => undefined);
  }

  async #begin(): Promise<SessionState> {
    const { sessionTtlSeconds: ttl } = this.#client.settings;
    const lease = await this.#client.grantLease(ttl);
    this.#lease = lease;
    const fence = await this.#register(lease);
    clearInterval(this.#timer);
    this.#dropStream();
    if (this.#closed) {
      await this.#client.revokeLease(lease).catch(() => undefined);
    } else {
      this.#timer = setInterval(() => void this.#renew(lease), (ttl * 1000) / 3);
      this.#timer.unref();
    }
    return { lease, fence };
  }

  /** Writes the host's key. A predecessor's is taken over once; a successor's never. */
  async #register(lease: string): Promise<number> {
    const { hostId, backendId } = this.#client.settings;
    if (this.#registered) {
      const { kvs } = await this.#client.range(Sys.host(hostId));
      if (kvs[0] !== undefined) this.checkOwn(kvs[0]);
    }
    const at = new Date().toISOString();
    const value = JSON.stringify({ backend: backendId, process: this.#nonce, since: at });
    if (!this.#registered) {
      const { kvs } = await this.#client.range(Sys.member(hostId));
      const member = kvs[0] && parseMember(kvs[0]);
      this.wasKnown = member !== undefined;
      this.#memberSince = member?.since ?? at;
    }
    const compares: Compare[] =
      this.#claims && !this.#registered ? [{ key: Sys.host(hostId), is: 'absent' }] : [];
    const { succeeded, revision } = await this.#client.txn(compares, [
      { put: Sys.host(hostId), value, lease },
      this.#memberPut(at),
    ]);
    if (!succeeded) throw new NameTaken(hostId);
    this.#registered = true;
    return revision;
  }

  /** Stores when this host was there last. */
  #memberPut(seen: string): Op {
    const { hostId, backendId } = this.#client.settings;
    const member: Member = { backend: backendId, place: this.#place, since: this.#memberSince, seen };
    return { put: Sys.member(hostId), value: JSON.stringify(member) };
  }

  /** FailedPrecondition when the host's key was written by another process: two hosts have one name. */
  checkOwn(kv: KeyValue): void {
    const { process } = JSON.parse(kv.value.toString('utf8')) as { process?: string };
    if (process === this.#nonce) return;
    const { hostId } = this.#client.settings;
    throw failedPrecondition(`another host has taken the name "${hostId}" in etcd`, {
      object: hostId,
      remedy: 'give every host a name of its own: --etcd-host-id, option hostId',
    });
  }

  #dropStream(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    this.#unanswered = 0;
    try {
      stream?.cancel();
    } catch {
      // It was over already.
    }
  }

  async #renew(lease: string): Promise<void> {
    // A stream without a response since the last renewal hangs with its member; another one still has time to respond.
    if (this.#unanswered > 0) {
      this.#client.rotate();
      this.#dropStream();
    }
    try {
      const stream = this.#stream ?? (await this.#openStream(lease));
      this.#unanswered++;
      stream.write({ ID: lease });
    } catch {
      this.#dropStream();
    }
  }

  async #openStream(lease: string): Promise<KeepAliveStream> {
    const stream = await this.#client.keepAlive();
    this.#stream = stream;
    stream.on('data', ({ ID, TTL }) => {
      if (this.#unanswered === 0) return;
      this.#unanswered--;
      if (ID === lease && lease === this.#lease && Number(TTL) <= 0) this.#lost(lease);
    });
    const over = (): void => {
      if (this.#stream !== stream) return;
      this.#stream = undefined;
      if (this.#closed || lease !== this.#lease) return;
      this.#client.rotate();
      // A third of the TTL is long enough to lose the rest of it.
      setTimeout(() => void this.#renew(lease), 200).unref();
    };
    stream.on('error', over);
    stream.on('end', over);
    return stream;
  }

  #lost(lease: string): void {
    if (this.#closed || lease !== this.#lease) return;
    this.#lease = '';
    this.#state = undefined;
    clearInterval(this.#timer);
    this.#dropStream();
    this.#warn('the session with etcd has expired; locks held by this host are lost');
  }
}
