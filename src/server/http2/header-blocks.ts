/**
 * Header blocks out of HEADERS and CONTINUATION frames (RFC 9113, section 4.3): put together when they come in parts, up
 * to a bound. Called by connection.ts.
 */
import type { Account } from '../connections/ledger.js';
import { broken, Flag, sized, tooMuch } from './constants.js';
import { unpadded } from './frame-reader.js';

export interface HeaderBlock {
  readonly streamId: number;
  readonly endStream: boolean;
  readonly bytes: Buffer;
}

interface Open {
  readonly streamId: number;
  readonly endStream: boolean;
  /** What has come of it, in a buffer with room for more: parts may be of a byte each. */
  buffer: Buffer;
  bytes: number;
}

const PRIORITY_BYTES = 5;
const FIRST_BYTES = 1024;
const EMPTY = Buffer.alloc(0);

export class HeaderBlocks {
  readonly #bytesMax: number;
  readonly #memory: Account;
  #open: Open | undefined;

  constructor(bytesMax: number, memory: Account) {
    this.#bytesMax = bytesMax;
    this.#memory = memory;
  }

  /** The stream whose block is not whole yet. */
  get openStream(): number | undefined {
    return this.#open?.streamId;
  }

  /** The block, when it is whole. */
  headers(flags: number, streamId: number, payload: Buffer): HeaderBlock | undefined {
    if (streamId % 2 === 0) throw broken('headers on a stream of the server');
    let bytes = flags & Flag.padded ? unpadded(payload) : payload;
    if (flags & Flag.priority) {
      if (bytes.length < PRIORITY_BYTES) throw sized('headers frame');
      bytes = bytes.subarray(PRIORITY_BYTES);
    }
    const endStream = (flags & Flag.endStream) !== 0;
    if (flags & Flag.endHeaders) return { streamId, endStream, bytes };
    this.#open = { streamId, endStream, buffer: EMPTY, bytes: 0 };
    this.#add(this.#open, bytes);
    return undefined;
  }

  /** The same. An empty part that is not the last says nothing, which is the caller's to count. */
  continuation(flags: number, payload: Buffer): HeaderBlock | undefined {
    const open = this.#open;
    if (open === undefined) throw broken('a continuation of nothing');
    this.#add(open, payload);
    if ((flags & Flag.endHeaders) === 0) return undefined;
    const { streamId, endStream, buffer, bytes } = open;
    this.close();
    return { streamId, endStream, bytes: buffer.subarray(0, bytes) };
  }

  close(): void {
    this.#memory.give(this.#open?.buffer.length ?? 0);
    this.#open = undefined;
  }

  #add(open: Open, part: Buffer): void {
    if (part.length === 0) return;
    const bytes = open.bytes + part.length;
    if (bytes > this.#bytesMax) throw tooMuch('headers without end');
    if (bytes > open.buffer.length) this.#grow(open, bytes);
    part.copy(open.buffer, open.bytes);
    open.bytes = bytes;
  }

  #grow(open: Open, bytes: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.min(this.#bytesMax, Math.max(2 * bytes, FIRST_BYTES)));
    // Forced: it is bounded, and a block that is left out would be the end of the connection.
    this.#memory.force(larger.length - open.buffer.length);
    open.buffer.copy(larger, 0, 0, open.bytes);
    open.buffer = larger;
  }
}
