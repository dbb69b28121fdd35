/**
 * Messages out of a request's content: each has a byte that says whether it is compressed, and four of length. A
 * message that comes in one piece is a view of it, others are put together when they are whole.
 */
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
}

/** What a message takes that waits, besides its bytes, for which there are windows. */
const MESSAGE_BYTES = 128;

/** What parts of messages, and messages that wait, may take of all calls of a connection. */
export interface Budget {
  bytesLeft: number;
}

export class MessageReader {
  readonly #bytesMax: number;
  readonly #budget: Budget;
  #prefix = Buffer.alloc(0);
  #pieces: Buffer[] = [];
  /** Where small pieces are put; the last piece is a view of it. */
  #gather: Buffer | undefined;
  #gathered = 0;
  #have = 0;
  /** Of the message that is being put together; -1: its prefix is not whole. */
  #wanted = -1;
  #compressed = false;

  constructor(bytesMax: number, budget: Budget) {
    this.#bytesMax = bytesMax;
    this.#budget = budget;
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
      out.push({ bytes: this.#whole(part), compressed: this.#compressed, unreturned: at - since });
      this.#spend(MESSAGE_BYTES);
      since = at;
    }
    return piece.length - since;
  }

  /** So many messages of those that were given out have been taken. */
  taken(count: number): void {
    this.#budget.bytesLeft += count * MESSAGE_BYTES;
  }

  #spend(bytes: number): void {
    this.#budget.bytesLeft -= bytes;
    if (this.#budget.bytesLeft >= 0) return;
    throw resourceExhausted('the connection has too many messages under way');
  }

  /** Lets go of what is not whole. */
  clear(): void {
    this.#budget.bytesLeft += this.#have;
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
    this.#have += part.length;
    this.#spend(part.length);
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

  #whole(part: Buffer): Buffer {
    let bytes = part;
    if (this.#pieces.length > 0) {
      this.#pieces.push(part);
      bytes = Buffer.concat(this.#pieces, this.#wanted);
    }
    this.clear();
    return bytes;
  }
}

export const tooLarge = (how: string, bytes: number, bytesMax: number): Error =>
  resourceExhausted(`${how} message larger than max (${bytes} vs. ${bytesMax})`);
