/**
 * One gRPC call on a stream: extracts the request's messages, sends the response's, and ends once, by
 * whatever comes first: the response, the deadline, or the client disconnecting. Independent of the content
 * of messages.
 */
import { canceled } from '../../errors.js';
import type { Account } from '../connections/ledger.js';
import type { Peer } from '../connections/peer.js';
import type { Stream, StreamSink } from '../http2/stream.js';
import { type CallStatus, deadlineStatus, internal, resourceExhausted, statusOf } from '../status.js';
import { failure, responseHead, success } from './blocks.js';
import { CALL_BYTES, type CallCost } from './call-cost.js';
import type { CallGate, GatedCall } from './call-gate.js';
import type { CallHead } from './call-head.js';
import { expand } from './compression.js';
import { type IncomingMessage, kept, MessageReader, tooLarge } from './message-reader.js';
import { PREFIX_BYTES } from './prefix.js';

/** How the calls of a method are handled. */
export interface Route {
  /**
   * The request is a stream: the call starts before the first message has arrived, and reads them by
   * `messages`.
   */
  readonly streaming: boolean;
  readonly cost: CallCost;
  /**
   * `request` is empty for a stream. Always ends with `succeed` or `fail`, also after the client has gone.
   */
  start(exchange: Exchange, request: Buffer): void;
}

/** State shared by the calls of a connection. */
export interface CallShare {
  readonly messageBytesMax: number;
  readonly peer: Peer;
  readonly gate: CallGate;
}

export class Exchange implements StreamSink, GatedCall {
  readonly #stream: Stream;
  readonly #head: CallHead<Route>;
  readonly #share: CallShare;
  #reader: MessageReader | undefined;
  #incoming: IncomingMessage[] = [];
  #requestEnded = false;
  #requestError: unknown;
  /** Wakes the reader of `messages`. */
  #wake: (() => void) | undefined;
  /** Whether the service is working on the call. */
  #running = false;
  /** The request, until the service begins. */
  #request: Buffer = EMPTY;
  /** Bytes taken for the call, and for received messages that are being processed. */
  #taken = 0;
  #takenIn = 0;
  #headSent = false;
  #responded = false;
  #cancelled = false;
  #onCancel: (() => void)[] = [];
  /** The service's pending calls of `yield`. */
  #yields: { resolve: () => void; reject: (error: Error) => void }[] = [];
  #deadline: NodeJS.Timeout | undefined;

  constructor(stream: Stream, head: CallHead<Route>, share: CallShare) {
    this.#stream = stream;
    this.#head = head;
    this.#share = share;
    if (head.timeoutMs !== undefined) {
      this.#deadline = setTimeout(() => this.#share.gate.expires(this), head.timeoutMs);
    }
    if (head.route.streaming) this.#start(EMPTY);
  }

  get context(): CallHead<Route>['context'] {
    return this.#head.context;
  }

  /** Whether the client wants object and remedy of errors. */
  get isDetailed(): boolean {
    return this.#head.isDetailed;
  }

  get memory(): Account {
    return this.#share.gate.memory;
  }

  get peer(): Peer {
    return this.#share.peer;
  }

  /** Whether the client has gone or cancelled the call. */
  get cancelled(): boolean {
    return this.#cancelled;
  }

  /** REQUIRES: `fn` runs at most once. */
  onCancel(fn: () => void): void {
    if (this.#cancelled) fn();
    else this.#onCancel.push(fn);
  }

  /** Resolves when the call may go on; rejects when the client has gone. */
  yieldTurn(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#yields.push({ resolve, reject });
      if (this.#cancelled) this.#rejectYields();
      else this.#share.gate.resumeLater(this);
    });
  }

  goOn(): void {
    const yields = this.#yields;
    this.#yields = [];
    this.#share.gate.steps++;
    for (const { resolve } of yields) resolve();
  }

  #rejectYields(): void {
    const yields = this.#yields;
    this.#yields = [];
    for (const { reject } of yields) reject(canceled('context canceled'));
  }

  // --------------------------------------------------------------------------------------------------- request

  data(chunk: Buffer, last: boolean): void {
    if (this.#requestError !== undefined || this.#responded) {
      this.#stream.consumed(chunk.length);
      return;
    }
    this.#reader ??= new MessageReader(this.#share.messageBytesMax, this.#share.gate.memory);
    const before = this.#incoming.length;
    try {
      const free = this.#reader.push(chunk, this.#incoming);
      if (!last || this.#head.route.streaming) this.#keepFrom(before);
      if (free > 0) this.#stream.consumed(free);
    } catch (error) {
      this.#stream.consumed(chunk.length);
      this.#fault(error);
      return;
    }
    if (this.#incoming.length > before) this.#wakeUp();
  }

  #keepFrom(first: number): void {
    for (const message of this.#incoming.splice(first))
      this.#incoming.push({ ...message, bytes: kept(message.bytes) });
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
    this.done();
  }

  done(): void {
    if (!this.#running) this.#giveBack();
  }

  /** Drops the received messages, which no service will read. */
  #drop(): void {
    const { gate } = this.#share;
    gate.forget(this);
    for (const { taken } of this.#incoming) gate.memory.give(taken);
    this.#incoming = [];
    this.#reader?.clear();
    this.#request = EMPTY;
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

  /** Starts the service, now or when there is room. */
  #start(request: Buffer): void {
    if (this.#responded || this.#cancelled) {
      this.#giveBack();
      return;
    }
    this.#request = request;
    this.#share.gate.enter(this);
    this.#request = kept(this.#request);
  }

  get cost(): CallCost {
    return this.#head.route.cost;
  }

  begin(bytes: number): void {
    this.#running = true;
    this.#taken = bytes;
    const request = this.#request;
    this.#request = EMPTY;
    this.#head.route.start(this, request);
  }

  /** The service has finished; what cannot be sent yet is kept. */
  #leave(): void {
    if (!this.#running) return;
    this.#running = false;
    const { gate } = this.#share;
    gate.leave();
    if (this.#stream.over) {
      this.#giveBack();
      return;
    }
    gate.memory.give(this.#takenIn);
    this.#takenIn = 0;
    const still = Math.min(this.#taken, CALL_BYTES + this.#stream.unsent);
    gate.memory.give(this.#taken - still);
    this.#taken = still;
  }

  #giveBack(): void {
    this.#share.gate.memory.give(this.#taken + this.#takenIn);
    this.#taken = 0;
    this.#takenIn = 0;
  }

  /** The client's data is unusable: fails the reader of `messages`, or ends the call. */
  #fault(error: unknown): void {
    this.#requestError = error;
    this.#reader?.clear();
    if (this.#head.route.streaming) this.#wakeUp();
    else this.#end(statusOf(error));
  }

  #wakeUp(): void {
    const wake = this.#wake;
    if (wake === undefined) return;
    this.#wake = undefined;
    this.#share.gate.steps++;
    wake();
  }

  /** Starts on a message, which releases the one before it. */
  #took({ unreturned, taken }: IncomingMessage): void {
    this.#share.gate.memory.give(this.#takenIn);
    this.#takenIn = taken;
    this.#stream.consumed(unreturned);
  }

  async #expand(message: IncomingMessage): Promise<Buffer> {
    const { messageBytesMax, gate } = this.#share;
    const bytes = await expand(
      message.bytes,
      this.#head.encoding,
      messageBytesMax,
      gate.memory,
      () => this.#cancelled,
    );
    this.#takenIn += bytes.length;
    if (!this.#running && this.#stream.over) this.#giveBack();
    return bytes;
  }

  /**
   * The messages of a streaming request; yields to other calls after some of them. The loop may be left
   * early.
   */
  async *messages(): AsyncGenerator<Buffer, void> {
    for (let taken = 1; ; ) {
      if (taken % MESSAGES_BEFORE_YIELD === 0) await this.yieldTurn();
      const message = this.#incoming.shift();
      if (message !== undefined) {
        taken++;
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
      taken = 1;
    }
  }

  // ---------------------------------------------------------------------------------------------------
  // response

  /**
   * Sends one message of a stream, a buffer with PREFIX_BYTES free bytes before it. Resolves when the buffer
   * is free again. Rejects when the client is gone; the buffer may then still be read from.
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
      this.#message(framed, framed.length, () => {
        // Not found if the connection has ended: then the promise is rejected already.
        const place = this.#onCancel.lastIndexOf(gone);
        if (place >= 0) this.#onCancel.splice(place, 1);
        resolve();
      });
    });
  }

  /**
   * Ends the call with success, and with the only message of the response, which may be in several buffers,
   * unless messages were sent already.
   */
  succeed(...framed: readonly Buffer[]): void {
    if (!this.#responded) {
      let length = 0;
      for (const chunk of framed) length += chunk.length;
      const refusal = length > 0 ? this.#refusal(length) : undefined;
      if (refusal !== undefined) this.#end(statusOf(refusal));
      else {
        const [first, ...rest] = framed;
        if (first !== undefined) {
          this.#message(first, length);
          for (const chunk of rest) this.#stream.content(chunk);
        } else if (!this.#headSent) this.#sendHead();
        this.#respond();
        this.#stream.trailers(success);
      }
    }
    this.#leave();
  }

  /** Why a response is not sent. */
  #refusal(length: number): Error | undefined {
    const { messageBytesMax } = this.#share;
    const size = length - PREFIX_BYTES;
    if (size > messageBytesMax) return tooLarge('attempted to send', size, messageBytesMax);
    if (this.#stream.takes(length) || this.#keeps(length)) return undefined;
    return unread();
  }

  /** Takes memory for the part of a response that exists. ResourceExhausted when there is no room. */
  keep(length: number): void {
    if (!this.#keeps(length)) throw unread();
  }

  #keeps(length: number): boolean {
    const more = CALL_BYTES + length - this.#taken;
    if (more <= 0) return true;
    if (!this.#share.gate.memory.take(more)) return false;
    this.#taken += more;
    return true;
  }

  fail(status: CallStatus): void {
    this.#end(status);
    this.#leave();
  }

  #end(status: CallStatus): void {
    if (this.#responded) return;
    this.#respond();
    this.#stream.trailers(failure(status, !this.#headSent));
  }

  #respond(): void {
    this.#responded = true;
    clearTimeout(this.#deadline);
    this.#drop();
  }

  #sendHead(): void {
    this.#headSent = true;
    this.#stream.headers(responseHead);
  }

  /** A message of `length` bytes with its prefix; `framed` is its beginning. */
  #message(framed: Buffer, length: number, done?: () => void): void {
    if (!this.#headSent) this.#sendHead();
    framed[0] = 0;
    framed.writeUInt32BE(length - PREFIX_BYTES, 1);
    this.#stream.content(framed, done);
  }

  expire(): void {
    if (this.#responded) return;
    this.#end(deadlineStatus);
    this.#cancel();
  }

  #cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    if (this.#running) this.#share.gate.steps++;
    const fns = this.#onCancel;
    this.#onCancel = [];
    for (const fn of fns) fn();
    this.#rejectYields();
    this.#wakeUp();
  }
}

/** Messages that a service reads, or sends, before other calls continue: each may have only a few bytes. */
export const MESSAGES_BEFORE_YIELD = 32;
const EMPTY = Buffer.alloc(0);
const unread = (): Error => resourceExhausted('the connection has too many unread responses');
