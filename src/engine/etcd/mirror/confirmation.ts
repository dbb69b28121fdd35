/**
 * Whether a mirror has everything that was committed when a caller asked. Called by engine.ts, before what must be
 * current. Callers that come while etcd is asked share the next question.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { unavailable } from '../../../errors.js';
import { type EtcdClient, prefixEnd } from '../client/client.js';
import { Sys } from '../format/layout.js';
import type { Mirror } from './mirror.js';

export class Confirmation {
  readonly #client: EtcdClient;
  readonly #mirror: Mirror;
  /** Throws when the engine is closed. */
  readonly #checkOpen: () => void;
  #asking: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(client: EtcdClient, mirror: Mirror, checkOpen: () => void) {
    this.#client = client;
    this.#mirror = mirror;
    this.#checkOpen = checkOpen;
  }

  /** As EtcdEngine.confirm. */
  confirm(): Promise<void> {
    this.#checkOpen();
    if (this.#asking === undefined) {
      this.#asking = this.#ask().finally(() => {
        this.#asking = undefined;
      });
      return this.#asking;
    }
    // One that is under way may have asked too early; all that come now share the next one.
    this.#next ??= this.#asking
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.confirm();
      });
    return this.#next;
  }

  async #ask(): Promise<void> {
    const until = performance.now() + this.#client.settings.operationTimeoutMs;
    for (;;) {
      try {
        const { kvs } = await this.#client.range(Sys.commits, {
          end: prefixEnd(Sys.commits),
          keysOnly: true,
          newestFirst: true,
          limit: 1,
        });
        const newest = kvs[0]?.mod ?? 0;
        await this.#mirror.sees(newest);
        const { requestTimeoutMs } = this.#client.settings;
        const late = AbortSignal.timeout(Math.ceil(Math.max(requestTimeoutMs, until - performance.now())));
        await this.#mirror.reach(newest, late);
        return;
      } catch (error) {
        this.#checkOpen();
        if (performance.now() > until || (error as Error).name === 'TimeoutError') {
          throw unavailable('etcd does not respond, so nothing current can be read', {
            cause: error,
            remedy:
              'check that etcd has a leader; or read what this host has seen: --etcd-serializable, option serializable',
          });
        }
        if ((error as { elsewhere?: boolean }).elsewhere !== true) throw error;
        await sleep(100);
      }
    }
  }
}
