/**
 * Quoted strings of filters: `"…"`, and `/…/` or `|…|` for patterns, with the escapes of Go's string
 * literals. Called by the filter scanner and parser, and by code that builds a filter; pure.
 */
import { invalidArgument } from '../errors.js';

const SIMPLE_ESCAPES: ReadonlyMap<string, number> = new Map([
  ['a', 7],
  ['b', 8],
  ['f', 12],
  ['n', 10],
  ['r', 13],
  ['t', 9],
  ['v', 11],
  ['\\', 92],
]);
const HEX_DIGITS: ReadonlyMap<string, number> = new Map([
  ['x', 2],
  ['u', 4],
  ['U', 8],
]);

export interface Escape {
  /** UTF-16 units after the backslash. */
  length: number;
  value: number;
  /** `value` is one byte of UTF-8, not a character. */
  byte: boolean;
}

/** The escape whose backslash is before `at`, or the reason why it is not valid. */
export function readEscape(input: string, at: number, quote: string): Escape | string {
  const ch = input.charAt(at);
  if (ch === '') return 'quoted literal not terminated';
  if (ch === quote) return { length: 1, value: quote.charCodeAt(0), byte: false };
  const simple = SIMPLE_ESCAPES.get(ch);
  if (simple !== undefined) return { length: 1, value: simple, byte: false };
  if (ch >= '0' && ch <= '7') return octal(input.slice(at, at + 3));
  const digits = HEX_DIGITS.get(ch);
  if (digits === undefined) return 'illegal escape sequence';
  return hexadecimal(input.slice(at + 1, at + 1 + digits), digits);
}

function octal(text: string): Escape | string {
  const value = Number.parseInt(text, 8);
  if (!/^[0-7]{3}$/.test(text) || value > 255) return 'illegal numeric escape sequence';
  return { length: 3, value, byte: true };
}

function hexadecimal(text: string, digits: number): Escape | string {
  const value = Number.parseInt(text, 16);
  const complete = text.length === digits && /^[0-9A-Fa-f]+$/.test(text);
  const character = value <= 0x10ffff && (value < 0xd800 || value > 0xdfff);
  if (!complete || !character) return 'illegal numeric escape sequence';
  return { length: digits + 1, value, byte: digits === 2 };
}

/** The value of a literal, given with its quotes. REQUIRES: its escapes are valid. */
export function unquote(literal: string): string {
  const quote = literal.charAt(0);
  const end = literal.length - 1;
  if (!literal.includes('\\')) return literal.slice(1, end);
  const pieces: Uint8Array[] = [];
  for (let at = 1; at < end; ) {
    const backslash = literal.indexOf('\\', at);
    const stop = backslash < 0 ? end : backslash;
    pieces.push(Buffer.from(literal.slice(at, stop)));
    if (stop === end) break;
    const found = readEscape(literal, stop + 1, quote);
    if (typeof found === 'string') throw invalidArgument(`unquoting failed: ${found}`, { object: literal });
    pieces.push(found.byte ? Uint8Array.of(found.value) : Buffer.from(String.fromCodePoint(found.value)));
    at = stop + 1 + found.length;
  }
  return Buffer.concat(pieces).toString();
}

/** Quotes a string so that it can stand for a field or a value of a filter. */
export const quoteForFilter = (text: string): string =>
  `"${text.replace(/[\\"\p{Cc}\ufffd]/gu, (ch) =>
    ch === '\\' || ch === '"' ? `\\${ch}` : `\\u${ch.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )}"`;
