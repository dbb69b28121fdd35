/**
 * What has arrived on a connection and is not taken care of yet, and when it is: at once, or in slices that the run queue
 * gives (run-queue.ts). When a service got something to do (a request, a message of one, its end), it does all that it can
 * do at once before anything else is looked at: so what is costly is the last of its slice, however much comes together.
 * While something waits for a slice nothing more is read from the socket. Called by connection.ts.
 */
import type { Socket } from 'node:net';
import type { Account } from '../connections/ledger.js';
import type { Peer } from '../connections/peer.js';
import { type RunQueue, SLICE_MS, type Task } from './run-queue.js';

export interface InboxHooks {
  /** Takes what is in a chunk from a place on, until `enough`; answers where it stopped. Throws at the end. */
  push(chunk: Buffer, from: number): number;
  /** Goes on with requests: ends one whose time is over, or begins one that waits; false: there is none. */
  resume(): boolean;
  /** Has a request go on that has more to do; false: there is none. */
  goOn(): boolean;
  /** How often services got something to do so far. */
  steps(): number;
  /** What came together has been taken care of. */
  rest(): void;
  failed(error: unknown): void;
}

/** What comes between two looks at the clock: bytes, and what a frame costs however small. */
const COST_MAX = 8192;
const FRAME_COST = COST_MAX / 32;

export class Inbox implements Task {
  readonly uid: number;
  readonly pid: number;
  hadMs = 0;
  creditMs = SLICE_MS;
  readonly #socket: Socket;
  readonly #queue: RunQueue;
  readonly #memory: Account;
  readonly #hooks: InboxHooks;
  readonly #chunks: Buffer[] = [];
  /** Of the first chunk: where it goes on. */
  #at = 0;
  #state: 'idle' | 'working' | 'queued' | 'closed' = 'idle';
  #paused = false;
  #charged = 0;
  #start = 0;
  #unseen = 0;
  #steps = 0;
  /** Whether a request went on in this slice: it does in one turn what a slice is for. */
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

  take(chunk: Buffer): void {
    if (this.#state === 'closed') return;
    const now = performance.now();
    const atOnce = this.#queue.arrives(this, now);
    this.#chunks.push(chunk);
    if (this.#state === 'queued') this.#wait();
    if (this.#state !== 'idle') return;
    this.#start = now;
    if (atOnce) this.#work();
    else this.#park();
  }

  /** Requests that wait may begin or go on. */
  wake(): void {
    if (this.#state === 'idle') this.#park();
  }

  /** For the reader, after each frame. */
  enough(bytes: number): boolean {
    if (this.#state !== 'working' || this.#hooks.steps() !== this.#steps) return true;
    this.#unseen += FRAME_COST + bytes;
    if (this.#unseen < COST_MAX) return false;
    this.#unseen = 0;
    return this.#over();
  }

  /** For the run queue. */
  run(): void {
    if (this.#state !== 'queued') return;
    this.#start = performance.now();
    this.#work();
  }

  /** Nothing more is taken; what can be resumed is, in slices. */
  stopReading(): void {
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

  /** What is called so runs when there is nothing left to do at once. */
  readonly #afterServices = (): void => process.nextTick(this.#goOn);

  readonly #goOn = (): void => {
    if (this.#state !== 'working') return;
    if (this.#wentOn || this.#over()) this.#park();
    else this.#work();
  };

  /** When nothing else is to be done: who asks for little does not wait for his own long requests. */
  #goOnOne(): boolean {
    this.#wentOn = this.#hooks.goOn();
    return this.#wentOn;
  }

  /** False: there is nothing to be read. */
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

  /** Reads no more until the slice comes for what has arrived. */
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
