/**
 * Bytes that have arrived on a connection and are not processed yet, and when they are: at once, or in slices
 * of the run queue (run-queue.ts). When a service was given something to do (a request, a message of one, its
 * end), the slice ends, and the service does all that it can before anything else is processed. So a costly
 * step is the last of its slice, however much arrives together. While something waits for a slice nothing
 * more is read from the socket. Called by connection.ts.
 */
import type { Socket } from 'node:net';
import type { Account } from '../connections/ledger.js';
import type { Peer } from '../connections/peer.js';
import { type RunQueue, SLICE_MS, type Task } from './run-queue.js';

export interface InboxHooks {
  /** What has arrived waits to be read: ends the connection if the peer has gone meanwhile. */
  unread(): void;
  /**
   * Consumes a chunk from an offset on, until `enough`; returns the offset where it stopped. Throws when the
   * connection has to end.
   */
  push(chunk: Buffer, from: number): number;
  /**
   * Handles waiting requests: ends one whose deadline has passed, or begins one; returns false if there is
   * none.
   */
  resume(): boolean;
  /** Resumes a request that has yielded; returns false if there is none. */
  goOn(): boolean;
  /** How often services were given something to do so far. */
  steps(): number;
  /** Everything that arrived together is processed. */
  rest(): void;
  failed(error: unknown): void;
}

/** Bytes between two reads of the clock, and what a frame counts however small it is. */
const COST_MAX = 8192;
const FRAME_COST = COST_MAX / 32;

export class Inbox implements Task {
  readonly uid: number;
  readonly pid: number;
  hadMs = 0;
  creditMs = SLICE_MS;
  ending = false;
  readonly #socket: Socket;
  readonly #queue: RunQueue;
  readonly #memory: Account;
  readonly #hooks: InboxHooks;
  readonly #chunks: Buffer[] = [];
  /** Offset in the first chunk. */
  #at = 0;
  #state: 'idle' | 'working' | 'queued' | 'closed' = 'idle';
  #paused = false;
  #charged = 0;
  #start = 0;
  #unseen = 0;
  #steps = 0;
  /** Whether a request was resumed in this slice: it does a slice's worth of work at a time. */
  #wentOn = false;

  constructor(socket: Socket, { uid, pid }: Peer, queue: RunQueue, memory: Account, hooks: InboxHooks) {
    this.#socket = socket;
    this.uid = uid;
    this.pid = pid;
    this.#queue = queue;
    this.#memory = memory;
    this.#hooks = hooks;
  }

  get working(): boolean {
    return this.#state === 'working';
  }

  /** REQUIRES: the chunk is valid until this returns. What waits is copied. */
  take(chunk: Buffer): void {
    if (this.#state === 'closed') return;
    const now = performance.now();
    const atOnce = this.#queue.arrives(this, now);
    this.#chunks.push(chunk);
    if (this.#state === 'queued') this.#wait();
    if (this.#state === 'idle') {
      this.#start = now;
      if (atOnce) this.#work();
      else this.#park();
    }
    this.#keep(chunk);
  }

  #keep(chunk: Buffer): void {
    const last = this.#chunks.length - 1;
    if (this.#chunks[last] !== chunk) return;
    this.#chunks[last] = Buffer.from(last === 0 ? chunk.subarray(this.#at) : chunk);
    if (last === 0) this.#at = 0;
  }

  /** Waiting requests may begin or continue. */
  wake(): void {
    if (this.#state === 'idle') this.#park();
  }

  /** Called by the frame reader after each frame. */
  enough(bytes: number): boolean {
    if (this.#state !== 'working' || this.#hooks.steps() !== this.#steps) return true;
    this.#unseen += FRAME_COST + bytes;
    if (this.#unseen < COST_MAX) return false;
    this.#unseen = 0;
    return this.#over();
  }

  /** Called by the run queue. */
  run(): void {
    this.#start = performance.now();
    if (this.#state === 'queued' && this.#chunks.length > 0) this.#hooks.unread();
    if (this.#state === 'queued') this.#work();
  }

  /** Reads nothing more; requests that can be resumed still are, in slices. */
  stopReading(): void {
    this.ending = true;
    this.#chunks.length = 0;
    this.#at = 0;
    this.#charge(0);
    this.wake();
  }

  close(): void {
    this.#state = 'closed';
    this.#chunks.length = 0;
    this.#charge(0);
  }

  #over(): boolean {
    return performance.now() - this.#start >= SLICE_MS;
  }

  #work(): void {
    this.#state = 'working';
    try {
      while (this.#state === 'working') {
        this.#steps = this.#hooks.steps();
        if (!this.#hooks.resume() && !this.#read() && !this.#goOnOne()) {
          this.#finish();
          return;
        }
        if (this.#hooks.steps() !== this.#steps) {
          queueMicrotask(this.#afterServices);
          return;
        }
        if (this.#over()) this.#park();
      }
    } catch (error) {
      this.#hooks.failed(error);
      if (this.#state === 'working') this.#park();
    }
  }

  /** Runs when no other work is left in this turn of the event loop. */
  readonly #afterServices = (): void => process.nextTick(this.#goOn);

  readonly #goOn = (): void => {
    if (this.#state !== 'working') return;
    if (this.#wentOn || this.#over()) this.#park();
    else this.#work();
  };

  /** Last of all, so that a client's small requests do not wait for its own long ones. */
  #goOnOne(): boolean {
    this.#wentOn = this.#hooks.goOn();
    return this.#wentOn;
  }

  /** Returns false if there is nothing to read. */
  #read(): boolean {
    const [chunk] = this.#chunks;
    if (chunk === undefined) return false;
    this.#at = this.#hooks.push(chunk, this.#at);
    if (this.#at === chunk.length) {
      this.#chunks.shift();
      this.#at = 0;
    }
    return true;
  }

  #park(): void {
    this.#spend();
    this.#state = 'queued';
    this.#wentOn = false;
    if (this.#chunks.length > 0) this.#wait();
    else this.#listen();
    this.#hooks.rest();
    if (this.#state === 'queued') this.#queue.add(this);
  }

  /** Stops reading until the slice for what has arrived. */
  #wait(): void {
    this.#charge(this.#chunks.reduce((sum, { length }) => sum + length, 0));
    if (this.#paused) return;
    this.#paused = true;
    this.#socket.pause();
  }

  #listen(): void {
    this.#charge(0);
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }

  #finish(): void {
    this.#spend();
    this.#state = 'idle';
    this.#hooks.rest();
    if (this.#state === 'idle') this.#listen();
  }

  #spend(): void {
    const now = performance.now();
    this.#queue.spent(this, now - this.#start);
    this.#start = now;
  }

  #charge(bytes: number): void {
    if (bytes === this.#charged) return;
    this.#memory.force(bytes - this.#charged);
    this.#charged = bytes;
  }
}
