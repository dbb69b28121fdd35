/**
 * The open streams of a connection, and the windows that they share (RFC 9113, sections 5.1 and 5.2): which ids may have frames,
 * how much either side may send, and which of them send next. Called by connection.ts.
 */
import { broken, ConnectionError, ErrorCode, sized, WINDOW_BYTES, WINDOW_BYTES_MAX } from './constants.js';
import type { HeaderEncoder } from './header-encoder.js';
import type { Output } from './output.js';
import { PastStreams } from './past-streams.js';
import { overflowing, PeerSettings } from './peer-settings.js';
import { Stream, type StreamHost } from './stream.js';

/** Bytes in flight of one call, and of all calls of a connection. */
export const STREAM_WINDOW_BYTES = 4 * 2 ** 20;
const CONNECTION_WINDOW_BYTES = 16 * 2 ** 20;
const GIVE_BACK_BYTES = CONNECTION_WINDOW_BYTES / 4;
/** Bytes a stream sends before the next one continues. */
const TURN_BYTES = 64 * 1024;

export class OpenStreams {
  readonly past = new PastStreams();
  readonly #output: Output;
  readonly #encoder: HeaderEncoder;
  readonly #host: StreamHost;
  readonly #open = new Map<number, Stream>();
  readonly #waiting = new Set<Stream>();
  readonly #peer = new PeerSettings();
  #receiveWindow = CONNECTION_WINDOW_BYTES;
  #giveBackBytes = 0;
  /** Whether a window has grown: streams are checked once for all frames that were read together. */
  #widened = false;

  /** `ended`: called when a stream is not open any more. */
  constructor(output: Output, encoder: HeaderEncoder, ended: () => void) {
    this.#output = output;
    this.#encoder = encoder;
    const peer = this.#peer;
    this.#host = {
      output,
      encoder,
      sendWindow: WINDOW_BYTES,
      get firstWindow() {
        return peer.firstWindow;
      },
      get frameBytes() {
        return peer.frameBytes;
      },
      giveBack: (bytes) => this.giveBack(bytes),
      waits: (stream) => this.#waiting.add(stream),
      over: (stream, reset) => {
        this.#open.delete(stream.id);
        this.#waiting.delete(stream);
        if (reset) this.past.end(stream.id);
        ended();
      },
    };
  }

  /** Makes the peer's window of the connection as large as this side's. */
  announce(): void {
    this.#output.windowUpdate(0, CONNECTION_WINDOW_BYTES - WINDOW_BYTES);
  }

  get size(): number {
    return this.#open.size;
  }

  /** Any of them. */
  get first(): Stream | undefined {
    for (const stream of this.#open.values()) return stream;
    return undefined;
  }

  get(id: number): Stream | undefined {
    return this.#open.get(id);
  }

  /** The stream of a frame, if it still exists; a frame of a stream that never began is a protocol error. */
  of(id: number): Stream | undefined {
    const stream = this.#open.get(id);
    if (stream === undefined && (id % 2 === 0 || id > this.past.lastId)) {
      throw broken('a frame of a stream that never began');
    }
    return stream;
  }

  /** REQUIRES: `past` knows that it begins. */
  begin(id: number): Stream {
    const stream = new Stream(id, this.#host, STREAM_WINDOW_BYTES);
    this.#open.set(id, stream);
    return stream;
  }

  refuse(id: number, code: number): void {
    this.#output.reset(id, code);
    this.past.end(id);
  }

  /** Content arrives. */
  receive(bytes: number): void {
    this.#receiveWindow -= bytes;
    if (this.#receiveWindow < 0) {
      throw new ConnectionError(ErrorCode.flowControlError, 'more than the window of the connection');
    }
  }

  giveBack(bytes: number): void {
    this.#giveBackBytes += bytes;
    if (this.#giveBackBytes < GIVE_BACK_BYTES) return;
    this.#output.windowUpdate(0, this.#giveBackBytes);
    this.#receiveWindow += this.#giveBackBytes;
    this.#giveBackBytes = 0;
  }

  /** Lets streams send for which a window has grown. */
  sendMore(): void {
    if (this.#widened) this.pump();
  }

  /** Lets the waiting streams send, round robin, until nothing more can be sent. */
  pump(): void {
    this.#widened = false;
    for (let moved = true; moved; ) {
      moved = false;
      for (const stream of [...this.#waiting]) {
        const before = this.#output.room;
        if (before <= 0) return;
        if (stream.pump(TURN_BYTES)) this.#waiting.delete(stream);
        moved ||= this.#output.room < before;
      }
    }
  }

  /** A WINDOW_UPDATE frame. */
  widen(id: number, payload: Buffer): void {
    if (payload.length !== 4) throw sized('window update');
    const bytes = payload.readUInt32BE(0) & WINDOW_BYTES_MAX;
    if (id === 0) {
      if (bytes === 0) throw broken('a window update of 0 bytes');
      this.#host.sendWindow += bytes;
      if (this.#host.sendWindow > WINDOW_BYTES_MAX) throw overflowing();
      this.#widened = true;
      return;
    }
    const stream = this.of(id);
    if (stream === undefined) return;
    if (bytes === 0) stream.abort(ErrorCode.protocolError);
    else if (!stream.widen(bytes)) stream.abort(ErrorCode.flowControlError);
    else {
      this.#peer.widened(stream);
      if (stream.waiting) this.#widened = true;
    }
  }

  /** The entries of a SETTINGS frame. */
  apply(payload: Buffer): void {
    this.#peer.apply(payload, this.#open.values(), (bytes) => this.#encoder.limitTable(bytes));
    this.#output.settingsAck();
    this.#widened = true;
  }
}
