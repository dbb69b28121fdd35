/**
 * One gRPC call on a stream: takes the request's messages out of it, sends the answer's, and ends it once, whatever
 * happens first: the answer, the deadline, or the client going away. Knows nothing of what messages mean.
 */
import { canceled } from '../../errors.js';
import type { Account } from '../connections/ledger.js';
import type { Peer } from '../connections/peer.js';
import type { Stream, StreamSink } from '../http2/stream.js';
import { type CallStatus, deadlineStatus, internal, resourceExhausted, statusOf } from '../status.js';
import { answerHead, failure, success } from './blocks.js';
import { CALL_BYTES, type CallCost } from './call-cost.js';
import type { CallGate, GatedCall } from './call-gate.js';
import type { CallHead } from './call-head.js';
import { expand } from './compression.js';
import { type IncomingMessage, kept, MessageReader, tooLarge } from './message-reader.js';
import { PREFIX_BYTES } from './prefix.js';

/** What is done with the calls of a method. */
export interface Route {
  /** Requests are a stream: starts before the first is there, and takes them by `messages`. */
  readonly streaming: boolean;
  readonly cost: CallCost;
  /** The request, unless it is a stream. Ends with `succeed` or `fail`, also when nobody waits for an answer any more. */
  start(exchange: Exchange, request: Buffer): void;
}

/** What the calls of a connection share. */
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
  /** Whoever waits for a message. */
  #wake: (() => void) | undefined;
  /** Whether the service works on the call. */
  #running = false;
  /** The request, while it waits for the service to begin. */
  #request: Buffer = EMPTY;
  /** Bytes taken for the call, and for what came in and is being worked on. */
  #taken = 0;
  #takenIn = 0;
  #headSent = false;
  #answered = false;
  #cancelled = false;
  #onCancel: (() => void)[] = [];
  /** The service, while it waits for the next turn. */
  #turns: { resolve: () => void; reject: (error: Error) => void }[] = [];
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

  get memory(): Account {
    return this.#share.gate.memory;
  }

  get peer(): Peer {
    return this.#share.peer;
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

  /** Resolves when it is the call's turn again; rejects when the client has gone. */
  turn(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#turns.push({ resolve, reject });
      if (this.#cancelled) this.#noTurn();
      else this.#share.gate.waitsForTurn(this);
    });
  }

  goOn(): void {
    const turns = this.#turns;
    this.#turns = [];
    this.#share.gate.steps++;
    for (const { resolve } of turns) resolve();
  }

  #noTurn(): void {
    const turns = this.#turns;
    this.#turns = [];
    for (const { reject } of turns) reject(canceled('context canceled'));
  }

  // --------------------------------------------------------------------------------------------------- request

  data(piece: Buffer, last: boolean): void {
    if (this.#requestError !== undefined || this.#answered) {
      this.#stream.consumed(piece.length);
      return;
    }
    this.#reader ??= new MessageReader(this.#share.messageBytesMax, this.#share.gate.memory);
    const before = this.#incoming.length;
    try {
      const free = this.#reader.push(piece, this.#incoming);
      if (!last || this.#head.route.streaming) this.#keepFrom(before);
      if (free > 0) this.#stream.consumed(free);
    } catch (error) {
      this.#stream.consumed(piece.length);
      this.#fault(error);
      return;
    }
    if (this.#incoming.length > before) this.#wakeUp();
  }

  #keepFrom(first: number): void {
    for (let i = first; i < this.#incoming.length; i++) {
      const message = this.#incoming[i]!;
      this.#incoming[i] = { ...message, bytes: kept(message.bytes) };
    }
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

  /** Nobody takes what has come any more. */
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

  /** Has the service work on it, now or when there is room. */
  #start(request: Buffer): void {
    if (this.#answered || this.#cancelled) {
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

  /** The service is done with it; what cannot be sent yet is kept. */
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

  /** What the client sent cannot be used: ends the call, or tells whoever reads the messages. */
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

  /** Works on a message from now on, and no longer on the one before. */
  #took({ unreturned, taken }: IncomingMessage): void {
    this.#share.gate.memory.give(this.#takenIn);
    this.#takenIn = taken;
    this.#stream.consumed(unreturned);
  }

  async #expand(message: IncomingMessage): Promise<Buffer> {
    const { messageBytesMax, gate } = this.#share;
    const bytes = await expand(message.bytes, this.#head.encoding, messageBytesMax, gate.memory);
    this.#takenIn += bytes.length;
    if (!this.#running && this.#stream.over) this.#giveBack();
    return bytes;
  }

  /** The messages of a request that is a stream, some in a turn. Leaving the loop early is no matter. */
  async *messages(): AsyncGenerator<Buffer, void> {
    for (let taken = 1; ; ) {
      if (taken % MESSAGES_IN_A_TURN === 0) await this.turn();
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
      this.#message(framed, framed.length, () => {
        // Gone first when the connection is: then the promise is rejected already.
        const place = this.#onCancel.lastIndexOf(gone);
        if (place >= 0) this.#onCancel.splice(place, 1);
        resolve();
      });
    });
  }

  /** Ends the call well; with the answer's only message, which may come in pieces, unless they were sent already. */
  succeed(...framed: readonly Buffer[]): void {
    if (!this.#answered) {
      let length = 0;
      for (const piece of framed) length += piece.length;
      const refusal = length > 0 ? this.#refusal(length) : undefined;
      if (refusal !== undefined) this.#end(statusOf(refusal));
      else {
        const [first] = framed;
        if (first !== undefined) {
          this.#message(first, length);
          for (let i = 1; i < framed.length; i++) this.#stream.content(framed[i]!);
        } else if (!this.#headSent) this.#sendHead();
        this.#answer();
        this.#stream.trailers(success);
      }
    }
    this.#leave();
  }

  /** Why an answer is not sent. */
  #refusal(length: number): Error | undefined {
    const { messageBytesMax } = this.#share;
    const size = length - PREFIX_BYTES;
    if (size > messageBytesMax) return tooLarge('attempted to send', size, messageBytesMax);
    if (this.#stream.takes(length) || this.#keeps(length)) return undefined;
    return unread();
  }

  /** Takes memory for an answer as far as it is made. ResourceExhausted when there is no room. */
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

  /** `length` bytes with what stands before a message, of which `framed` is the beginning. */
  #message(framed: Buffer, length: number, done?: () => void): void {
    if (!this.#headSent) this.#sendHead();
    framed[0] = 0;
    framed.writeUInt32BE(length - PREFIX_BYTES, 1);
    this.#stream.content(framed, done);
  }

  expire(): void {
    if (this.#answered) return;
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
    this.#noTurn();
    this.#wakeUp();
  }
}

/** Messages that a service takes, or sends, before others have their turn: they may have a few bytes each. */
export const MESSAGES_IN_A_TURN = 32;
const EMPTY = Buffer.alloc(0);
const unread = (): Error => resourceExhausted('the connection has too many answers unread');
