/** Reports the steps of a transfer over a named stream, in order, if the client asked for it. Used by the transfers. */
import type { DescriptorMessage } from '../messages/messages.js';
import { anyOf } from './any.js';
import { types } from './messages.js';
import type { NamedStream } from './streams.js';

export interface Step {
  event: string;
  name?: string;
  /** Names of what it is a part of. */
  parents?: string[];
  /** Bytes. */
  progress?: number;
  /** Bytes. */
  total?: number;
  desc?: DescriptorMessage;
}

/** Steps that wait for a client; further ones are left out. */
const WAITING_MAX = 10_000;

export class Reporter {
  readonly #stream: NamedStream | undefined;
  #sent: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(stream: NamedStream | undefined) {
    this.#stream = stream;
  }

  get isHeard(): boolean {
    return this.#stream !== undefined;
  }

  /** A client that does not listen misses it. */
  report(step: Step): void {
    const stream = this.#stream;
    if (stream === undefined || this.#waiting >= WAITING_MAX) return;
    this.#waiting++;
    this.#sent = this.#sent
      .then(() => stream.send(anyOf(types.progress, step)))
      .catch(() => undefined)
      .finally(() => {
        this.#waiting--;
      });
  }

  /** After the last report is on its way. */
  async close(): Promise<void> {
    await this.#sent;
    this.#stream?.close();
  }
}
