/**
 * One request and its response (RFC 9113, section 5). Passes content to the application and returns to the
 * window what that has consumed; sends headers, content and trailers in order, content as far as the peer's
 * windows allow. What cannot be sent yet waits here, so a stream counts as open until its response is sent.
 */
import { ErrorCode, WINDOW_BYTES_MAX } from './constants.js';
import type { BlockParts, HeaderEncoder } from './header-encoder.js';
import type { Output } from './output.js';

/** Receives the request. */
export interface StreamSink {
  /** Content, a view that is valid until it returns; `last`: `end` follows. Every byte has to be released by `consumed`. */
  data(chunk: Buffer, last: boolean): void;
  /** The request is complete. */
  end(): void;
  /** The peer has reset the stream, or the connection has ended. Nothing can be sent any more. */
  gone(): void;
  /** All of the response has been passed on for sending. */
  done(): void;
}

/** State shared by the streams of a connection. */
export interface StreamHost {
  readonly output: Output;
  readonly encoder: HeaderEncoder;
  /** The peer's window for all streams together. */
  sendWindow: number;
  /** The initial window of each stream; a change applies to all open ones. */
  readonly firstWindow: number;
  readonly frameBytes: number;
  /** Returns bytes to the peer's window for this side. */
  giveBack(bytes: number): void;
  /** The stream waits for a window or for room. */
  waits(stream: Stream): void;
  /** The stream has ended; `reset`: frames of the peer may still arrive. */
  over(stream: Stream, reset: boolean): void;
}

type Item =
  | { readonly parts: BlockParts; readonly end: boolean }
  | { readonly content: Buffer; at: number; readonly done: (() => void) | undefined };

/** Window updates are sent in steps. */
const GIVE_BACK_SHARE = 4;

export class Stream {
  readonly id: number;
  readonly #host: StreamHost;
  readonly #windowBytes: number;
  sink: StreamSink | undefined;
  /** The stream's window minus the initial one. */
  #sendBeyond = 0;
  #receiveWindow: number;
  /**
   * Bytes received and not returned to the window, and the part of them that the application has consumed.
   */
  #unreturned = 0;
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

  /** The length of the content that the request's headers announce. */
  announce(bytes: number | undefined): void {
    this.#contentLeft = bytes;
  }

  /** Takes a frame's bytes from the window; returns false if the peer exceeded it. */
  admit(bytes: number): boolean {
    this.#receiveWindow -= bytes;
    this.#unreturned += bytes;
    return this.#receiveWindow >= 0;
  }

  receive(chunk: Buffer, last: boolean): void {
    if (this.#contentLeft !== undefined) {
      this.#contentLeft -= chunk.length;
      if (this.#contentLeft < 0) {
        this.abort(ErrorCode.protocolError);
        return;
      }
    }
    if (this.#ending) this.consumed(chunk.length);
    else this.sink?.data(chunk, last);
  }

  endRemote(): void {
    if (this.#contentLeft !== undefined && this.#contentLeft !== 0) {
      this.abort(ErrorCode.protocolError);
      return;
    }
    this.#remoteEnded = true;
    if (!this.#ending) this.sink?.end();
  }

  /** The application has consumed this many bytes. */
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
    this.#unreturned -= this.#consumed;
    this.#consumed = 0;
  }

  // --------------------------------------------------------------------------------------------------- sending

  headers(parts: BlockParts): void {
    this.#send({ parts, end: false });
  }

  /** `done` is called when the bytes are free again: the system has accepted them, or never will. */
  content(content: Buffer, done?: () => void): void {
    this.#send({ content, at: 0, done });
  }

  /** Ends the response. */
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

  /** Sends about this many bytes; returns whether nothing is left. */
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

  /** Sends one frame of content; returns -1 if the windows are closed. */
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

  /** The peer's window for this stream; may be below 0 (section 6.9.2). */
  get #window(): number {
    return this.#host.firstWindow + this.#sendBeyond;
  }

  /** Widens the window; returns false if it exceeds the maximum. */
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

  /** The response is complete. The rest of an incomplete request is no longer wanted (section 8.1). */
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

  /** The peer has reset it, or the connection has ended. */
  gone(): void {
    if (!this.#over) this.#leave(false);
  }

  #leave(reset: boolean): void {
    const queue = this.#queue;
    this.#queue = [];
    this.#close(reset);
    // Its frames may still be waiting to be written; their bytes are free after that.
    const { output } = this.#host;
    for (const item of queue) {
      if ('content' in item && item.done !== undefined) output.whenWritten(item.done);
    }
    this.sink?.gone();
  }

  #close(reset: boolean): void {
    this.#over = true;
    this.#host.giveBack(this.#unreturned);
    this.#unreturned = 0;
    this.#host.over(this, reset);
  }
}
