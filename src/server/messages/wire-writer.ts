/**
 * One buffer that messages are written into, and what they are made of: tags, numbers, texts, messages within messages.
 * Called by encoder.ts for every message of the definitions, and by who writes one by hand.
 *
 * All writing happens inside `written`, which is not reentrant, and need not be: nothing here waits.
 */

const FIRST_BYTES = 64 * 1024;
/** A buffer that one large message made larger than this goes out as it is. */
const KEPT_BYTES_MAX = 1024 * 1024;
const VARINT_BYTES_MAX = 10;
/** Strings up to this many characters are copied here; longer ones are worth a call into the runtime. */
const SHORT_STRING = 32;

export const Wire = { varint: 0, fixed64: 1, bytes: 2 } as const;

export const tagOf = (id: number, wire: number): number => id * 8 + wire;

let buffer = Buffer.allocUnsafe(FIRST_BYTES);
let at = 0;

/** Where a message that is being written is known to be too large. */
let atMax = Number.POSITIVE_INFINITY;

/** A message is larger than it may be; what was written of it is gone. */
export class MessageTooLarge extends Error {
  constructor() {
    super('the message is larger than it may be');
  }
}

/**
 * What `write` writes, behind so many free bytes; the answer is the caller's to keep. `expected` bytes are made room for
 * at once. Throws MessageTooLarge instead of writing much more than `bytesMax` bytes.
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

/** What to expect of the next message of a kind by the size of the last one: nothing special unless that was large. */
export const expectedAfter = (bytes: number): number =>
  bytes > KEPT_BYTES_MAX ? bytes + Math.ceil(bytes / 8) : 0;

/** Makes room for so many more bytes. */
function reserve(bytes: number): void {
  if (at + bytes <= buffer.length) return;
  if (at > atMax) throw new MessageTooLarge();
  const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, at + bytes));
  buffer.copy(larger, 0, 0, at);
  buffer = larger;
}

/** Where the next byte goes, for `undoTo`. */
export const mark = (): number => at;

/** Takes back what was written since a mark. */
export function undoTo(place: number): void {
  at = place;
}

/** Begins a message within the message; `end` takes the answer. */
export function begin(tag: number): number {
  reserve(2 * VARINT_BYTES_MAX);
  putVarint(tag);
  return at++;
}

/** Ends a message, whose length before it is known only now. */
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
  // A character takes three bytes at most (two halves of a pair take four).
  reserve(2 * VARINT_BYTES_MAX + text.length * 3);
  putVarint(tag);
  if (text.length <= SHORT_STRING && putAscii(text)) return;
  const guess = varintSize(text.length);
  const size = buffer.write(text, at + guess, 'utf8');
  putLengthBefore(guess, size);
}

/** Who has a text as UTF-8. */
export interface TextSource {
  /** Most bytes that the next text can take. */
  readonly textBytesMax: number;
  /** Copies the next text to a place that has so many; answers where it ends. */
  copyText(target: Buffer, at: number): number;
}

/** Answers the text's bytes. */
export function putTextOf(tag: number, source: TextSource): number {
  reserve(2 * VARINT_BYTES_MAX + source.textBytesMax);
  putVarint(tag);
  const size = source.copyText(buffer, at + 1) - at - 1;
  putLengthBefore(1, size);
  return size;
}

/** False, and nothing written, when the text is not ASCII. */
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

/** Puts a length before bytes that were written `guess` bytes further on, and moves them if it takes more than that. */
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

/** As a 64-bit number in two's complement; times before 1970 are the only ones. */
function putNegative(value: number): void {
  let rest = BigInt.asUintN(64, BigInt(Math.trunc(value)));
  while (rest > 0x7fn) {
    buffer[at++] = Number(rest & 0x7fn) | 0x80;
    rest >>= 7n;
  }
  buffer[at++] = Number(rest);
}
