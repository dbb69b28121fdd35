/**
 * Splits a request's content into messages: each has a byte that says whether it is compressed, and four
 * bytes of length. A message is a copy: the chunk it arrives in is only valid until `push` returns. What is kept is
 * charged to the connection's account.
 */
import type { Account } from '../connections/ledger.js';
import { resourceExhausted } from '../status.js';
import { PREFIX_BYTES } from './prefix.js';

/** A message up to this size gets its memory as soon as some of it has arrived, a larger one as more and more of it arrives. */
const AT_ONCE_BYTES = 2 * 2 ** 20;
/** Waiting messages below this size get memory of their own. */
const SMALL_BYTES = 8 * 1024;

export interface IncomingMessage {
  readonly bytes: Buffer;
  readonly compressed: boolean;
  /** Bytes of it not yet returned to the sender's window. */
  readonly unreturned: number;
  /** Bytes taken from the account for it; the receiver of the message gives them back. */
  readonly taken: number;
}

/** What a message takes in addition to its bytes. */
const MESSAGE_BYTES = 256;
const EMPTY = Buffer.alloc(0);

export class MessageReader {
  readonly #bytesMax: number;
  readonly #memory: Account;
  #prefix = Buffer.alloc(0);
  /** The message being assembled, of which so many bytes have arrived. */
  #buffer: Buffer = EMPTY;
  #have = 0;
  /** Length of the message being assembled; -1 if its prefix is not complete. */
  #wanted = -1;
  #compressed = false;

  constructor(bytesMax: number, memory: Account) {
    this.#bytesMax = bytesMax;
    this.#memory = memory;
  }

  /** Whether a part of a message has arrived. */
  get partial(): boolean {
    return this.#wanted >= 0 || this.#prefix.length > 0;
  }

  /**
   * Adds a chunk; complete messages go to `out`. Returns the number of bytes that can be returned to the
   * sender's window at once. ResourceExhausted when a message exceeds the limit.
   */
  push(chunk: Buffer, out: IncomingMessage[]): number {
    let at = 0;
    let since = 0;
    while (at < chunk.length || this.#wanted === 0) {
      if (this.#wanted < 0) {
        at = this.#readPrefix(chunk, at);
        if (this.#wanted < 0) break;
      }
      const end = Math.min(chunk.length, at + this.#wanted - this.#have);
      const part = at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end);
      at = end;
      if (this.#have + part.length < this.#wanted) {
        this.#keep(part);
        break;
      }
      out.push(this.#whole(part, at - since));
      since = at;
    }
    return chunk.length - since;
  }

  #take(bytes: number): void {
    if (this.#memory.take(bytes)) return;
    throw resourceExhausted('the connection has too much under way');
  }

  /** Drops the incomplete message. */
  clear(): void {
    this.#memory.give(this.#buffer.length);
    this.#forget();
  }

  #forget(): void {
    this.#have = 0;
    this.#buffer = EMPTY;
    this.#wanted = -1;
  }

  #readPrefix(chunk: Buffer, at: number): number {
    let bytes = chunk;
    let from = at;
    let end = at + PREFIX_BYTES;
    if (this.#prefix.length > 0 || end > chunk.length) {
      end = Math.min(chunk.length, at + PREFIX_BYTES - this.#prefix.length);
      this.#prefix = Buffer.concat([this.#prefix, chunk.subarray(at, end)]);
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
    const have = this.#have + part.length;
    if (have > this.#buffer.length) this.#grow(Math.min(this.#wanted, Math.max(AT_ONCE_BYTES, 2 * have)));
    part.copy(this.#buffer, this.#have);
    this.#have = have;
  }

  #grow(bytes: number): void {
    this.#take(bytes - this.#buffer.length);
    const larger = Buffer.allocUnsafeSlow(bytes);
    this.#buffer.copy(larger, 0, 0, this.#have);
    this.#buffer = larger;
  }

  #whole(part: Buffer, unreturned: number): IncomingMessage {
    const taken = MESSAGE_BYTES + this.#wanted;
    let bytes: Buffer;
    if (this.#have === 0) {
      this.#take(taken);
      bytes = Buffer.from(part);
    } else {
      this.#keep(part);
      this.#take(MESSAGE_BYTES);
      bytes = this.#buffer;
    }
    this.#forget();
    return { bytes, compressed: this.#compressed, unreturned, taken };
  }
}

/** Bytes that have to wait are copied: a small view would keep the whole buffer it was read into. */
export function kept(bytes: Uint8Array): Buffer {
  if (bytes.length === 0) return EMPTY;
  if (bytes.length >= SMALL_BYTES) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

export const tooLarge = (how: string, bytes: number, bytesMax: number): Error =>
  resourceExhausted(`${how} message larger than max (${bytes} vs. ${bytesMax})`);
