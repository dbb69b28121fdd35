/**
 * One gRPC call on a stream: takes the request's messages out of it, sends the answer's, and ends it once, whatever
 * happens first: the answer, the deadline, or the client going away. Knows nothing of what messages mean.
 */
import { canceled } from '../../errors.js';
import type { Stream, StreamSink } from '../http2/stream.js';
import { type CallStatus, deadlineStatus, internal, statusOf } from '../status.js';
import { answerHead, failure, success } from './blocks.js';
import type { CallGate } from './call-gate.js';
import type { CallHead } from './call-head.js';
import { expand } from './compression.js';
import { type Budget, type IncomingMessage, MessageReader, tooLarge } from './message-reader.js';
import { PREFIX_BYTES } from './prefix.js';

/** What is done with the calls of a method. */
export interface Route {
  /** Requests are a stream: starts before the first is there, and takes them by `messages`. */
  readonly streaming: boolean;
  /** The request, unless it is a stream. Ends with `succeed` or `fail`, also when nobody waits for an answer any more. */
  start(exchange: Exchange, request: Buffer): void;
}

/** What the calls of a connection share. */
export interface CallShare {
  readonly messageBytesMax: number;
  readonly budget: Budget;
  readonly gate: CallGate;
}

export class Exchange implements StreamSink {
  readonly #stream: Stream;
  readonly #head: CallHead<Route>;
  readonly #share: CallShare;
  #reader: MessageReader | undefined;
  #incoming: IncomingMessage[] = [];
  #requestEnded = false;
  #requestError: unknown;
  /** Whoever waits for a message. */
  #wake: (() => void) | undefined;
  /** Whether the service works on the call. */
  #running = false;
  #headSent = false;
  #answered = false;
  #cancelled = false;
  #onCancel: (() => void)[] = [];
  #deadline: NodeJS.Timeout | undefined;

  constructor(stream: Stream, head: CallHead<Route>, share: CallShare) {
    this.#stream = stream;
    this.#head = head;
    this.#share = share;
    if (head.timeoutMs !== undefined) {
      this.#deadline = setTimeout(() => this.#expire(), head.timeoutMs);
    }
    if (head.route.streaming) this.#start(EMPTY);
  }

  get context(): CallHead<Route>['context'] {
    return this.#head.context;
  }

  /** Whether nobody waits for an answer any more. */
  get cancelled(): boolean {
    return this.#cancelled;
  }

  /** Called at most once. */
  onCancel(fn: () => void): void {
    if (this.#cancelled) fn();
    else this.#onCancel.push(fn);
  }

  // --------------------------------------------------------------------------------------------------- request

  data(piece: Buffer): void {
    if (this.#requestError !== undefined || this.#answered) {
      this.#stream.consumed(piece.length);
      return;
    }
    this.#reader ??= new MessageReader(this.#share.messageBytesMax, this.#share.budget);
    try {
      const free = this.#reader.push(piece, this.#incoming);
      if (free > 0) this.#stream.consumed(free);
    } catch (error) {
      this.#stream.consumed(piece.length);
      this.#fault(error);
      return;
    }
    this.#wakeUp();
  }

  end(): void {
    this.#requestEnded = true;
    if (this.#reader?.partial) this.#fault(internal('the request ends inside a message'));
    else if (!this.#head.route.streaming) this.#startSingle();
    else this.#wakeUp();
  }

  gone(): void {
    clearTimeout(this.#deadline);
    this.#drop();
    this.#cancel();
  }

  /** Nobody takes what has come any more. */
  #drop(): void {
    this.#share.gate.forget(this);
    const { length } = this.#incoming;
    this.#incoming = [];
    this.#reader?.taken(length);
    this.#reader?.clear();
  }

  #startSingle(): void {
    const [message] = this.#incoming;
    if (message === undefined || this.#incoming.length > 1) {
      this.#end(statusOf(internal(`${this.#incoming.length} requests in a call that takes one`)));
      return;
    }
    this.#incoming = [];
    this.#took(message);
    if (!message.compressed) {
      this.#start(message.bytes);
      return;
    }
    this.#expand(message).then(
      (bytes) => this.#start(bytes),
      (error: unknown) => this.#end(statusOf(error)),
    );
  }

  /** Has the service work on it, now or when others are done. */
  #start(request: Buffer): void {
    if (this.#answered || this.#cancelled) return;
    this.#share.gate.enter(this, () => {
      this.#running = true;
      this.#head.route.start(this, request);
    });
  }

  /** The service is done with it. */
  #leave(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#share.gate.leave();
  }

  /** What the client sent cannot be used: ends the call, or tells whoever reads the messages. */
  #fault(error: unknown): void {
    this.#requestError = error;
    this.#reader?.clear();
    if (this.#head.route.streaming) this.#wakeUp();
    else this.#end(statusOf(error));
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #took({ unreturned }: IncomingMessage): void {
    this.#reader?.taken(1);
    this.#stream.consumed(unreturned);
  }

  #expand(message: IncomingMessage): Promise<Buffer> {
    return expand(message.bytes, this.#head.encoding, this.#share.messageBytesMax);
  }

  /** The messages of a request that is a stream. Leaving the loop early is no matter. */
  async *messages(): AsyncGenerator<Buffer, void> {
    for (;;) {
      const message = this.#incoming.shift();
      if (message !== undefined) {
        this.#took(message);
        yield message.compressed ? await this.#expand(message) : message.bytes;
        continue;
      }
      if (this.#cancelled) throw canceled('context canceled');
      if (this.#requestError !== undefined) throw this.#requestError;
      if (this.#requestEnded) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  // ---------------------------------------------------------------------------------------------------- answer

  /**
   * Sends one message of several, a buffer with PREFIX_BYTES free bytes before it. Resolves when the buffer is free
   * again; rejects when the client has gone, and then the buffer may still be read from.
   */
  send(framed: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      const gone = (): void => reject(canceled('context canceled'));
      if (this.#cancelled) {
        gone();
        return;
      }
      const size = framed.length - PREFIX_BYTES;
      if (size > this.#share.messageBytesMax) {
        reject(tooLarge('attempted to send', size, this.#share.messageBytesMax));
        return;
      }
      this.#onCancel.push(gone);
      this.#message(framed, () => {
        // Gone first when the connection is: then the promise is rejected already.
        const place = this.#onCancel.lastIndexOf(gone);
        if (place >= 0) this.#onCancel.splice(place, 1);
        resolve();
      });
    });
  }

  /** Ends the call well; with the answer's only message, unless they were sent already. */
  succeed(framed?: Buffer): void {
    this.#leave();
    if (this.#answered) return;
    if (framed !== undefined) {
      const size = framed.length - PREFIX_BYTES;
      if (size > this.#share.messageBytesMax) {
        this.#end(statusOf(tooLarge('attempted to send', size, this.#share.messageBytesMax)));
        return;
      }
      this.#message(framed);
    } else if (!this.#headSent) this.#sendHead();
    this.#answer();
    this.#stream.trailers(success);
  }

  fail(status: CallStatus): void {
    this.#leave();
    this.#end(status);
  }

  #end(status: CallStatus): void {
    if (this.#answered) return;
    this.#answer();
    this.#stream.trailers(failure(status, !this.#headSent));
  }

  #answer(): void {
    this.#answered = true;
    clearTimeout(this.#deadline);
    this.#drop();
  }

  #sendHead(): void {
    this.#headSent = true;
    this.#stream.headers(answerHead);
  }

  #message(framed: Buffer, done?: () => void): void {
    if (!this.#headSent) this.#sendHead();
    framed[0] = 0;
    framed.writeUInt32BE(framed.length - PREFIX_BYTES, 1);
    this.#stream.content(framed, done);
  }

  #expire(): void {
    if (this.#answered) return;
    this.#end(deadlineStatus);
    this.#cancel();
  }

  #cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    const fns = this.#onCancel;
    this.#onCancel = [];
    for (const fn of fns) fn();
    this.#wakeUp();
  }
}

const EMPTY = Buffer.alloc(0);
