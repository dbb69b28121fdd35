/**
 * Look-ups in the tree on a thread of their own (lookup-worker.ts), for work that has many to make and can wait for the
 * answers. Called by the storage, which knows what the tree does not have yet; lives on the thread that owns the store.
 *
 * The thread is started by the first question and ends when none came for a while. A question that fails (damage, no
 * thread) is answered with undefined: whoever asked can read the tree himself, and is told what is wrong there.
 */
import { Worker } from 'node:worker_threads';

const IDLE_MS = 5000;

export type Question =
  | { kind: 'ids'; prefixes: readonly string[]; leaves: readonly string[] }
  | { kind: 'nodes'; ids: Uint32Array };
/** Node ids under the keys, prefix by prefix; NONE or INLINE_ID where there is nothing, or a value without a node. */
export type IdsAnswer = { ids: Uint32Array };
/** Keys of nodes ('' where there is none) and their bytes, one behind the other: each ends at its place in `ends`. */
export type NodesAnswer = { keys: string[]; ends: Uint32Array; bytes: Uint8Array };
export type Answer = IdsAnswer | NodesAnswer | undefined;

/** What answers say where the tree has nothing. */
export const NONE = 0xffffffff;

export class Lookups {
  readonly #path: string;
  #worker: Worker | undefined;
  /** The same, or the one before. */
  #newest: Worker | undefined;
  #ended: Promise<void> = Promise.resolve();
  /** Those who wait, in the order of their questions. */
  #waiting: ((answer: Answer) => void)[] = [];
  #idle: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(path: string) {
    this.#path = path;
  }

  ids(prefixes: readonly string[], leaves: readonly string[]): Promise<IdsAnswer | undefined> {
    return this.#ask({ kind: 'ids', prefixes, leaves }) as Promise<IdsAnswer | undefined>;
  }

  nodes(ids: Uint32Array): Promise<NodesAnswer | undefined> {
    // A copy: what is posted takes its whole buffer along.
    return this.#ask({ kind: 'nodes', ids: ids.slice() }) as Promise<NodesAnswer | undefined>;
  }

  /** Ends the thread; questions from now on are not answered. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#end();
    // It may be on its way out already, which must be waited for: it has the file open.
    this.#newest?.ref();
    await this.#ended;
  }

  #ask(question: Question): Promise<Answer> {
    if (this.#isClosed) return Promise.resolve(undefined);
    clearTimeout(this.#idle);
    this.#worker ??= this.#start();
    const worker = this.#worker;
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      worker.ref();
      worker.postMessage(question);
    });
  }

  #start(): Worker {
    const worker = new Worker(new URL('./lookup-worker.js', import.meta.url), { workerData: this.#path });
    worker.on('message', (answer: Answer) => {
      if (this.#worker !== worker) return;
      this.#waiting.shift()?.(answer);
      if (this.#waiting.length > 0) return;
      worker.unref();
      this.#idle = setTimeout(() => this.#end(), IDLE_MS).unref();
    });
    worker.on('error', () => undefined); // `exit` follows
    this.#newest = worker;
    this.#ended = new Promise((resolve) => {
      worker.on('exit', () => {
        if (this.#worker === worker) this.#forget();
        resolve();
      });
    });
    return worker;
  }

  #end(): void {
    this.#worker?.postMessage('stop');
    this.#forget();
  }

  #forget(): void {
    clearTimeout(this.#idle);
    this.#worker = undefined;
    for (const resolve of this.#waiting.splice(0)) resolve(undefined);
  }
}
