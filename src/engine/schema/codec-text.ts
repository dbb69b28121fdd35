/**
 * Texts of the record codec, over bytes.ts. Called by codec.ts; not re-entrant (one scratch buffer a thread).
 *
 * First byte of a text:
 *   00–7f  a whole word of the dictionary
 *   80–bf  a beginning of the dictionary, then the rest as a text
 *   c0–ef  0–47 bytes of UTF-8
 *   f0     length, UTF-8
 *   f1     `sha256:` + 64 hex digits, as 32 bytes         f2  sha512 (64 bytes)       f3  sha384 (48 bytes)
 *   f4     length, UTF-8, then 32 bytes: a text that ends in `sha256:` + 64 hex digits
 *   f5     length, UTF-8, then 32 bytes: a text that ends in 64 hex digits
 *   f6     length, UTF-8: a text that ends in the last component of the record's own key
 */
import { invalidArgument } from '../../errors.js';
import type { Key, StoredNode } from '../contract.js';
import { ByteReader, ByteWriter, DamagedBytes } from './bytes.js';
import { prefixWords, textWords } from './dictionary.js';
import { leaf } from './keys.js';
import { copyDigestOf } from './name-table.js';

const SHORT_MAX = 47;
const LONE_SURROGATE = /\p{Surrogate}/u;
const SHA256_TEXT = 'sha256:';
const wordCodes = new Map<string, number>(textWords.map((word, code) => [word, code]));
const WORD_LENGTH_MAX = Math.max(...textWords.map(({ length }) => length));

/** Value of each lower-case hex digit, by its code; 16 for all other units below 128. */
const NIBBLES = Uint8Array.from({ length: 128 }, (_, code) => {
  const value = '0123456789abcdef'.indexOf(String.fromCharCode(code));
  return value < 0 ? 16 : value;
});
const nibble = (unit: number): number => (unit < 128 ? NIBBLES[unit]! : 16);

/** Whether all units of a text from one place to another are lower-case hex digits. A loop, since most of what is written are digests. */
function isHex(text: string, start: number, end: number): boolean {
  for (let i = end - 1; i >= start; i--) if (nibble(text.charCodeAt(i)) === 16) return false;
  return true;
}

/** Dictionary beginnings by their first unit, longest first. */
const prefixesByUnit = new Map<number, { text: string; code: number }[]>();
prefixWords.forEach((text, code) => {
  const unit = text.charCodeAt(0);
  const list = prefixesByUnit.get(unit) ?? [];
  list.push({ text, code });
  list.sort((a, b) => b.text.length - a.text.length);
  prefixesByUnit.set(unit, list);
});

/** As `endsWith`, which is a call into the runtime: mostly the last unit decides. */
function endsIn(text: string, end: string): boolean {
  const more = text.length - end.length;
  if (more < 0 || text.charCodeAt(text.length - 1) !== end.charCodeAt(end.length - 1)) return false;
  return text.endsWith(end);
}

export class TextWriter extends ByteWriter {
  /** Last component of the key of the record being written. */
  #leaf = '';

  begin(leaf: string): void {
    this.clear();
    this.#leaf = leaf;
  }

  text(value: string): void {
    const word = value.length > WORD_LENGTH_MAX ? undefined : wordCodes.get(value);
    if (word !== undefined) {
      this.byte(word);
    } else if (value.length > 8) {
      this.#longer(value, true);
    } else {
      this.#raw(value);
    }
  }

  #longer(value: string, mayHavePrefix: boolean): void {
    const leaf = this.#leaf;
    if (leaf.length > 8 && endsIn(value, leaf)) {
      this.byte(0xf6);
      this.#counted(value.slice(0, value.length - leaf.length));
      return;
    }
    if (value.length >= 64 && this.#digest(value)) return;
    const prefix = mayHavePrefix ? dictionaryPrefix(value) : undefined;
    if (prefix === undefined) {
      this.#raw(value);
      return;
    }
    this.byte(0x80 | prefix.code);
    const rest = value.slice(prefix.text.length);
    if (rest.length > 8) this.#longer(rest, false);
    else this.#raw(rest);
  }

  /** Writes a text that ends in hex digits of a digest; false when it does not. */
  #digest(value: string): boolean {
    const { length } = value;
    const start = length - 64;
    this.reserve(1 + 32);
    if (copyDigestOf(value, 0, this.buffer, this.length + 1)) {
      this.buffer[this.length] = 0xf1;
      this.length += 1 + 32;
      return true;
    }
    if (!isHex(value, start, length)) return false;
    const isSha256 = value.startsWith(SHA256_TEXT, start - SHA256_TEXT.length);
    if (length === 7 + 128 && value.startsWith('sha512:') && isHex(value, 7, start)) {
      this.byte(0xf2);
      this.#hex(value, 7, start);
    } else if (length === 7 + 96 && value.startsWith('sha384:') && isHex(value, 7, start)) {
      this.byte(0xf3);
      this.#hex(value, 7, start);
    } else if (isSha256) {
      this.byte(0xf4);
      this.#counted(value.slice(0, start - SHA256_TEXT.length));
    } else {
      this.byte(0xf5);
      this.#counted(value.slice(0, start));
    }
    this.#hex(value, start, length);
    return true;
  }

  /** The digits from one place to another, which `isHex` has looked at. */
  #hex(text: string, start: number, end: number): void {
    this.reserve((end - start) / 2);
    for (let i = start; i < end; i += 2)
      this.buffer[this.length++] = (nibble(text.charCodeAt(i)) << 4) | nibble(text.charCodeAt(i + 1));
  }

  #raw(value: string): void {
    if (value.length <= SHORT_MAX && this.#ascii(value)) return;
    const size = this.#size(value);
    if (size <= SHORT_MAX) this.byte(0xc0 + size);
    else {
      this.byte(0xf0);
      this.varint(size);
    }
    this.#utf8(value, size);
  }

  /** A short text; false when it is not ASCII. Up to so many units a loop is faster than a call into the runtime. */
  #ascii(value: string): boolean {
    const { length: start } = this;
    this.byte(0xc0 + value.length);
    this.reserve(value.length);
    for (let i = 0; i < value.length; i++) {
      const unit = value.charCodeAt(i);
      if (unit > 0x7f) {
        this.length = start;
        return false;
      }
      this.buffer[this.length++] = unit;
    }
    return true;
  }

  #counted(value: string): void {
    const size = this.#size(value);
    this.varint(size);
    this.#utf8(value, size);
  }

  #size(value: string): number {
    const size = Buffer.byteLength(value);
    // Only texts with more than ASCII can hold half a surrogate pair, which UTF-8 could not give back.
    if (size !== value.length && LONE_SURROGATE.test(value)) {
      throw invalidArgument(`text ${JSON.stringify(value.slice(0, 64))} is not well-formed Unicode`);
    }
    return size;
  }

  #utf8(value: string, size: number): void {
    this.reserve(size);
    this.length += this.buffer.write(value, this.length, 'utf8');
  }
}

function dictionaryPrefix(value: string): { text: string; code: number } | undefined {
  for (const prefix of prefixesByUnit.get(value.charCodeAt(0)) ?? []) {
    if (value.startsWith(prefix.text)) return prefix;
  }
  return undefined;
}

const textBytes = textWords.map((word) => Buffer.from(word));
const prefixBytes = prefixWords.map((word) => Buffer.from(word));
const WORD_BYTES_MAX = Math.max(...[...textBytes, ...prefixBytes].map(({ length }) => length));
const SHA256 = Buffer.from('sha256:');
const hexDigits = Buffer.from('0123456789abcdef');
/** Up to so many bytes a loop is faster than a call into the runtime. */
const COPIED_HERE_MAX = 64;

function copyWord(word: Buffer | undefined, target: Buffer, at: number): number {
  if (word === undefined) throw new DamagedBytes('a word is unknown');
  for (let i = 0; i < word.length; i++) target[at + i] = word[i]!;
  return at + word.length;
}

export class TextReader extends ByteReader {
  #of: Key | Pick<StoredNode, 'key' | 'leaf'> = '';

  /** @param of the record's key, or what has it: for texts that end as it does */
  begin(buffer: Buffer, start: number, end: number, of: Key | Pick<StoredNode, 'key' | 'leaf'>): void {
    this.over(buffer, start, end);
    this.#of = of;
  }

  get #key(): Key {
    return typeof this.#of === 'string' ? this.#of : this.#of.key;
  }

  /** Few texts need it. */
  get #leaf(): string {
    return typeof this.#of === 'string' ? leaf(this.#of) : this.#of.leaf;
  }

  text(): string {
    const code = this.byte();
    if (code < 0x80) return this.#word(code);
    if (code < 0xc0) {
      const prefix = prefixWords[code & 0x3f];
      if (prefix === undefined) throw new DamagedBytes(`beginning ${code & 0x3f} is unknown`);
      return prefix + this.text();
    }
    if (code <= 0xc0 + SHORT_MAX) return this.#utf8(code - 0xc0);
    switch (code) {
      case 0xf0:
        return this.#utf8(this.varint());
      case 0xf1:
        return `sha256:${this.#hex(32)}`;
      case 0xf2:
        return `sha512:${this.#hex(64)}`;
      case 0xf3:
        return `sha384:${this.#hex(48)}`;
      case 0xf4:
        return `${this.#utf8(this.varint())}sha256:${this.#hex(32)}`;
      case 0xf5:
        return this.#utf8(this.varint()) + this.#hex(32);
      case 0xf6:
        return this.#utf8(this.varint()) + this.#leaf;
      default:
        throw new DamagedBytes(`text code ${code} is unknown`);
    }
  }

  /** Most bytes of UTF-8 that the next text can be. */
  get textBytesMax(): number {
    // A beginning and a word, a text that ends in a digest, one that ends in the key's last component.
    return 2 * WORD_BYTES_MAX + 2 * (this.end - this.position) + 3 * this.#key.length;
  }

  /** Copies a text as UTF-8 to a place that has `textBytesMax` bytes; returns where it ends. */
  copyText(target: Buffer, at: number): number {
    const code = this.byte();
    if (code < 0x80) return copyWord(textBytes[code], target, at);
    if (code < 0xc0) {
      // One at most, or `textBytesMax` would not hold.
      if (((this.buffer[this.position] ?? 0) & 0xc0) === 0x80) throw new DamagedBytes('two beginnings');
      return this.copyText(target, copyWord(prefixBytes[code & 0x3f], target, at));
    }
    if (code <= 0xc0 + SHORT_MAX) return this.#copy(code - 0xc0, target, at);
    switch (code) {
      case 0xf0:
        return this.#copy(this.varint(), target, at);
      case 0xf1:
        return this.#copyHex(32, target, copyWord(SHA256, target, at));
      case 0xf4:
        return this.#copyHex(32, target, copyWord(SHA256, target, this.#copy(this.varint(), target, at)));
      case 0xf5:
        return this.#copyHex(32, target, this.#copy(this.varint(), target, at));
      default:
        // Rare, so not worth more.
        this.position--;
        return at + target.write(this.text(), at, 'utf8');
    }
  }

  skipText(): void {
    const code = this.byte();
    if (code < 0x80) return;
    if (code < 0xc0) this.skipText();
    else if (code <= 0xc0 + SHORT_MAX) this.skip(code - 0xc0);
    else if (code === 0xf1) this.skip(32);
    else {
      // Rare, so not worth more.
      this.position--;
      this.text();
    }
  }

  #copy(size: number, target: Buffer, at: number): number {
    const start = this.skip(size);
    const source = this.buffer;
    if (size > COPIED_HERE_MAX) target.set(source.subarray(start, start + size), at);
    else for (let i = 0; i < size; i++) target[at + i] = source[start + i]!;
    return at + size;
  }

  #copyHex(size: number, target: Buffer, at: number): number {
    const start = this.skip(size);
    const source = this.buffer;
    for (let i = 0; i < size; i++) {
      const byte = source[start + i]!;
      target[at + 2 * i] = hexDigits[byte >> 4]!;
      target[at + 2 * i + 1] = hexDigits[byte & 15]!;
    }
    return at + 2 * size;
  }

  #word(code: number): string {
    const word = textWords[code];
    if (word === undefined) throw new DamagedBytes(`word ${code} is unknown`);
    return word;
  }

  #utf8(size: number): string {
    const start = this.skip(size);
    return this.buffer.utf8Slice(start, start + size);
  }

  #hex(size: number): string {
    const start = this.skip(size);
    return this.buffer.hexSlice(start, start + size);
  }
}
