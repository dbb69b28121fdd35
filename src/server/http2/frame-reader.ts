/**
 * Cuts what arrives on a connection into frames (RFC 9113, section 4). The content of DATA frames is handed on piece
 * by piece as it comes, as views of what was read; all other frames are handed on whole. Pure but for its state.
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
  /** A frame that is not DATA, whole. The payload is a view and may be kept. */
  frame(type: number, flags: number, streamId: number, payload: Buffer): void;
  /** A DATA frame begins; its content follows. */
  dataBegins(streamId: number, bytes: number, flags: number): void;
  dataPiece(piece: Buffer): void;
  dataEnds(): void;
  /** Asked after each frame, or what is there of one: whether to stop after these bytes for now. */
  enough(bytes: number): boolean;
}

const EMPTY = Buffer.alloc(0);

export class FrameReader {
  readonly #sink: FrameSink;
  #prefaceLeft = PREFACE.length;
  /** What is there of a frame that is to be handed on whole, its head included. */
  #partial: Buffer = EMPTY;
  /** Bytes that are missing from a DATA frame. */
  #dataLeft = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /**
   * Takes what is in a chunk from a place on; answers where it stopped, which is the end unless the sink has enough. A
   * ConnectionError, from here or from the sink, is the end: nothing may be pushed after it.
   */
  push(chunk: Buffer, from = 0): number {
    let at = this.#prefaceLeft > 0 ? this.#preface(chunk) : from;
    while (at < chunk.length) {
      const start = at;
      if (this.#dataLeft > 0) {
        const end = Math.min(chunk.length, at + this.#dataLeft);
        this.#dataLeft -= end - at;
        this.#sink.dataPiece(at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end));
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

  /** Adds to a frame that began in an earlier chunk. */
  #complete(chunk: Buffer, at: number): number {
    const held = this.#partial;
    const wanted = held.length < FRAME_HEAD_BYTES ? FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + lengthAt(held, 0);
    const end = Math.min(chunk.length, at + wanted - held.length);
    const grown = Buffer.concat([held, chunk.subarray(at, end)]);
    this.#partial = EMPTY;
    // Keeps what is still not whole.
    this.#frameAt(grown, 0);
    return end;
  }

  /** Takes the frame at `at`, or keeps what is there of it; answers where the next one is. */
  #frameAt(chunk: Buffer, at: number): number {
    if (chunk.length - at < FRAME_HEAD_BYTES) {
      this.#partial = chunk.subarray(at);
      return chunk.length;
    }
    const length = lengthAt(chunk, at);
    if (length > FRAME_BYTES) {
      throw new ConnectionError(ErrorCode.frameSizeError, 'a frame over the limit');
    }
    const type = chunk[at + 3]!;
    const flags = chunk[at + 4]!;
    const streamId = chunk.readUInt32BE(at + 5) & 0x7fffffff;
    const start = at + FRAME_HEAD_BYTES;
    // Padding is known at the frame's start and cut off at its end, so such a frame is waited for.
    if (type === FrameType.data && (flags & Flag.padded) === 0) {
      this.#sink.dataBegins(streamId, length, flags);
      this.#dataLeft = length;
      if (length === 0) this.#sink.dataEnds();
      return start;
    }
    const end = start + length;
    if (end > chunk.length) {
      this.#partial = chunk.subarray(at);
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
    if (content.length > 0) this.#sink.dataPiece(content);
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

const lengthAt = (bytes: Buffer, at: number): number =>
  bytes[at]! * 0x10000 + bytes[at + 1]! * 0x100 + bytes[at + 2]!;
