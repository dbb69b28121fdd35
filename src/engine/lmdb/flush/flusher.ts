/**
 * Decides when batches of the write-ahead log are flushed to the tree, and has a thread do it (flush-worker.ts). Called by the
 * storage and the checkpointer, on the thread that owns the store. A store that is closed with little to flush needs no thread.
 *
 * Commits are durable before, so only checkpoints, closing, and writers when far too much is outstanding wait for a flush.
 * Many changes in one transaction touch fewer pages each; a short wait brings them together. A failure (a full disk) loses
 * nothing: the same batches are tried again.
 */
import type { Worker } from 'node:worker_threads';
import { unavailable } from '../../../errors.js';
import { lmdbSays } from '../../../system/lmdb/lmdb.js';
import { startThread } from '../../../system/threads.js';
import type { DataFile } from '../disk/files.js';
import { writeError, writeRemedy } from '../disk/write-error.js';
import type { Databases } from '../tree/databases.js';
import { type Flushed, flushBatches, type Job, runJobs } from './flush.js';

/**
 * So many changes are worth a transaction at once; fewer wait for more. While a collection is under way, and between
 * two transactions, much more may wait: writing the tree takes the disk from writes of the log.
 */
const CHANGES_WANTED = 2 * 1024;
const WAIT_MS = 1000;
/** Changes of one transaction: as many as take so long, since writes of the log wait for the disk meanwhile. */
const CHANGES_MAX = 2 * 1024;
const CHANGES_MIN = 128;
/** Up to so much is flushed by the calling thread when the store is closed: to start a thread would take longer. */
const CHANGES_HERE_MAX = 512;
const BYTES_HERE_MAX = 1024 * 1024;
const TRANSACTION_MS = 25;
/** Bytes outstanding from which on the tree is written also during a collection. */
const OUTSTANDING_BYTES_WANTED = 24 * 1024 * 1024;
/** Background work waits while more than this is outstanding; */
const BACKGROUND_BYTES_MAX = 28 * 1024 * 1024;
/** from here on the tree is written without pauses; */
const PAUSED_BYTES_MAX = 32 * 1024 * 1024;
/** and here all commits wait. */
const OUTSTANDING_BYTES_MAX = 36 * 1024 * 1024;
/** Milliseconds for which a foreground commit counts. */
const SHARED_MS = 200;
const RETRY_MS = 500;
/** Milliseconds after a background commit, or a question, for which a collection is taken to be under way. */
const COLLECTING_MS = 2000;
/** A transaction is followed by a pause so many times as long (half as long when much is outstanding), up to this. */
const PAUSE_FACTOR = 2;
const PAUSE_MS_MAX = 400;

/** Places of the flags shared with the worker. */
export const Flag = { busy: 0, ending: 1 } as const;

export interface WorkerData {
  path: string;
  shared: SharedArrayBuffer;
  /** Of the data file. */
  written: SharedArrayBuffer;
}
export type Request =
  | { kind: 'flush'; batches: Uint8Array[] }
  | { kind: 'jobs'; jobs: readonly Job[] }
  | { kind: 'ids'; prefixes: readonly string[]; leaves: readonly string[] };
export type Response = Flushed | { ids: Uint32Array } | Failure;
export interface Failure {
  error: string;
  remedy?: string | undefined;
}

interface QueuedBatch {
  batch: Buffer;
  changes: number;
  /** The next batch belongs to another transaction. */
  sealed: boolean;
}
interface QueuedJobs {
  jobs: readonly Job[];
  resolve: () => void;
  reject: (error: Error) => void;
}

interface Waiter {
  /** Bytes that the tree must have. */
  until: number;
  isUrgent: boolean;
  resolve: () => void;
  reject: (error: Error) => void;
}

export interface FlusherHost {
  /** Called when the tree has everything up to a revision, before callers that wait are resumed. */
  flushed(result: Flushed): void;
  warn(message: string): void;
}

export class Flusher {
  readonly #dbs: Databases;
  readonly #file: DataFile;
  readonly #path: string;
  readonly #host: FlusherHost;
  #queue: QueuedBatch[] = [];
  #jobs: QueuedJobs[] = [];
  #changes = 0;
  #worker: Thread | undefined;
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** A caller waits: do not wait for more. */
  #isUrgent = false;
  #collectingUntil = 0;
  #sharedUntil = 0;
  #pauseMs = 0;
  #pauseUntil = 0;
  #changesMax = CHANGES_MAX;
  #failure: Failure | undefined;
  #isFinishing = false;
  #isStopped = false;
  /** Bytes ever pushed, and those of them that the tree has. */
  #pushed = 0;
  #done = 0;
  #waiters: Waiter[] = [];

  constructor(dbs: Databases, file: DataFile, path: string, host: FlusherHost) {
    this.#dbs = dbs;
    this.#file = file;
    this.#path = path;
    this.#host = host;
  }

  /**
   * A batch that the log has. Its buffer belongs to the flusher from now on. `from`: whether it has commits of work that
   * can wait, and of others.
   */
  push(batch: Buffer, changes: number, from: { background: boolean; others: boolean }): void {
    this.#queue.push({ batch, changes, sealed: false });
    this.#changes += changes;
    this.#pushed += batch.length;
    const now = performance.now();
    if (from.background) this.#collectingUntil = now + COLLECTING_MS;
    if (from.others) this.#sharedUntil = now + SHARED_MS;
    if (this.#restMs === 0) this.#begin();
    else this.#lookIn(WAIT_MS);
  }

  get #outstanding(): number {
    return this.#pushed - this.#done;
  }

  /** Milliseconds for which nothing has to be written, unless more comes; infinite: until then. */
  get #restMs(): number {
    if (this.#isUrgent || this.#jobs.length > 0 || this.#outstanding > PAUSED_BYTES_MAX) return 0;
    const now = performance.now();
    const pauseMs = Math.max(0, this.#pauseUntil - now);
    if (this.#outstanding > OUTSTANDING_BYTES_WANTED) {
      return now < this.#sharedUntil ? Math.max(0, pauseMs - this.#pauseMs / 2) : 0;
    }
    if (this.#changes < CHANGES_WANTED) return Number.POSITIVE_INFINITY;
    return Math.max(pauseMs, this.#collectingUntil - now);
  }

  /** Ends the transaction here, so that its journal entry ends at the newest revision. */
  seal(): void {
    const last = this.#queue[this.#queue.length - 1];
    if (last !== undefined) last.sealed = true;
  }

  /** Other writes, which must not depend on what is queued; resolves when they are on disk. */
  async run(jobs: readonly Job[]): Promise<void> {
    if (this.#isStopped) {
      this.#runHere(jobs);
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#jobs.push({ jobs, resolve, reject });
      this.#begin();
    });
  }

  /**
   * Asks the thread for `possibleIds` of the tree, at some moment from now on; undefined when it cannot. For callers
   * has many to ask about: the thread is idle most of the time.
   */
  async lookUp(prefixes: readonly string[], leaves: readonly string[]): Promise<Uint32Array | undefined> {
    if (this.#isStopped) return undefined;
    // Only collections ask: a transaction would keep the next questions waiting.
    this.#collectingUntil = performance.now() + COLLECTING_MS;
    const response = await this.#ask({ kind: 'ids', prefixes, leaves });
    return 'ids' in response ? response.ids : undefined;
  }

  /** Resolves when the tree has everything pushed so far; rejects when it cannot be written now. */
  drain(): Promise<void> {
    return this.#wait(this.#pushed);
  }

  /** The same, before `stop`: nothing more is pushed. */
  finish(): Promise<void> {
    this.#isFinishing = true;
    return this.drain();
  }

  /** Resolves when little enough is outstanding that more may come. */
  room(): Promise<void> {
    return this.#wait(this.#pushed - OUTSTANDING_BYTES_MAX);
  }

  /** The same for background work, earlier, so that foreground commits need not wait. */
  async backgroundRoom(): Promise<void> {
    // Foreground commits fail with the error.
    await this.#wait(this.#pushed - BACKGROUND_BYTES_MAX, false).catch(() => undefined);
  }

  /** Ends the thread; batches that are queued stay in the log. Jobs are done by the calling thread from then on. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const { reject } of this.#jobs.splice(0))
      reject(this.#error({ error: 'the store is being closed' }));
    this.#queue = [];
    await this.#running;
    clearTimeout(this.#timer);
    await this.#worker?.stop();
    this.#worker = undefined;
  }

  #runHere(jobs: readonly Job[]): void {
    try {
      runJobs(this.#dbs, this.#file, jobs);
    } catch (error) {
      throw writeError(this.#path, error);
    }
  }

  #flushHere(batches: readonly Buffer[]): Response {
    try {
      return flushBatches(this.#dbs, this.#file, batches);
    } catch (error) {
      const { message, remedy } = writeError(this.#path, error);
      return { error: message + lmdbSays(), remedy };
    }
  }

  #wait(until: number, isUrgent = true): Promise<void> {
    if (this.#done >= until) return Promise.resolve();
    const waiting = new Promise<void>((resolve, reject) => {
      this.#waiters.push({ until, isUrgent, resolve, reject });
    });
    if (isUrgent) this.#isUrgent = true;
    if (this.#restMs === 0) this.#begin();
    else {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#lookIn(this.#restMs);
    }
    return waiting;
  }

  #begin(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      this.#resolveWaiters();
      this.#isUrgent = this.#waiters.some(({ isUrgent }) => isUrgent);
      if (this.#queue.length + this.#jobs.length === 0) return;
      if ((this.#isUrgent && this.#failure === undefined) || this.#jobs.length > 0) this.#begin();
      else if (this.#failure !== undefined) this.#lookIn(RETRY_MS);
      else this.#lookIn(Math.min(this.#restMs, WAIT_MS));
    });
  }

  async #run(): Promise<void> {
    for (;;) {
      const job = this.#jobs.shift();
      if (job !== undefined) {
        await this.#job(job);
        continue;
      }
      if (this.#queue.length === 0) return;
      const start = performance.now();
      if (!(await this.#flushSome())) return;
      const end = performance.now();
      this.#pauseMs = Math.min(PAUSE_FACTOR * (end - start), PAUSE_MS_MAX);
      this.#pauseUntil = end + this.#pauseMs;
      this.#resolveWaiters();
      if (this.#restMs > 0) return;
    }
  }

  /** What waits long enough is written, but not while a collection is under way or a pause lasts. */
  #lookIn(ms: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      // Few changes have waited for more long enough.
      const restMs = Math.min(
        this.#restMs,
        Math.max(this.#pauseUntil, this.#collectingUntil) - performance.now(),
      );
      if (restMs > 0) this.#lookIn(restMs);
      else this.#begin();
    }, ms).unref();
  }

  async #job({ jobs, resolve, reject }: QueuedJobs): Promise<void> {
    const response = await this.#ask({ kind: 'jobs', jobs });
    if ('error' in response) reject(this.#error(response));
    else resolve();
  }

  async #flushSome(): Promise<boolean> {
    const group: QueuedBatch[] = [];
    let changes = 0;
    for (const item of this.#queue) {
      if (changes > 0 && changes + item.changes > this.#changesMax) break;
      group.push(item);
      changes += item.changes;
      if (item.sealed) break;
    }
    const start = performance.now();
    const batches = group.map(({ batch }) => batch);
    const response = this.#isLittle ? this.#flushHere(batches) : await this.#ask({ kind: 'flush', batches });
    this.#fit(changes, performance.now() - start);
    if ('error' in response) {
      if (this.#failure === undefined) {
        this.#host.warn(`commits wait in the log, because the tree cannot be written: ${response.error}`);
      }
      this.#failure = response;
      // The reserve of a full disk has room for small transactions.
      this.#changesMax = CHANGES_MIN;
      return false;
    }
    if ('ids' in response) throw new Error('the thread that writes the tree responded to another request');
    this.#failure = undefined;
    if (!this.#isStopped) this.#queue.splice(0, group.length);
    this.#changes -= changes;
    for (const { batch } of group) this.#done += batch.length;
    this.#host.flushed(response);
    return true;
  }

  /** Whether the calling thread flushes what is left. */
  get #isLittle(): boolean {
    if (!this.#isFinishing || this.#worker !== undefined) return false;
    return this.#changes <= CHANGES_HERE_MAX && this.#outstanding <= BYTES_HERE_MAX;
  }

  /** So many changes took so long: the next transaction takes more or fewer. */
  #fit(changes: number, ms: number): void {
    const fitting = (changes * TRANSACTION_MS) / Math.max(ms, 1);
    // Half way there: one slow flush must not count for long. A small transaction says nothing of larger ones.
    if (fitting > this.#changesMax && changes < this.#changesMax / 2) return;
    const next = Math.round((this.#changesMax + fitting) / 2);
    this.#changesMax = Math.min(CHANGES_MAX, Math.max(CHANGES_MIN, next));
  }

  async #ask(request: Request): Promise<Response> {
    // One that could not start (no descriptor, no memory) may start now.
    if (this.#worker?.isGone) this.#worker = undefined;
    try {
      this.#worker ??= new Thread(this.#path, this.#file.written);
      if (request.kind !== 'ids') this.#dbs.readers?.look();
    } catch (error) {
      const { message, remedy } = writeError(this.#path, error);
      return { error: message, remedy };
    }
    return this.#worker.ask(request);
  }

  #resolveWaiters(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      if (this.#done >= waiter.until) waiter.resolve();
      else if (this.#failure !== undefined) waiter.reject(this.#error(this.#failure));
      else this.#waiters.push(waiter);
    }
  }

  #error({ error, remedy = writeRemedy() }: Failure): Error {
    return unavailable(error, { object: this.#path, remedy });
  }
}

/** The worker thread: one request after the other. */
class Thread {
  readonly #worker: Worker;
  readonly #flags: Int32Array;
  /** In the order of the requests. */
  readonly #waiting: ((response: Response) => void)[] = [];
  #gone: string | undefined;
  readonly #ended: Promise<void>;

  constructor(path: string, written: SharedArrayBuffer) {
    const shared = new SharedArrayBuffer(8);
    this.#flags = new Int32Array(shared);
    const data: WorkerData = { path, shared, written };
    this.#worker = startThread(new URL('./flush-worker.js', import.meta.url), { workerData: data });
    this.#worker.unref();
    this.#worker.on('message', (response: Response) => this.#responded(response));
    this.#worker.on('error', (error) => this.#failed(String(error)));
    this.#ended = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        threads.delete(this);
        this.#failed('the thread that writes the tree has ended');
        resolve();
      });
    });
    threads.add(this);
    if (!isListening) process.once('exit', letTransactionsEnd);
    isListening = true;
  }

  get isGone(): boolean {
    return this.#gone !== undefined;
  }

  ask(request: Request): Promise<Response> {
    if (this.#gone !== undefined) return Promise.resolve({ error: this.#gone });
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#worker.ref();
      this.#worker.postMessage(request);
    });
  }

  async stop(): Promise<void> {
    if (this.#gone === undefined) {
      this.#worker.ref();
      this.#worker.postMessage({ kind: 'stop' });
    }
    await this.#ended;
  }

  /** The process ends: waits for a transaction that is open, and lets no other begin. */
  letTransactionEnd(): void {
    Atomics.store(this.#flags, Flag.ending, 1);
    while (Atomics.load(this.#flags, Flag.busy) === 1) Atomics.wait(this.#flags, Flag.busy, 1, 1000);
  }

  #responded(response: Response): void {
    this.#waiting.shift()?.(response);
    if (this.#waiting.length === 0) this.#worker.unref();
  }

  #failed(why: string): void {
    this.#gone ??= why;
    for (const resolve of this.#waiting.splice(0)) resolve({ error: why });
  }
}

const threads = new Set<Thread>();
let isListening = false;

function letTransactionsEnd(): void {
  for (const thread of threads) thread.letTransactionEnd();
}
