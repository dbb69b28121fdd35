/**
 * Assembles header blocks from HEADERS and CONTINUATION frames (RFC 9113, section 4.3), up to a limit. Called
 * by connection.ts.
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
  /** The parts so far, in a buffer with room for more: a part may be a single byte. */
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

  /** The stream whose block is incomplete. */
  get openStream(): number | undefined {
    return this.#open?.streamId;
  }

  /** Returns the block once it is complete. */
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

  /** The same. An empty part that is not the last has no effect; the caller counts those. */
  continuation(flags: number, payload: Buffer): HeaderBlock | undefined {
    const open = this.#open;
    if (open === undefined) throw broken('a continuation without headers');
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
    if (bytes > this.#bytesMax) throw tooMuch('header bytes');
    if (bytes > open.buffer.length) this.#grow(open, bytes);
    part.copy(open.buffer, open.bytes);
    open.bytes = bytes;
  }

  #grow(open: Open, bytes: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.min(this.#bytesMax, Math.max(2 * bytes, FIRST_BYTES)));
    // Forced, because it is bounded, and a missing block would end the connection.
    this.#memory.force(larger.length - open.buffer.length);
    open.buffer.copy(larger, 0, 0, open.bytes);
    open.buffer = larger;
  }
}
