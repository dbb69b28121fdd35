/**
 * The buffer that messages are encoded into, and the primitives: tags, numbers, strings, nested messages.
 * Called by encoder.ts for every message of the definitions, and by hand-written encoders.
 *
 * All encoding happens inside `written`, which is not reentrant; nothing here awaits.
 */

const FIRST_BYTES = 64 * 1024;
/** A buffer that a large message has grown beyond this is given to the caller instead of being kept. */
const KEPT_BYTES_MAX = 1024 * 1024;
const VARINT_BYTES_MAX = 10;
/** Strings up to this length are copied here; longer ones are worth a call into the runtime. */
const SHORT_STRING = 32;

export const Wire = { varint: 0, fixed64: 1, bytes: 2 } as const;

export const tagOf = (id: number, wire: number): number => id * 8 + wire;

let buffer = Buffer.allocUnsafe(FIRST_BYTES);
let at = 0;

/** Where the message being encoded becomes too large. */
let atMax = Number.POSITIVE_INFINITY;

/** A message is larger than its limit; what was encoded of it is discarded. */
export class MessageTooLarge extends Error {
  constructor() {
    super('the message is larger than it may be');
  }
}

/**
 * What `write` encodes, after the given number of free bytes; the result belongs to the caller. Reserves room
 * for `expected` bytes. Throws MessageTooLarge instead of encoding much more than `bytesMax` bytes.
 */
export function written(
  freeBytes: number,
  write: () => void,
  expected = 0,
  bytesMax = Number.POSITIVE_INFINITY,
): Buffer {
  if (expected > buffer.length) buffer = Buffer.allocUnsafe(expected);
  at = freeBytes;
  atMax = freeBytes + bytesMax;
  try {
    write();
    if (at > atMax) throw new MessageTooLarge();
    return buffer.length <= KEPT_BYTES_MAX ? Buffer.from(buffer.subarray(0, at)) : buffer.subarray(0, at);
  } finally {
    if (buffer.length > KEPT_BYTES_MAX) buffer = Buffer.allocUnsafe(FIRST_BYTES);
  }
}

/**
 * How much to reserve for the next message of a kind, by the size of the last one: the default unless that
 * was large.
 */
export const expectedAfter = (bytes: number): number =>
  bytes > KEPT_BYTES_MAX ? bytes + Math.ceil(bytes / 8) : 0;

/** Makes room for this many more bytes. */
function reserve(bytes: number): void {
  if (at + bytes <= buffer.length) return;
  if (at > atMax) throw new MessageTooLarge();
  const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, at + bytes));
  buffer.copy(larger, 0, 0, at);
  buffer = larger;
}

/** The offset of the next byte, for `undoTo`. */
export const mark = (): number => at;

/** Discards what was written since a mark. */
export function undoTo(place: number): void {
  at = place;
}

/** Begins a nested message; `end` takes the result. */
export function begin(tag: number): number {
  reserve(2 * VARINT_BYTES_MAX);
  putVarint(tag);
  return at++;
}

/** Ends a nested message, whose length before it is known only now. */
export function end(start: number): void {
  const length = at - start - 1;
  at = start;
  reserve(length + VARINT_BYTES_MAX + 1);
  putLengthBefore(1, length);
}

export function putNumber(tag: number, value: number): void {
  reserve(2 * VARINT_BYTES_MAX);
  putVarint(tag);
  putVarint(value);
}

export function putDouble(tag: number, value: number): void {
  reserve(VARINT_BYTES_MAX + 8);
  putVarint(tag);
  at = buffer.writeDoubleLE(value, at);
}

export function putBytes(tag: number, bytes: Uint8Array): void {
  reserve(2 * VARINT_BYTES_MAX + bytes.length);
  putVarint(tag);
  putVarint(bytes.length);
  buffer.set(bytes, at);
  at += bytes.length;
}

export function putText(tag: number, text: string): void {
  // A character takes at most three bytes (two surrogates take four).
  reserve(2 * VARINT_BYTES_MAX + text.length * 3);
  putVarint(tag);
  if (text.length <= SHORT_STRING && putAscii(text)) return;
  const guess = varintSize(text.length);
  const size = buffer.write(text, at + guess, 'utf8');
  putLengthBefore(guess, size);
}

/** A source of UTF-8 strings. */
export interface TextSource {
  /** Upper bound on the bytes of the next string. */
  readonly textBytesMax: number;
  /** Copies the next string to an offset with that much room; returns the offset after it. */
  copyText(target: Buffer, at: number): number;
}

/** Returns the number of bytes. */
export function putTextOf(tag: number, source: TextSource): number {
  reserve(2 * VARINT_BYTES_MAX + source.textBytesMax);
  putVarint(tag);
  const size = source.copyText(buffer, at + 1) - at - 1;
  putLengthBefore(1, size);
  return size;
}

/** Returns false, with nothing written, when the string is not ASCII. */
function putAscii(text: string): boolean {
  const start = at + 1;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0x7f) return false;
    buffer[start + i] = code;
  }
  buffer[at] = text.length;
  at = start + text.length;
  return true;
}

/**
 * Writes a length before bytes that were written `guess` bytes further on, and moves them if it needs more
 * than that.
 */
function putLengthBefore(guess: number, length: number): void {
  const size = varintSize(length);
  if (size !== guess) buffer.copyWithin(at + size, at + guess, at + guess + length);
  putVarint(length);
  at += length;
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest > 0x7f; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

function putVarint(value: number): void {
  if (value < 0) {
    putNegative(value);
    return;
  }
  let rest = value;
  while (rest > 0x7f) {
    buffer[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  buffer[at++] = rest;
}

/** As a 64-bit number in two's complement; only times before 1970 are negative. */
function putNegative(value: number): void {
  let rest = BigInt.asUintN(64, BigInt(Math.trunc(value)));
  while (rest > 0x7fn) {
    buffer[at++] = Number(rest & 0x7fn) | 0x80;
    rest >>= 7n;
  }
  buffer[at++] = Number(rest);
}
