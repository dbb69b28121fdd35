/** Reports the steps of a transfer over a named stream, in order, if the client asked for it. Used by transfer.ts. */
import type { DescriptorMessage } from '../messages/messages.js';
import { anyOf } from './any.js';
import { types } from './messages.js';
import type { NamedStream } from './streams.js';

export interface Step {
  event: string;
  name?: string;
  desc?: DescriptorMessage;
}

export class Reporter {
  readonly #stream: NamedStream | undefined;
  #sent: Promise<void> = Promise.resolve();

  constructor(stream: NamedStream | undefined) {
    this.#stream = stream;
  }

  /** A client that does not listen misses it. */
  report(step: Step): void {
    const stream = this.#stream;
    if (stream === undefined) return;
    this.#sent = this.#sent.then(() => stream.send(anyOf(types.progress, step))).catch(() => undefined);
  }

  /** After the last report is on its way. */
  async close(): Promise<void> {
    await this.#sent;
    this.#stream?.close();
  }
}
