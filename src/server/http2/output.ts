/**
 * The outgoing side of a connection. Frames of one event-loop turn are gathered and written together: small
 * ones are copied into one buffer, the content of large ones is written in place. A peer that does not read
 * fills this up to a limit; then data waits in the streams, and a peer that still provokes responses is
 * disconnected.
 */
import type { Socket } from 'node:net';
import type { Account } from '../connections/ledger.js';
import { ErrorCode, Flag, FRAME_BYTES, FRAME_HEAD_BYTES, FrameType, Setting } from './constants.js';

const SLAB_BYTES = 32 * 1024;
/** Content up to this size is copied. */
const SMALL_BYTES = 4096;
/**
 * Bytes that may wait for the peer to read before streams have to wait; the usual limit, and the one when
 * memory is short.
 */
const WAITING_BYTES_MAX = 1024 * 1024;
const WAITING_BYTES_MIN = 64 * 1024;
/** Bytes of responses to a peer's own frames that may wait in addition. */
const CONTROL_BYTES_MAX = 256 * 1024;

export interface OutputHooks {
  /** Whether `flush` will be called once the current work is complete. */
  flushes(): boolean;
  /** There is room again. */
  drained(): void;
  /** The peer provokes responses and does not read them. */
  overrun(): void;
}

export class Output {
  readonly #socket: Socket;
  readonly #hooks: OutputHooks;
  readonly #memory: Account;
  /** Whether content was sent or received. */
  moved = false;
  /** Bytes charged for data that waits for the peer. */
  #charged = 0;
  #slab: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
  /** The part of the slab that is to be written. */
  #from = 0;
  #at = 0;
  #parts: Buffer[] = [];
  #bytes = 0;
  #controlBytes = 0;
  #written: (() => void)[] = [];
  #scheduled = false;
  #delayed = false;
  #wasFull = false;

  constructor(socket: Socket, memory: Account, hooks: OutputHooks) {
    this.#socket = socket;
    this.#memory = memory;
    this.#hooks = hooks;
    socket.on('drain', () => this.#drained());
  }

  /** Bytes of data there is room for. */
  get room(): number {
    const waiting = this.#bytes + this.#socket.writableLength;
    const short = waiting > WAITING_BYTES_MIN && !this.#memory.fits(waiting - this.#charged);
    const room = (short ? WAITING_BYTES_MIN : WAITING_BYTES_MAX) - waiting;
    if (room <= 0) this.#wasFull = true;
    return room;
  }

  settings(settings: readonly (readonly [number, number])[]): void {
    const at = this.#head(6 * settings.length, FrameType.settings, 0, 0);
    settings.forEach(([name, value], i) => {
      this.#slab.writeUInt16BE(name, at + 6 * i);
      this.#slab.writeUInt32BE(value, at + 6 * i + 2);
    });
  }

  settingsAck(): void {
    this.#head(0, FrameType.settings, Flag.ack, 0);
    this.#control(FRAME_HEAD_BYTES);
  }

  ping(content: Buffer, flags: number): void {
    this.#small(content, FrameType.ping, flags, 0);
    this.#control(FRAME_HEAD_BYTES + 8);
  }

  reset(streamId: number, code: number): void {
    this.#number(FrameType.reset, streamId, code);
    this.#control(FRAME_HEAD_BYTES + 4);
  }

  windowUpdate(streamId: number, bytes: number): void {
    this.#number(FrameType.windowUpdate, streamId, bytes);
  }

  goAway(lastStreamId: number, code: number, debug = ''): void {
    const text = code === ErrorCode.noError ? '' : debug.slice(0, 100);
    const at = this.#head(8 + text.length, FrameType.goAway, 0, 0);
    this.#slab.writeUInt32BE(lastStreamId, at);
    this.#slab.writeUInt32BE(code, at + 4);
    this.#slab.write(text, at + 8, 'latin1');
  }

  headers(streamId: number, block: Buffer, endStream: boolean): void {
    const end = endStream ? Flag.endStream : 0;
    let count = Math.min(block.length, FRAME_BYTES);
    let flags = end | (count === block.length ? Flag.endHeaders : 0);
    this.#small(block.subarray(0, count), FrameType.headers, flags, streamId);
    for (let sent = count; sent < block.length; sent += count) {
      count = Math.min(block.length - sent, FRAME_BYTES);
      flags = sent + count === block.length ? Flag.endHeaders : 0;
      this.#small(block.subarray(sent, sent + count), FrameType.continuation, flags, streamId);
    }
  }

  /** Writes one frame; the content must not change until it is written. */
  data(streamId: number, content: Buffer): void {
    this.moved = true;
    if (content.length <= SMALL_BYTES) {
      this.#small(content, FrameType.data, 0, streamId);
      return;
    }
    this.#headOnly(content.length, FrameType.data, 0, streamId);
    this.#cut();
    this.#parts.push(content);
    this.#bytes += content.length;
  }

  /** Calls `fn` when everything added so far has been accepted by the system, or never will be. */
  whenWritten(fn: () => void): void {
    this.#written.push(fn);
    this.#schedule();
  }

  /** Writes what is there now, without waiting for the end of the turn. */
  flush(): void {
    this.#cut();
    const parts = this.#parts;
    const { length } = parts;
    if (length === 0 && this.#written.length === 0) return;
    this.#parts = [];
    this.#bytes = 0;
    const done = this.#whenDone();
    // Everything before it is written, or the socket has ended.
    const { destroyed, writableEnded, writableLength } = this.#socket;
    if (destroyed || writableEnded || (length === 0 && writableLength === 0)) {
      done?.();
      return;
    }
    if (length > 1) this.#socket.cork();
    const last = parts.pop() ?? Buffer.alloc(0);
    for (const part of parts) this.#socket.write(part);
    this.#socket.write(last, done);
    if (length > 1) this.#socket.uncork();
    if (this.#socket.writableLength === 0) this.#drained();
    else this.#charge(this.#socket.writableLength);
  }

  /** Nothing will be written any more. */
  close(): void {
    this.#charge(0);
  }

  #charge(bytes: number): void {
    if (bytes === this.#charged) return;
    this.#memory.force(bytes - this.#charged);
    this.#charged = bytes;
  }

  #whenDone(): (() => void) | undefined {
    if (this.#written.length === 0) return undefined;
    const fns = this.#written;
    this.#written = [];
    return () => {
      for (const fn of fns) fn();
    };
  }

  #drained(): void {
    this.#controlBytes = 0;
    this.#charge(0);
    if (!this.#wasFull) return;
    this.#wasFull = false;
    this.#hooks.drained();
  }

  /** Responses to the peer's frames count only while it leaves something unread. */
  #control(bytes: number): void {
    if (this.#socket.writableLength === 0) return;
    this.#controlBytes += bytes;
    if (this.#controlBytes > CONTROL_BYTES_MAX) this.#hooks.overrun();
  }

  #number(type: number, streamId: number, value: number): void {
    const at = this.#head(4, type, 0, streamId);
    this.#slab.writeUInt32BE(value, at);
  }

  #small(content: Buffer, type: number, flags: number, streamId: number): void {
    // The head first, because it may begin another slab.
    const at = this.#head(content.length, type, flags, streamId);
    content.copy(this.#slab, at);
  }

  /** Writes a frame's head and makes room for its content; returns the offset of the content. */
  #head(length: number, type: number, flags: number, streamId: number): number {
    this.#reserve(FRAME_HEAD_BYTES + length);
    this.#headOnly(length, type, flags, streamId);
    const at = this.#at;
    this.#at += length;
    this.#bytes += length;
    return at;
  }

  #headOnly(length: number, type: number, flags: number, streamId: number): void {
    this.#reserve(FRAME_HEAD_BYTES);
    const slab = this.#slab;
    const at = this.#at;
    slab[at] = length >>> 16;
    slab[at + 1] = length >>> 8;
    slab[at + 2] = length;
    slab[at + 3] = type;
    slab[at + 4] = flags;
    slab[at + 5] = streamId >>> 24;
    slab[at + 6] = streamId >>> 16;
    slab[at + 7] = streamId >>> 8;
    slab[at + 8] = streamId;
    this.#at = at + FRAME_HEAD_BYTES;
    this.#bytes += FRAME_HEAD_BYTES;
    if (type === FrameType.data || type === FrameType.headers) this.#schedule();
    else this.#delay();
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#slab.length) return;
    this.#cut();
    this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    this.#from = 0;
    this.#at = 0;
  }

  /** Closes the part of the slab that is being filled. */
  #cut(): void {
    if (this.#from === this.#at) return;
    this.#parts.push(this.#slab.subarray(this.#from, this.#at));
    this.#from = this.#at;
  }

  /** Control frames can wait: a response that they can be sent with may follow shortly. */
  #delay(): void {
    if (this.#scheduled || this.#delayed || this.#hooks.flushes()) return;
    this.#delayed = true;
    setImmediate(() => {
      this.#delayed = false;
      this.flush();
    });
  }

  /** Runs after everything that this turn still writes. */
  #schedule(): void {
    if (this.#scheduled || this.#hooks.flushes()) return;
    this.#scheduled = true;
    process.nextTick(() => {
      this.#scheduled = false;
      this.flush();
    });
  }
}

/** The settings that a server announces at the start. */
export const settingsOf = (values: {
  streams: number;
  windowBytes: number;
  headerBytes: number;
}): readonly (readonly [number, number])[] => [
  [Setting.maxConcurrentStreams, values.streams],
  [Setting.initialWindowSize, values.windowBytes],
  [Setting.maxHeaderListSize, values.headerBytes],
];
