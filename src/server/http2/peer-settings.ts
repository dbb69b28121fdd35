/** The peer's limits, from its SETTINGS (RFC 9113, section 6.5.2). Called by open-streams.ts. */
import {
  broken,
  ConnectionError,
  ErrorCode,
  FRAME_BYTES,
  FRAME_BYTES_MAX,
  Setting,
  sized,
  WINDOW_BYTES,
  WINDOW_BYTES_MAX,
} from './constants.js';
import type { Stream } from './stream.js';

const ENTRY_BYTES = 6;

export class PeerSettings {
  frameBytes = FRAME_BYTES;
  /** Initial window of every stream. */
  firstWindow = WINDOW_BYTES;
  /** Upper bound on how far an open stream's window exceeds the initial one. */
  #beyondMax = 0;

  /** Applies the entries of a frame. `table` is called with the size of the peer's header table. */
  apply(payload: Buffer, streams: Iterable<Stream>, table: (bytes: number) => void): void {
    if (payload.length % ENTRY_BYTES !== 0) throw sized('settings');
    for (let at = 0; at < payload.length; at += ENTRY_BYTES) {
      const name = payload.readUInt16BE(at);
      const value = payload.readUInt32BE(at + 2);
      if (name === Setting.headerTableSize) table(value);
      else if (name === Setting.enablePush) {
        if (value > 1) throw broken('a setting that is neither 0 nor 1');
      } else if (name === Setting.initialWindowSize) this.#setWindow(value, streams);
      else if (name === Setting.maxFrameSize) {
        if (value < FRAME_BYTES || value > FRAME_BYTES_MAX) throw broken('an impossible frame size');
        this.frameBytes = value;
      }
    }
  }

  widened({ sendBeyond }: Stream): void {
    this.#beyondMax = Math.max(this.#beyondMax, sendBeyond);
  }

  #setWindow(bytes: number, streams: Iterable<Stream>): void {
    if (bytes > WINDOW_BYTES_MAX) throw overflowing();
    this.firstWindow = bytes;
    if (bytes + this.#beyondMax <= WINDOW_BYTES_MAX) return;
    // Recomputed from all streams, once for each time that one was widened a lot.
    this.#beyondMax = 0;
    for (const stream of streams) this.widened(stream);
    if (bytes + this.#beyondMax > WINDOW_BYTES_MAX) throw overflowing();
  }
}

export const overflowing = (): ConnectionError =>
  new ConnectionError(ErrorCode.flowControlError, 'a window of more than 2 GiB');
