/**
 * Hand-written codec of the two messages that carry the bytes of blobs: the general codec would copy the
 * bytes once more and inspect every field. Field numbers are those of api/containerd/services/content.proto.
 * Pure.
 *
 * Decoded bytes are a view of the message, which has no other user; encoded messages are a view of the
 * reader's buffer.
 */
import { invalidArgument } from '../../errors.js';
import { PREFIX_BYTES } from '../grpc/prefix.js';
import type { WriteRequest } from './messages.js';

const WIRE_BYTES = 2;
const VARINT_BYTES_MAX = 10;

/** `WriteContentRequest` */
export function decodeWriteRequest(bytes: Buffer): WriteRequest {
  const request: WriteRequest = {
    action: 0,
    ref: '',
    total: 0,
    expected: '',
    offset: 0,
    data: bytes.subarray(0, 0),
    labels: undefined,
  };
  const reader = new Reader(bytes);
  while (!reader.atEnd) {
    const tag = reader.varint();
    switch (tag) {
      case 0x08:
        request.action = reader.varint();
        break;
      case 0x12:
        request.ref = reader.text();
        break;
      case 0x18:
        request.total = reader.varint();
        break;
      case 0x22:
        request.expected = reader.text();
        break;
      case 0x28:
        request.offset = reader.varint();
        break;
      case 0x32:
        request.data = reader.bytes();
        break;
      case 0x3a: {
        const [key, value] = labelOf(reader.bytes());
        request.labels ??= {};
        // Not by assignment, which would make a label named __proto__ the object's prototype.
        Object.defineProperty(request.labels, key, {
          value,
          enumerable: true,
          configurable: true,
          writable: true,
        });
        break;
      }
      default:
        reader.skip(tag);
    }
  }
  return request;
}

function labelOf(entry: Buffer): [string, string] {
  const reader = new Reader(entry);
  let key = '';
  let value = '';
  while (!reader.atEnd) {
    const tag = reader.varint();
    if (tag === 0x0a) key = reader.text();
    else if (tag === 0x12) value = reader.text();
    else reader.skip(tag);
  }
  return [key, value];
}

/** Bytes to leave free before the data of a `ReadContentResponse`, for its head. */
export const READ_HEAD_BYTES = PREFIX_BYTES + 2 * (VARINT_BYTES_MAX + 1);

/**
 * The `ReadContentResponse` whose data is in `buffer` from READ_HEAD_BYTES on, after PREFIX_BYTES free bytes:
 * a view of the buffer, so that the bytes of a blob are not copied once more.
 */
export function frameReadResponse(buffer: Buffer, offset: number, length: number): Buffer {
  const head = offset === 0 ? 0 : 1 + varintSize(offset);
  const start = READ_HEAD_BYTES - head - 1 - varintSize(length);
  let at = start;
  if (offset !== 0) {
    buffer[at++] = 0x08;
    at = putVarint(buffer, at, offset);
  }
  buffer[at++] = 0x12;
  putVarint(buffer, at, length);
  return buffer.subarray(start - PREFIX_BYTES, READ_HEAD_BYTES + length);
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest > 0x7f; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

/** REQUIRES: not negative and below 2^53. */
function putVarint(into: Buffer, start: number, value: number): number {
  let at = start;
  let rest = value;
  while (rest > 0x7f) {
    into[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  into[at++] = rest;
  return at;
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  /** As a signed 64-bit number, rounded to JavaScript's precision: the caller checks the range. */
  varint(): number {
    let low = 0;
    let high = 0;
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw malformed('ends inside a number');
      const part = byte & 0x7f;
      // Two parts of 28 and 36 bits, since JavaScript's bit operations have 32 bits.
      if (i < 4) low |= part << (7 * i);
      else high += part * 2 ** (7 * (i - 4));
      if (byte < 0x80) return signed(low, high);
    }
    throw malformed('has a number of more than 64 bits');
  }

  bytes(): Buffer {
    const length = this.varint();
    const end = this.#at + length;
    if (length < 0 || end > this.#bytes.length) throw malformed('is cut off');
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return bytes;
  }

  text(): string {
    return this.bytes().toString('utf8');
  }

  skip(tag: number): void {
    const type = tag & 7;
    if (tag < 8) throw malformed('has an impossible field number');
    if (type === 0) this.varint();
    else if (type === 1) this.#forward(8);
    else if (type === WIRE_BYTES) this.bytes();
    else if (type === 5) this.#forward(4);
    else throw malformed(`has a field of wire type ${type}`);
  }

  #forward(count: number): void {
    this.#at += count;
    if (this.#at > this.#bytes.length) throw malformed('is cut off');
  }
}

const HALF_BITS = 2 ** 28;
const SIGN = 2 ** 35;

function signed(low: number, high: number): number {
  const top = high % 2 ** 36;
  return (top >= SIGN ? top - 2 ** 36 : top) * HALF_BITS + low;
}

const malformed = (how: string): Error => invalidArgument(`malformed message: ${how}`);
