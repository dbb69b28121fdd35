/**
 * Header blocks out of HEADERS and CONTINUATION frames (RFC 9113, section 4.3): put together when they come in parts, up
 * to a bound. Called by connection.ts.
 */
import type { Account } from '../ledger.js';
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
  readonly parts: Buffer[];
  bytes: number;
}

const PRIORITY_BYTES = 5;

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
    this.#open = { streamId, endStream, parts: [], bytes: 0 };
    this.#add(this.#open, bytes);
    return undefined;
  }

  /** The same. An empty part that is not the last says nothing, which is the caller's to count. */
  continuation(flags: number, payload: Buffer): HeaderBlock | undefined {
    const open = this.#open;
    if (open === undefined) throw broken('a continuation of nothing');
    this.#add(open, payload);
    if ((flags & Flag.endHeaders) === 0) return undefined;
    const { streamId, endStream, parts } = open;
    this.close();
    return { streamId, endStream, bytes: Buffer.concat(parts) };
  }

  close(): void {
    this.#memory.give(this.#open?.bytes ?? 0);
    this.#open = undefined;
  }

  #add(open: Open, part: Buffer): void {
    if (part.length === 0) return;
    open.bytes += part.length;
    // Forced: it is bounded, and a block that is left out would be the end of the connection.
    this.#memory.force(part.length);
    if (open.bytes > this.#bytesMax) throw tooMuch('headers without end');
    open.parts.push(part);
  }
}
