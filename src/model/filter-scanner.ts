/**
 * Tokens of a filter: fields, quoted strings, separators, operators and bare values. Called by filters.ts
 * only. Positions count UTF-16 units of the input.
 */
import { readEscape } from './filter-quote.js';

export type TokenKind = 'field' | 'quoted' | 'value' | 'separator' | 'operator' | 'end' | 'illegal' | 'other';

export interface Token {
  kind: TokenKind;
  start: number;
  /** The token as it stands in the input; the reason if it is not valid. */
  text: string;
}

const isSeparator = (ch: string): boolean => ch === ',' || ch === '.';
const isOperator = (ch: string): boolean => ch === '=' || ch === '!' || ch === '~';
const isQuote = (ch: string): boolean => ch === '"' || ch === '/' || ch === '|';
const isField = (ch: string): boolean => /^[A-Za-z0-9_]$/.test(ch);
const isBlank = (ch: string): boolean => /^\p{White_Space}$/u.test(ch);
/** What a bare value may contain: letters, marks, numbers, punctuation and symbols, but no comma. */
const isValue = (ch: string): boolean => ch !== ',' && /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u.test(ch);

/** Why a character is not valid anywhere in a filter; U+FFFD is what decoding broken UTF-8 leaves. */
function problemWith(ch: string): string | undefined {
  if (ch === '\0') return 'unexpected null';
  return /^[\ufffd\p{Surrogate}]$/u.test(ch) ? 'invalid UTF-8' : undefined;
}

export class FilterScanner {
  readonly #input: string;
  #at = 0;
  /** The next token is a value, which may contain what a field may not. Set after an operator. */
  #valueNext = false;

  constructor(input: string) {
    this.#input = input;
  }

  get position(): number {
    return this.#at;
  }

  /** The next character, without consuming it; '' at the end. */
  peek(): string {
    const code = this.#input.codePointAt(this.#at);
    return code === undefined ? '' : String.fromCodePoint(code);
  }

  /** The next token; skips blanks before it. */
  scan(): Token {
    this.#skip(isBlank);
    const start = this.#at;
    const ch = this.peek();
    if (ch === '') return this.#token('end', start);
    const problem = problemWith(ch);
    if (problem !== undefined) return { kind: 'illegal', start, text: problem };
    if (isQuote(ch)) return this.#quoted(start, ch);
    if (isSeparator(ch)) {
      this.#at++;
      this.#valueNext = false;
      return this.#token('separator', start);
    }
    if (isOperator(ch)) {
      this.#skip(isOperator);
      this.#valueNext = true;
      return this.#token('operator', start);
    }
    return this.#valueNext ? this.#value(start, ch) : this.#field(start);
  }

  #value(start: number, first: string): Token {
    this.#at += first.length;
    this.#skip(isValue);
    this.#valueNext = false;
    return this.#token('value', start);
  }

  #field(start: number): Token {
    this.#skip(isField);
    return this.#token(this.#at === start ? 'other' : 'field', start);
  }

  /** A literal with both quotes and valid escapes. */
  #quoted(start: number, quote: string): Token {
    this.#at++;
    for (;;) {
      const ch = this.peek();
      const problem = ch === '' || ch === '\n' ? 'quoted literal not terminated' : problemWith(ch);
      if (problem !== undefined) return { kind: 'illegal', start, text: problem };
      this.#at += ch.length;
      if (ch === quote) return this.#token('quoted', start);
      if (ch !== '\\') continue;
      const found = readEscape(this.#input, this.#at, quote);
      if (typeof found === 'string') return { kind: 'illegal', start, text: found };
      this.#at += found.length;
    }
  }

  #skip(belongs: (ch: string) => boolean): void {
    for (let ch = this.peek(); ch !== '' && belongs(ch); ch = this.peek()) this.#at += ch.length;
  }

  #token(kind: TokenKind, start: number): Token {
    return { kind, start, text: this.#input.slice(start, this.#at) };
  }
}
