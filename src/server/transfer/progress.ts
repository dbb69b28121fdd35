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
/** How long a client has to take the last ones, when the transfer is over. */
const LAST_STEPS_MS = 10_000;

export class Reporter {
  readonly #stream: NamedStream | undefined;
  #sent: Promise<void> = Promise.resolve();
  readonly #lastStepsMs: number;
  #waiting = 0;
  #closed = false;

  constructor(stream: NamedStream | undefined, lastStepsMs = LAST_STEPS_MS) {
    this.#stream = stream;
    this.#lastStepsMs = lastStepsMs;
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
      .then(() => (this.#closed ? undefined : stream.send(anyOf(types.progress, step))))
      .catch(() => undefined)
      .finally(() => {
        this.#waiting--;
      });
  }

  /** After the last report is on its way, or a client that reads nothing has had its time. */
  async close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, this.#lastStepsMs);
    });
    await Promise.race([this.#sent, late]);
    clearTimeout(timer);
    this.#closed = true;
    this.#stream?.close();
  }
}
