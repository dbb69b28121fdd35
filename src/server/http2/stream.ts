/**
 * One request and its answer (RFC 9113, section 5). Receives for the application and gives back what that has taken in
 * of the window; sends headers, content and trailers in order, content as far as the peer's windows go. What cannot be
 * sent yet waits here, so that a stream counts as open until its answer is on the way.
 */
import { ErrorCode, WINDOW_BYTES_MAX } from './constants.js';
import type { BlockParts, HeaderEncoder } from './header-encoder.js';
import type { Output } from './output.js';

/** What becomes of the request. */
export interface StreamSink {
  /** Content, a view that may be kept; `last`: `end` follows. Each byte is to be given back by `consumed`. */
  data(piece: Buffer, last: boolean): void;
  /** The request is whole. */
  end(): void;
  /** The peer has given the stream up, or the connection has ended. Nothing can be sent any more. */
  gone(): void;
  /** All of the answer is on its way. */
  done(): void;
}

/** What a stream shares with the others of its connection. */
export interface StreamHost {
  readonly output: Output;
  readonly encoder: HeaderEncoder;
  /** What the peer takes of all streams together. */
  sendWindow: number;
  /** What it takes of each stream at first, which it may change for all that are open. */
  readonly firstWindow: number;
  readonly frameBytes: number;
  /** Bytes that the peer may send again, on any stream. */
  giveBack(bytes: number): void;
  /** The stream waits for a window or for room. */
  waits(stream: Stream): void;
  /** The stream is over; `reset`: frames of the peer may still come. */
  over(stream: Stream, reset: boolean): void;
}

type Item =
  | { readonly parts: BlockParts; readonly end: boolean }
  | { readonly content: Buffer; at: number; readonly done: (() => void) | undefined };

/** The peer is told in steps. */
const GIVE_BACK_SHARE = 4;

export class Stream {
  readonly id: number;
  readonly #host: StreamHost;
  readonly #windowBytes: number;
  sink: StreamSink | undefined;
  /** What the peer takes beyond the first window, or less, and what it may send. */
  #sendBeyond = 0;
  #receiveWindow: number;
  /** Bytes that have come and were not given back, and those of them that the application is done with. */
  #held = 0;
  #consumed = 0;
  #contentLeft: number | undefined;
  #queue: Item[] = [];
  #remoteEnded = false;
  #ending = false;
  #over = false;

  constructor(id: number, host: StreamHost, windowBytes: number) {
    this.id = id;
    this.#host = host;
    this.#windowBytes = windowBytes;
    this.#receiveWindow = windowBytes;
  }

  get over(): boolean {
    return this.#over;
  }
  get remoteEnded(): boolean {
    return this.#remoteEnded;
  }

  // ------------------------------------------------------------------------------------------------- receiving

  /** Bytes of content that the request's headers announce. */
  announce(bytes: number | undefined): void {
    this.#contentLeft = bytes;
  }

  /** Takes a frame's bytes from the window; false: the peer had no right to send so many. */
  admit(bytes: number): boolean {
    this.#receiveWindow -= bytes;
    this.#held += bytes;
    return this.#receiveWindow >= 0;
  }

  receive(piece: Buffer, last: boolean): void {
    if (this.#contentLeft !== undefined) {
      this.#contentLeft -= piece.length;
      if (this.#contentLeft < 0) {
        this.abort(ErrorCode.protocolError);
        return;
      }
    }
    if (this.#ending) this.consumed(piece.length);
    else this.sink?.data(piece, last);
  }

  endRemote(): void {
    if (this.#contentLeft !== undefined && this.#contentLeft !== 0) {
      this.abort(ErrorCode.protocolError);
      return;
    }
    this.#remoteEnded = true;
    if (!this.#ending) this.sink?.end();
  }

  /** The application is done with so many bytes. */
  consumed(bytes: number): void {
    if (this.#over) return;
    this.#consumed += bytes;
    if (this.#consumed * GIVE_BACK_SHARE < this.#windowBytes) return;
    const { output } = this.#host;
    if (!this.#remoteEnded) {
      output.windowUpdate(this.id, this.#consumed);
      this.#receiveWindow += this.#consumed;
    }
    this.#host.giveBack(this.#consumed);
    this.#held -= this.#consumed;
    this.#consumed = 0;
  }

  // --------------------------------------------------------------------------------------------------- sending

  headers(parts: BlockParts): void {
    this.#send({ parts, end: false });
  }

  /** `done` is called when the bytes are free again: they were taken by the system, or never will be. */
  content(content: Buffer, done?: () => void): void {
    this.#send({ content, at: 0, done });
  }

  /** The last of the answer. */
  trailers(parts: BlockParts): void {
    if (this.#ending) return;
    this.#send({ parts, end: true });
    this.#ending = true;
  }

  #send(item: Item): void {
    if (this.#over || this.#ending) {
      if ('content' in item) item.done?.();
      return;
    }
    this.#queue.push(item);
    if (this.#queue.length === 1 && !this.pump(Number.POSITIVE_INFINITY)) this.#host.waits(this);
  }

  /** Sends what can be sent, about so many bytes; whether nothing is left. */
  pump(bytes: number): boolean {
    const { output, encoder } = this.#host;
    let left = bytes;
    for (;;) {
      const item = this.#queue[0];
      if (item === undefined) return true;
      if (output.room <= 0 || left <= 0) return false;
      if ('parts' in item) {
        output.headers(this.id, encoder.encode(item.parts), item.end);
        this.#queue.shift();
        if (item.end) {
          this.#finish();
          return true;
        }
      } else {
        const count = this.#sendSome(item);
        if (count < 0) return false;
        left -= count;
      }
    }
  }

  /** One frame of content; -1 when the windows allow none. */
  #sendSome(item: Extract<Item, { content: Buffer }>): number {
    const { output, sendWindow, frameBytes } = this.#host;
    const rest = item.content.length - item.at;
    const count = Math.min(rest, this.#window, sendWindow, frameBytes);
    if (count <= 0 && rest > 0) return -1;
    this.#sendBeyond -= count;
    this.#host.sendWindow -= count;
    const end = item.at + count;
    const whole = item.at === 0 && count === rest;
    output.data(this.id, whole ? item.content : item.content.subarray(item.at, end));
    item.at = end;
    if (count < rest) return count;
    this.#queue.shift();
    if (item.done !== undefined) output.whenWritten(item.done);
    return count;
  }

  /** What the peer takes; may be below 0 (section 6.9.2). */
  get #window(): number {
    return this.#host.firstWindow + this.#sendBeyond;
  }

  /** Adds to what the peer takes; false: it is more than a window may hold. */
  widen(bytes: number): boolean {
    this.#sendBeyond += bytes;
    return this.#window <= WINDOW_BYTES_MAX;
  }

  get sendBeyond(): number {
    return this.#sendBeyond;
  }

  get waiting(): boolean {
    return this.#queue.length > 0;
  }

  /** Bytes of content that wait here. */
  get unsent(): number {
    let bytes = 0;
    for (const item of this.#queue) if ('content' in item) bytes += item.content.length - item.at;
    return bytes;
  }

  /** Whether `bytes` of content can be sent at once. */
  takes(bytes: number): boolean {
    const { output, sendWindow } = this.#host;
    return this.#queue.length === 0 && bytes <= Math.min(this.#window, sendWindow, output.room);
  }

  // --------------------------------------------------------------------------------------------------- the end

  /** The answer is whole. A request that is not is no longer wanted (section 8.1). */
  #finish(): void {
    if (!this.#remoteEnded) this.#host.output.reset(this.id, ErrorCode.noError);
    this.#close(!this.#remoteEnded);
    this.sink?.done();
  }

  /** Ends the stream from this side, with an error. */
  abort(code: number): void {
    if (this.#over) return;
    this.#host.output.reset(this.id, code);
    this.#leave(true);
  }

  /** The peer has ended it, or the connection has. */
  gone(): void {
    if (!this.#over) this.#leave(false);
  }

  #leave(reset: boolean): void {
    const queue = this.#queue;
    this.#queue = [];
    this.#close(reset);
    // Frames of it may be on their way out still: what they show is free when they are.
    const { output } = this.#host;
    for (const item of queue) {
      if ('content' in item && item.done !== undefined) output.whenWritten(item.done);
    }
    this.sink?.gone();
  }

  #close(reset: boolean): void {
    this.#over = true;
    this.#host.giveBack(this.#held);
    this.#held = 0;
    this.#host.over(this, reset);
  }
}
