/** Numbers of HTTP/2 (RFC 9113, sections 6, 7 and 11). */

export const FrameType = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const Flag = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

export const Setting = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const;

export const ErrorCode = {
  noError: 0,
  protocolError: 1,
  internalError: 2,
  flowControlError: 3,
  streamClosed: 5,
  frameSizeError: 6,
  refusedStream: 7,
  cancel: 8,
  compressionError: 9,
  enhanceYourCalm: 11,
} as const;

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
export const FRAME_HEAD_BYTES = 9;
/** The largest frame until a peer announces another size; this server never does. */
export const FRAME_BYTES = 16_384;
export const FRAME_BYTES_MAX = 2 ** 24 - 1;
export const WINDOW_BYTES = 65_535;
export const WINDOW_BYTES_MAX = 2 ** 31 - 1;
export const TABLE_BYTES = 4096;

/**
 * The whole connection ends: sent as GOAWAY with this code; logged and counted by its message, of which there
 * are few.
 */
export class ConnectionError extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** A protocol error; a frame of the wrong size; excessive load. */
export const broken = (how: string): ConnectionError => new ConnectionError(ErrorCode.protocolError, how);
export const sized = (what: string): ConnectionError =>
  new ConnectionError(ErrorCode.frameSizeError, `a ${what} of a wrong size`);
export const tooMuch = (what: string): ConnectionError =>
  new ConnectionError(ErrorCode.enhanceYourCalm, `too many ${what}`);
