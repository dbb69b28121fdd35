/** The interface between zstd.ts and its block decoders. */
import { type EbbtideError, invalidArgument } from '../../../errors.js';

/** Blocks of one frame; the frame's header precedes the first ones, its checksum follows the last ones. */
export interface Blocks {
  bytes: Uint8Array;
  /** Upper bound on their decompressed size. */
  maxBytes: number;
  first: boolean;
  last: boolean;
}

/** Decodes the blocks of one stream, in order. */
export interface BlockDecoder {
  /**
   * Returns their decompressed bytes, which belong to the caller. May be called before the previous call has
   * resolved.
   */
  decode(blocks: Blocks): Promise<Uint8Array>;
  close(): Promise<void>;
}

export const damaged = (what: string, cause?: unknown): EbbtideError =>
  invalidArgument(`damaged zstd data: ${what}`, { cause, remedy: 'fetch or build the archive again' });
