/**
 * One connection of an HTTP/2 server (RFC 9113), for gRPC: many small requests and responses, and long
 * streams. No push, no priorities, no upgrade. Owns the socket from its first byte on. Called by
 * rpc-server.ts.
 *
 * An error of the peer ends a stream or the connection, as the RFC demands. Everything a peer can make this
 * side keep or do is bounded: concurrent streams, bytes of headers, bytes received and not consumed, bytes
 * sent and not read, frames without effect per second, silence. A stream that ends frees its slot; the
 * application bounds what its call still does.
 */
import type { Socket } from 'node:net';
import { descriptorOf, hasHungUp } from '../../system/unix-sockets.js';
import type { Account } from '../connections/ledger.js';
import type { Line } from '../connections/line.js';
import type { Peer } from '../connections/peer.js';
import { Bucket } from './bucket.js';
import { broken, ConnectionError, ErrorCode, Flag, FrameType, sized, tooMuch } from './constants.js';
import { FrameReader, type FrameSink } from './frame-reader.js';
import { type HeaderBlock, HeaderBlocks } from './header-blocks.js';
import { HeaderEncoder } from './header-encoder.js';
import { HeaderReader, type HeadMaker } from './header-reader.js';
import { Inbox } from './inbox.js';
import { OpenStreams, STREAM_WINDOW_BYTES } from './open-streams.js';
import { Output, settingsOf } from './output.js';
import { areTrailers } from './request-head.js';
import type { RunQueue } from './run-queue.js';
import type { Stream, StreamSink } from './stream.js';

/** The application that handles the requests. */
export interface Application<Head> extends HeadMaker<Head> {
  /**
   * A request has begun; the returned sink receives the rest. It may start later, by `resume`, after a call
   * of `wake`.
   */
  open(stream: Stream, head: Head): StreamSink;
  /**
   * How often services were given something to do so far; its cost shows only after they had time to do it.
   */
  readonly steps: number;
  /**
   * Handles waiting requests: ends one whose deadline has passed, or begins one; returns false if there is
   * none.
   */
  resume(): boolean;
  /** Resumes a request that has yielded; returns false if there is none. */
  goOn(): boolean;
}

export interface ConnectionOptions {
  readonly streamsMax: number;
  /** Limit on the bytes of a request's headers, counted as in HTTP/2. */
  readonly headerBytesMax: number;
  /** A peer that is silent for this long is pinged, and disconnected if it stays silent for as long again. */
  readonly keepaliveMs: number;
  /** The peer, which its time and memory are charged to. */
  readonly peer: Peer;
  readonly queue: RunQueue;
  readonly memory: Account;
}

/** Encoded headers are smaller than their counted size, except with codes that no encoder uses. */
const BLOCK_FACTOR = 4;
/** Frames without effect: empty ones, priorities, settings, unknown types. */
const IDLE_FRAMES = { burst: 10_000, perSecond: 1000 };
/** How long a peer has to read the reason before it is disconnected. */
const LAST_WORDS_MS = 1000;

export class Connection<Head> {
  readonly #line: Line;
  readonly #socket: Socket;
  readonly #application: Application<Head>;
  readonly #options: ConnectionOptions;
  readonly #reader: FrameReader;
  readonly #inbox: Inbox;
  readonly #output: Output;
  readonly #headerReader: HeaderReader<Head>;
  readonly #streams: OpenStreams;
  readonly #idleFrames = new Bucket(IDLE_FRAMES.burst, IDLE_FRAMES.perSecond);
  readonly #blocks: HeaderBlocks;
  #greeted = false;
  /**
   * The DATA frame being read: its stream, unless its content is not wanted, and the bytes that are missing.
   */
  #dataStream: Stream | undefined;
  #dataBytes = 0;
  #dataFlags = 0;
  #leaving = false;
  /** Whether open streams are to be ended; whether the socket is closed; whether both are complete. */
  #givenUp = false;
  #closed = false;
  #over = false;
  /** When something was last received, on the monotonic clock. */
  heardAt = performance.now();
  #askedAt = 0;
  readonly #keepalive: NodeJS.Timeout;
  readonly #onClose: (reason: string | undefined) => void;
  /** Why this side ends the connection. */
  #reason: string | undefined;

  constructor(
    line: Line,
    application: Application<Head>,
    options: ConnectionOptions,
    onClose: (reason: string | undefined) => void,
  ) {
    const { socket } = line;
    this.#line = line;
    this.#socket = socket;
    this.#application = application;
    this.#options = options;
    this.#onClose = onClose;
    this.#blocks = new HeaderBlocks(options.headerBytesMax * BLOCK_FACTOR, options.memory);
    this.#headerReader = new HeaderReader(options.headerBytesMax, application);
    this.#output = new Output(socket, options.memory, {
      flushes: () => this.#inbox.working,
      drained: () => this.#streams.pump(),
      overrun: () => this.#cutOff('responses to its frames are not read'),
    });
    this.#streams = new OpenStreams(this.#output, new HeaderEncoder(), () => this.#endIfIdle());
    this.#reader = new FrameReader(this.#frames());
    this.#inbox = new Inbox(socket, options.peer, options.queue, options.memory, {
      unread: () => {
        if (hasHungUp(descriptorOf(socket))) this.destroy();
      },
      push: (chunk, from) => this.#reader.push(chunk, from),
      resume: () => this.#endNext() || application.resume(),
      goOn: () => application.goOn(),
      steps: () => application.steps,
      rest: () => {
        this.#streams.sendMore();
        this.#output.flush();
        this.#endIfOver();
      },
      failed: (error) => this.#fail(error),
    });
    line.receive = this.#take;
    socket.once('end', () => this.destroy());
    socket.once('close', () => this.#ended());
    this.#keepalive = setInterval(() => this.#askForLife(), options.keepaliveMs);
    this.#keepalive.unref();
    this.#output.settings(
      settingsOf({
        streams: options.streamsMax,
        windowBytes: STREAM_WINDOW_BYTES,
        headerBytes: options.headerBytesMax,
      }),
    );
    this.#streams.announce();
    socket.resume();
  }

  /** Refuses new requests; the connection ends when the open ones have finished. */
  shutdown(): void {
    if (this.#leaving || this.#closed) return;
    this.#leaving = true;
    this.#output.goAway(this.#streams.past.lastId, ErrorCode.noError);
    this.#endIfIdle();
  }

  /** Announces that it accepts no more requests, and ends; open ones are aborted. */
  leave(): void {
    this.shutdown();
    this.#giveUp();
    this.#hangUp();
    this.#destroyLater();
  }

  /** Closes the connection immediately. */
  destroy(): void {
    this.#socket.destroy();
    this.#ended();
  }

  #cutOff(reason: string): void {
    this.#reason ??= reason;
    this.#socket.destroy();
  }

  /** The number of open streams. */
  get streams(): number {
    return this.#streams.size;
  }

  /** Whether content went in or out since the last call. */
  moved(): boolean {
    const moved = this.#output.moved;
    this.#output.moved = false;
    return moved;
  }

  /** Ends the connection, because it keeps memory that others need. */
  overrun(): void {
    this.#fail(tooMuch('unread responses, or requests that do not end'));
  }

  /** Waiting requests may begin. */
  wake(): void {
    this.#inbox.wake();
  }

  readonly #take = (chunk: Buffer): void => {
    this.heardAt = performance.now();
    this.#inbox.take(chunk);
  };

  /** The peer made an error that cannot be recovered from: sends the reason, and ends. */
  #fail(error: unknown): void {
    const { code, message } =
      error instanceof ConnectionError ? error : new ConnectionError(ErrorCode.internalError, 'internal');
    this.#reason = error instanceof ConnectionError ? message : `internal error: ${String(error)}`;
    this.#line.ignore();
    this.#output.goAway(this.#streams.past.lastId, code, message);
    this.#output.flush();
    this.#giveUp();
    this.#leaving = true;
    this.#hangUp();
    this.#destroyLater();
  }

  #destroyLater(): void {
    setTimeout(() => this.#socket.destroy(), LAST_WORDS_MS).unref();
  }

  /** Ends the socket when the system has accepted what was written. */
  #hangUp(): void {
    const { destroyed, writableEnded } = this.#socket;
    if (destroyed || writableEnded) return;
    this.#output.flush();
    this.#socket.end(() => this.#socket.destroy());
  }

  #ended(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#keepalive);
    this.#line.ignore();
    this.#blocks.close();
    this.#giveUp();
    this.#endIfOver();
  }

  /** Open streams are aborted in the connection's slices: a thousand services that end have much to do. */
  #giveUp(): void {
    this.#givenUp = true;
    this.#inbox.stopReading();
  }

  /** Aborts one stream of a connection that is ending; returns false if there is none. */
  #endNext(): boolean {
    const stream = this.#givenUp ? this.#streams.first : undefined;
    stream?.gone();
    return stream !== undefined;
  }

  /** Ends when the socket is closed and no stream is open. */
  #endIfOver(): void {
    if (!this.#closed || this.#over || this.#streams.size > 0) return;
    this.#over = true;
    this.#inbox.close();
    this.#output.flush();
    this.#output.close();
    this.#onClose(this.#reason);
  }

  #endIfIdle(): void {
    if (this.#leaving && this.#streams.size === 0) this.#hangUp();
  }

  #askForLife(): void {
    if (this.heardAt < this.#askedAt) {
      this.#cutOff('no sign of life');
      return;
    }
    this.#askedAt = performance.now();
    if (!this.#socket.writableEnded) this.#output.ping(Buffer.alloc(8), 0);
  }

  // ------------------------------------------------------------------------------------------------- frames

  #frames(): FrameSink {
    return {
      frame: (type, flags, id, payload) => this.#frame(type, flags, id, payload),
      dataBegins: (id, bytes, flags) => this.#dataBegins(id, bytes, flags),
      dataChunk: (chunk) => {
        this.#dataBytes -= chunk.length;
        this.#output.moved = true;
        const stream = this.#dataStream;
        if (stream !== undefined && !stream.over) {
          stream.receive(chunk, this.#dataBytes === 0 && (this.#dataFlags & Flag.endStream) !== 0);
        }
      },
      enough: (bytes) => this.#inbox.enough(bytes),
      dataEnds: () => this.#dataEnds(),
    };
  }

  #frame(type: number, flags: number, id: number, payload: Buffer): void {
    if (!this.#greeted) {
      if (type !== FrameType.settings || flags & Flag.ack) throw broken('no settings after the preface');
      this.#greeted = true;
    }
    const { openStream } = this.#blocks;
    if (openStream !== undefined && (type !== FrameType.continuation || id !== openStream)) {
      throw broken('a frame inside a header block');
    }
    if (type === FrameType.headers) this.#request(this.#blocks.headers(flags, id, payload));
    else if (type === FrameType.windowUpdate) this.#streams.widen(id, payload);
    else if (type === FrameType.ping) this.#ping(flags, id, payload);
    else if (type === FrameType.reset) this.#reset(id, payload);
    else if (type === FrameType.continuation) this.#continuation(flags, payload);
    else if (type === FrameType.settings) this.#settings(flags, id, payload);
    else if (type === FrameType.goAway) this.#goAway(id, payload);
    else if (type === FrameType.priority) this.#priority(id, payload);
    else if (type === FrameType.pushPromise) throw broken('a push by a client');
    else this.#idle();
  }

  #idle(): void {
    if (!this.#idleFrames.take()) throw tooMuch('frames without effect');
  }

  #dataBegins(id: number, bytes: number, flags: number): void {
    if (!this.#greeted || this.#blocks.openStream !== undefined || id === 0)
      throw broken('a frame out of place');
    this.#dataBytes = bytes;
    this.#dataFlags = flags;
    this.#dataStream = undefined;
    if (bytes === 0 && (flags & Flag.endStream) === 0) this.#idle();
    this.#streams.receive(bytes);
    const stream = this.#streams.of(id);
    if (stream === undefined) {
      this.#streams.giveBack(bytes);
      if (!this.#streams.past.ended(id)) this.#streams.refuse(id, ErrorCode.streamClosed);
    } else if (!stream.admit(bytes)) stream.abort(ErrorCode.flowControlError);
    else if (stream.remoteEnded) stream.abort(ErrorCode.streamClosed);
    else this.#dataStream = stream;
  }

  #dataEnds(): void {
    const stream = this.#dataStream;
    this.#dataStream = undefined;
    if (stream === undefined || stream.over) return;
    // The rest is padding.
    if (this.#dataBytes > 0) stream.consumed(this.#dataBytes);
    if (this.#dataFlags & Flag.endStream) stream.endRemote();
  }

  #continuation(flags: number, payload: Buffer): void {
    if (payload.length === 0) this.#idle();
    this.#request(this.#blocks.continuation(flags, payload));
  }

  #request(block: HeaderBlock | undefined): void {
    if (block === undefined) return;
    const { streamId: id, endStream, bytes } = block;
    const open = this.#streams.get(id);
    if (open !== undefined) {
      this.#trailers(open, bytes, endStream);
      return;
    }
    const { head, contentLength } = this.#headerReader.request(bytes);
    const { past } = this.#streams;
    if (id <= past.lastId) {
      if (past.ended(id)) return;
      if (past.passedOver(id)) {
        throw broken('headers on a skipped stream');
      }
      throw new ConnectionError(ErrorCode.streamClosed, 'headers on a closed stream');
    }
    past.begin(id);
    if (this.#leaving || this.#streams.size >= this.#options.streamsMax) {
      this.#streams.refuse(id, ErrorCode.refusedStream);
      return;
    }
    if (head === undefined) {
      this.#streams.refuse(id, ErrorCode.protocolError);
      return;
    }
    const stream = this.#streams.begin(id);
    stream.announce(contentLength);
    stream.sink = this.#application.open(stream, head);
    if (endStream && !stream.over) stream.endRemote();
  }

  #trailers(stream: Stream, block: Buffer, endStream: boolean): void {
    const fields = this.#headerReader.trailers(block);
    if (stream.remoteEnded) stream.abort(ErrorCode.streamClosed);
    else if (!endStream || !areTrailers(fields)) stream.abort(ErrorCode.protocolError);
    else stream.endRemote();
  }

  #ping(flags: number, id: number, payload: Buffer): void {
    if (id !== 0) throw broken('a ping on a stream');
    if (payload.length !== 8) throw sized('ping');
    if ((flags & Flag.ack) === 0) this.#output.ping(payload, Flag.ack);
  }

  #reset(id: number, payload: Buffer): void {
    if (payload.length !== 4) throw sized('reset');
    this.#streams.of(id)?.gone();
    this.#streams.past.forget(id);
  }

  #settings(flags: number, id: number, payload: Buffer): void {
    if (id !== 0) throw broken('settings of a stream');
    if (flags & Flag.ack) {
      if (payload.length > 0) throw sized('settings');
      return;
    }
    this.#idle();
    this.#streams.apply(payload);
  }

  #goAway(id: number, payload: Buffer): void {
    if (id !== 0) throw broken('a goaway of a stream');
    if (payload.length < 8) throw sized('goaway');
    this.shutdown();
  }

  #priority(id: number, payload: Buffer): void {
    if (id === 0) throw broken('a priority of the connection');
    this.#idle();
    if (payload.length === 5) return;
    const stream = this.#streams.get(id);
    if (stream !== undefined) stream.abort(ErrorCode.frameSizeError);
    else throw sized('priority');
  }
}
