/**
 * Splits the bytes of a connection into frames (RFC 9113, section 4). The content of DATA frames is passed on
 * chunk by chunk as it arrives; all other frames are passed on complete. All that is passed on are views, which are
 * only valid during the call. Pure, except for its state.
 */
import {
  ConnectionError,
  ErrorCode,
  Flag,
  FRAME_BYTES,
  FRAME_HEAD_BYTES,
  FrameType,
  PREFACE,
} from './constants.js';

export interface FrameSink {
  /** A complete frame that is not DATA. */
  frame(type: number, flags: number, streamId: number, payload: Buffer): void;
  /** A DATA frame begins; its content follows. */
  dataBegins(streamId: number, bytes: number, flags: number): void;
  dataChunk(chunk: Buffer): void;
  dataEnds(): void;
  /**
   * Called after each frame, or the part of one that has arrived; returns whether to stop after these bytes
   * for now.
   */
  enough(bytes: number): boolean;
}

const EMPTY = Buffer.alloc(0);

export class FrameReader {
  readonly #sink: FrameSink;
  #prefaceLeft = PREFACE.length;
  /** The part that has arrived of a frame that is passed on complete, including its head. */
  #partial: Buffer = EMPTY;
  /** Bytes that are missing from a DATA frame. */
  #dataLeft = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /**
   * Consumes a chunk from an offset on; returns the offset where it stopped, which is the end unless the sink
   * has enough. After a ConnectionError, from here or from the sink, nothing may be pushed.
   */
  push(chunk: Buffer, from = 0): number {
    let at = this.#prefaceLeft > 0 ? this.#preface(chunk) : from;
    while (at < chunk.length) {
      const start = at;
      if (this.#dataLeft > 0) {
        const end = Math.min(chunk.length, at + this.#dataLeft);
        this.#dataLeft -= end - at;
        this.#sink.dataChunk(at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end));
        at = end;
        if (this.#dataLeft === 0) this.#sink.dataEnds();
      } else if (this.#partial.length > 0) {
        at = this.#complete(chunk, at);
      } else {
        at = this.#frameAt(chunk, at);
      }
      if (this.#sink.enough(at - start)) break;
    }
    return at;
  }

  #preface(chunk: Buffer): number {
    const count = Math.min(this.#prefaceLeft, chunk.length);
    const from = PREFACE.length - this.#prefaceLeft;
    if (PREFACE.compare(chunk, 0, count, from, from + count) !== 0) {
      throw new ConnectionError(ErrorCode.protocolError, 'not HTTP/2');
    }
    this.#prefaceLeft -= count;
    return count;
  }

  /** Continues a frame that began in an earlier chunk. */
  #complete(chunk: Buffer, at: number): number {
    const partial = this.#partial;
    const wanted =
      partial.length < FRAME_HEAD_BYTES ? FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + lengthAt(partial, 0);
    const end = Math.min(chunk.length, at + wanted - partial.length);
    const grown = Buffer.concat([partial, chunk.subarray(at, end)]);
    this.#partial = grown;
    if (grown.length === wanted) {
      this.#partial = EMPTY;
      // Keeps it if it is a head only.
      this.#frameAt(grown, 0);
    }
    return end;
  }

  /** Passes on the frame at `at`, or keeps the part that has arrived; returns the offset of the next one. */
  #frameAt(chunk: Buffer, at: number): number {
    if (chunk.length - at < FRAME_HEAD_BYTES) {
      this.#partial = Buffer.from(chunk.subarray(at));
      return chunk.length;
    }
    const length = lengthAt(chunk, at);
    if (length > FRAME_BYTES) {
      throw new ConnectionError(ErrorCode.frameSizeError, 'a frame over the limit');
    }
    const type = chunk.readUInt8(at + 3);
    const flags = chunk.readUInt8(at + 4);
    const streamId = chunk.readUInt32BE(at + 5) & 0x7fffffff;
    const start = at + FRAME_HEAD_BYTES;
    // The length of padding is at the frame's start and the padding at its end, so such a frame is passed on
    // complete.
    if (type === FrameType.data && (flags & Flag.padded) === 0) {
      this.#sink.dataBegins(streamId, length, flags);
      this.#dataLeft = length;
      if (length === 0) this.#sink.dataEnds();
      return start;
    }
    const end = start + length;
    if (end > chunk.length) {
      this.#partial = Buffer.from(chunk.subarray(at));
      return chunk.length;
    }
    const payload = chunk.subarray(start, end);
    if (type === FrameType.data) this.#paddedData(streamId, flags, payload);
    else this.#sink.frame(type, flags, streamId, payload);
    return end;
  }

  #paddedData(streamId: number, flags: number, payload: Buffer): void {
    this.#sink.dataBegins(streamId, payload.length, flags);
    const content = unpadded(payload);
    if (content.length > 0) this.#sink.dataChunk(content);
    this.#sink.dataEnds();
  }
}

/** The content of a frame with the flag PADDED. */
export function unpadded(payload: Buffer): Buffer {
  const padding = payload[0];
  if (padding === undefined) throw new ConnectionError(ErrorCode.frameSizeError, 'no length of the padding');
  if (padding >= payload.length) throw new ConnectionError(ErrorCode.protocolError, 'padding beyond a frame');
  return payload.subarray(1, payload.length - padding);
}

/** REQUIRES: the head of the frame has arrived. */
const lengthAt = (bytes: Buffer, at: number): number => bytes.readUInt32BE(at) >>> 8;
