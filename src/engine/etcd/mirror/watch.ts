/**
 * One watch over the whole tree, for as long as the engine is open: passes on every revision in order, each once and
 * whole, over lost connections and changes of members. Called by mirror.ts.
 *
 * A revision that was compacted before it was passed on ends the watch with `compacted`, and an etcd that was set back with
 * `replaced`; the mirror then loads everything.
 */
import type { IWatchResponse } from 'etcd3';
import type { EtcdClient, KeyValue, WatchStream } from '../client/client.js';
import { EtcdFailure } from '../client/failure.js';
import { Sys } from '../format/layout.js';
import type { History } from './witness.js';

export interface WatchEvent {
  readonly deleted: boolean;
  readonly kv: KeyValue;
}

export interface WatchListener {
  /** Events of the revision, in the order of their keys' operations. */
  revision(revision: number, events: readonly WatchEvent[]): void;
  /** Everything up to here was passed on. */
  progress(revision: number): void;
  compacted(): void;
  /** Whether etcd still has the history that was passed on: asked whenever a stream begins. */
  history(): Promise<History>;
  /** It has another one. */
  replaced(): void;
  warn(message: string): void;
}

const BACKOFF_MIN_MS = 50;
const BACKOFF_MAX_MS = 2_000;
/** A stream that does not say that the watch has begun is given up after so long. */
const CREATE_MS = 3_000;

export class Watch {
  readonly #client: EtcdClient;
  readonly #listener: WatchListener;
  /** Last revision that was passed on. */
  #delivered: number;
  #stream: WatchStream | undefined;
  #fragments: WatchEvent[] = [];
  #backoffMs = BACKOFF_MIN_MS;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;
  /** performance.now() when the watch began or sent something last; undefined until it has begun. */
  #heard: number | undefined;

  constructor(client: EtcdClient, after: number, listener: WatchListener) {
    this.#client = client;
    this.#delivered = after;
    this.#listener = listener;
    void this.#open();
  }

  /**
   * Gives the stream up if it has said nothing for `ms`, as one does whose member hangs, and asks another member. One that
   * has not begun is left alone: its beginning has limits of its own, and on a slow link takes longer than `ms`.
   */
  restartIfSilent(ms: number): void {
    if (this.#heard === undefined || performance.now() - this.#heard < ms) return;
    this.#client.rotate();
    this.#drop();
    this.#later();
  }

  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#drop();
  }

  #drop(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    this.#fragments = [];
    this.#heard = undefined;
    try {
      stream?.cancel();
    } catch {
      // It was over already.
    }
  }

  async #open(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    let stream: WatchStream;
    try {
      const history = await this.#listener.history();
      if (history !== 'same') {
        if (!this.#ended) {
          this.#ended = true;
          if (history === 'other') this.#listener.replaced();
          else this.#listener.compacted();
        }
        return;
      }
      // From exactly the compacted revision on, etcd 3.4 begins a watch and leaves deletions out.
      await this.#client.range(Sys.head, { revision: this.#delivered, keysOnly: true });
      stream = await this.#client.watchStream();
    } catch (error) {
      if (error instanceof EtcdFailure && error.lacksRevision && !this.#ended) {
        this.#ended = true;
        this.#listener.compacted();
      } else this.#later();
      return;
    }
    if (this.#ended) {
      stream.cancel();
      return;
    }
    this.#stream = stream;
    const isCurrent = (): boolean => this.#stream === stream && !this.#ended;
    stream.on('data', (response) => {
      if (isCurrent()) this.#receive(response);
    });
    const lost = (): void => {
      if (!isCurrent()) return;
      this.#client.rotate();
      this.#drop();
      this.#later();
    };
    stream.on('error', lost);
    stream.on('end', lost);
    stream.write(this.#client.watchRequest(this.#delivered + 1));
    setTimeout(() => {
      if (isCurrent() && this.#heard === undefined) lost();
    }, CREATE_MS).unref();
  }

  #later(): void {
    if (this.#ended || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => void this.#open(), this.#backoffMs);
    this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MAX_MS);
  }

  #receive(response: IWatchResponse): void {
    this.#heard = performance.now();
    if (response.canceled) {
      const compacted = Number(response.compact_revision) > 0;
      this.#drop();
      if (compacted) {
        this.#ended = true;
        this.#listener.compacted();
      } else {
        this.#listener.warn(`etcd ended the watch: ${response.cancel_reason}`);
        this.#later();
      }
      return;
    }
    if (response.created) return;
    this.#backoffMs = BACKOFF_MIN_MS;
    for (const { type, kv } of response.events) {
      const deleted = type === 'Delete';
      this.#fragments.push({ deleted, kv: this.#client.keyValue(kv) });
    }
    if (response.fragment) return;
    const events = this.#fragments;
    this.#fragments = [];
    if (events.length === 0) {
      const revision = Number(response.header.revision);
      if (revision > this.#delivered) {
        this.#delivered = revision;
        this.#listener.progress(revision);
      }
      return;
    }
    let start = 0;
    for (const [i, { kv }] of events.entries()) {
      const revision = kv.mod;
      if (events[i + 1]?.kv.mod === revision) continue;
      if (revision > this.#delivered) {
        this.#delivered = revision;
        this.#listener.revision(revision, events.slice(start, i + 1));
      }
      start = i + 1;
    }
  }
}
