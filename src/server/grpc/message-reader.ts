/**
 * Messages out of a request's content: each has a byte that says whether it is compressed, and four of length. A
 * message that comes in one piece is a view of it, others are put together when they are whole. What is kept is taken from
 * the connection's account.
 */
import type { Account } from '../connections/ledger.js';
import { resourceExhausted } from '../status.js';
import { PREFIX_BYTES } from './prefix.js';

/** Pieces below this are gathered, so that many small ones do not take more memory than they have bytes. */
const SMALL_BYTES = 8 * 1024;
const GATHER_BYTES = 64 * 1024;

export interface IncomingMessage {
  readonly bytes: Buffer;
  readonly compressed: boolean;
  /** What the sender has not been given back for it yet. */
  readonly unreturned: number;
  /** What was taken from the account for it; the receiver of the message gives it back. */
  readonly taken: number;
}

/** What a message takes besides its bytes. */
const MESSAGE_BYTES = 256;
const EMPTY = Buffer.alloc(0);

export class MessageReader {
  readonly #bytesMax: number;
  readonly #memory: Account;
  #prefix = Buffer.alloc(0);
  #pieces: Buffer[] = [];
  /** Where small pieces are put; the last piece is a view of it. */
  #gather: Buffer | undefined;
  #gathered = 0;
  #have = 0;
  /** Of the message that is being put together; -1: its prefix is not whole. */
  #wanted = -1;
  #compressed = false;

  constructor(bytesMax: number, memory: Account) {
    this.#bytesMax = bytesMax;
    this.#memory = memory;
  }

  /** Whether part of a message is there. */
  get partial(): boolean {
    return this.#wanted >= 0 || this.#prefix.length > 0;
  }

  /**
   * Takes a piece; whole messages go to `out`. Answers how many bytes the sender may have back at once.
   * ResourceExhausted when a message is over the limit.
   */
  push(piece: Buffer, out: IncomingMessage[]): number {
    let at = 0;
    let since = 0;
    while (at < piece.length || this.#wanted === 0) {
      if (this.#wanted < 0) {
        at = this.#readPrefix(piece, at);
        if (this.#wanted < 0) break;
      }
      const end = Math.min(piece.length, at + this.#wanted - this.#have);
      const part = at === 0 && end === piece.length ? piece : piece.subarray(at, end);
      at = end;
      if (this.#have + part.length < this.#wanted) {
        this.#keep(part);
        break;
      }
      out.push(this.#whole(part, at - since));
      since = at;
    }
    return piece.length - since;
  }

  #take(bytes: number): void {
    if (this.#memory.take(bytes)) return;
    throw resourceExhausted('the connection has too much under way');
  }

  /** Lets go of what is not whole. */
  clear(): void {
    this.#memory.give(this.#have);
    this.#forget();
  }

  #forget(): void {
    this.#have = 0;
    this.#pieces = [];
    this.#gather = undefined;
    this.#wanted = -1;
  }

  #readPrefix(piece: Buffer, at: number): number {
    let bytes = piece;
    let from = at;
    let end = at + PREFIX_BYTES;
    if (this.#prefix.length > 0 || end > piece.length) {
      end = Math.min(piece.length, at + PREFIX_BYTES - this.#prefix.length);
      this.#prefix = Buffer.concat([this.#prefix, piece.subarray(at, end)]);
      if (this.#prefix.length < PREFIX_BYTES) return end;
      bytes = this.#prefix;
      from = 0;
      this.#prefix = Buffer.alloc(0);
    }
    this.#compressed = bytes[from] === 1;
    this.#wanted = bytes.readUInt32BE(from + 1);
    if (this.#wanted > this.#bytesMax) throw tooLarge('received', this.#wanted, this.#bytesMax);
    return end;
  }

  #keep(part: Buffer): void {
    this.#take(part.length);
    this.#have += part.length;
    if (part.length >= SMALL_BYTES) {
      this.#pieces.push(part);
      this.#gather = undefined;
      return;
    }
    if (this.#gather === undefined || this.#gather.length - this.#gathered < part.length) {
      this.#gather = Buffer.allocUnsafeSlow(Math.min(GATHER_BYTES, Math.max(1024, this.#have)) + part.length);
      this.#gathered = 0;
      this.#pieces.push(this.#gather.subarray(0, 0));
    }
    part.copy(this.#gather, this.#gathered);
    this.#gathered += part.length;
    this.#pieces[this.#pieces.length - 1] = this.#gather.subarray(0, this.#gathered);
  }

  #whole(part: Buffer, unreturned: number): IncomingMessage {
    this.#take(MESSAGE_BYTES + part.length);
    const taken = this.#have + MESSAGE_BYTES + part.length;
    let bytes = part;
    if (this.#pieces.length > 0) {
      this.#pieces.push(part);
      bytes = Buffer.concat(this.#pieces, this.#wanted);
    }
    this.#forget();
    return { bytes, compressed: this.#compressed, unreturned, taken };
  }
}

/** Bytes that have to wait: a small view would keep all that was read together with it. */
export function kept(bytes: Uint8Array): Buffer {
  if (bytes.length === 0) return EMPTY;
  if (bytes.length >= SMALL_BYTES) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

export const tooLarge = (how: string, bytes: number, bytesMax: number): Error =>
  resourceExhausted(`${how} message larger than max (${bytes} vs. ${bytesMax})`);
