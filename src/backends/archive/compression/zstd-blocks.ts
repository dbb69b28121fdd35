/** What zstd.ts and the decoders below it exchange. */
import { type EbbtideError, invalidArgument } from '../../../errors.js';

/** Blocks of one frame; the frame's header precedes the first ones, its checksum follows the last ones. */
export interface Blocks {
  bytes: Uint8Array;
  /** They unfold to this at most. */
  maxBytes: number;
  first: boolean;
  last: boolean;
}

/** Decodes the blocks of one stream, in order. */
export interface BlockDecoder {
  /** What they unfold to, for the caller to keep. May be called before the last answer has come. */
  unfold(blocks: Blocks): Promise<Uint8Array>;
  close(): Promise<void>;
}

export const damaged = (what: string, cause?: unknown): EbbtideError =>
  invalidArgument(`damaged zstd data: ${what}`, { cause, remedy: 'fetch or build the archive again' });
