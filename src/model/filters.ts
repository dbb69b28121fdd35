/**
 * Filters of list calls: `name==foo,labels."a.b"~=/^x/`. Parsed once, then asked for every object. Called by
 * stores/ and snapshotter backends; pure.
 *
 *     filter   = selector *( "," selector )        all selectors must hold; of several filters one must
 *     selector = path [ op value ]                 no operator: the field is present
 *     path     = field *( "." field )              a field is a word or a "…" literal
 *     op       = "==" / "!=" / "~="                equal, different, contains a match of the pattern
 *     value    = bare word / "…" / after ~= also /…/ and |…|
 */
import { type EbbtideError, invalidArgument } from '../errors.js';
import { unquote } from './filter-quote.js';
import { FilterScanner } from './filter-scanner.js';
import { labelOf } from './labels.js';
import type { StringMap } from './records.js';
import { matcherOf } from './regexp.js';

export { quoteForFilter } from './filter-quote.js';

/** The value of one field of an object; undefined when the object does not have it, which reads as "". */
export type Adaptor = (path: readonly string[]) => string | undefined;

export type Filter = (adaptor: Adaptor) => boolean;

/** Characters of the input that an error shows on each side of the position. */
const SHOWN_CHARACTERS = 256;

const always: Filter = () => true;

/** One filter of several: none accepts everything. InvalidArgument with the position of what is wrong. */
export function parseFilters(filters: readonly string[]): Filter {
  const parsed = filters.map(parseFilter);
  if (parsed.length === 0 || parsed.includes(always)) return always;
  if (parsed.length === 1) return parsed[0]!;
  return (adaptor) => {
    for (const filter of parsed) if (filter(adaptor)) return true;
    return false;
  };
}

/**
 * A label of an object whose filter path is `path`; the parts from index `from` on, joined by dots, are its key.
 */
export function adaptLabels(
  labels: StringMap | undefined,
  path: readonly string[],
  from = 0,
): string | undefined {
  if (labels === undefined) return undefined;
  return labelOf(labels, path.length === from + 1 ? path[from]! : path.slice(from).join('.'));
}

export function parseFilter(input: string): Filter {
  return input === '' ? always : new Parser(input).filter();
}

class Parser {
  readonly #input: string;
  readonly #scanner: FilterScanner;

  constructor(input: string) {
    this.#input = input;
    this.#scanner = new FilterScanner(input);
  }

  filter(): Filter {
    const selectors = [this.#selector()];
    for (let ch = this.#scanner.peek(); ch !== ''; ch = this.#scanner.peek()) {
      if (ch !== ',') throw this.#error(this.#scanner.position, `unexpected input: ${ch}`);
      this.#scanner.scan();
      selectors.push(this.#selector());
    }
    if (selectors.length === 1) return selectors[0]!;
    return (adaptor) => {
      for (const selector of selectors) if (!selector(adaptor)) return false;
      return true;
    };
  }

  #selector(): Filter {
    const path = this.#path();
    const next = this.#scanner.peek();
    if (next === '' || next === ',') return (adaptor) => adaptor(path) !== undefined;
    const operator = this.#operator();
    const value = this.#value(operator === '~=');
    if (operator === '==') return (adaptor) => adaptor(path) === value;
    if (operator === '!=') return (adaptor) => (adaptor(path) ?? '') !== value;
    const matches = matcherOf(value);
    return (adaptor) => matches(adaptor(path) ?? '');
  }

  #path(): readonly string[] {
    const path = [this.#field()];
    while (this.#scanner.peek() === '.') {
      this.#scanner.scan();
      path.push(this.#field());
    }
    return Object.freeze(path);
  }

  #field(): string {
    const token = this.#scanner.scan();
    if (token.kind === 'field') return token.text;
    if (token.kind === 'quoted') return this.#unquote(token.start, token.text, false);
    throw this.#error(token.start, token.kind === 'illegal' ? token.text : 'expected field or quoted');
  }

  #operator(): '==' | '!=' | '~=' {
    const { kind, start, text } = this.#scanner.scan();
    if (kind === 'illegal') throw this.#error(start, text);
    if (kind !== 'operator') throw this.#error(start, 'expected an operator ("=="|"!="|"~=")');
    if (text === '==' || text === '!=' || text === '~=') return text;
    throw this.#error(start, `unsupported operator "${text}"`);
  }

  #value(patternQuotes: boolean): string {
    const token = this.#scanner.scan();
    if (token.kind === 'value') return token.text;
    if (token.kind === 'quoted') return this.#unquote(token.start, token.text, patternQuotes);
    throw this.#error(token.start, token.kind === 'illegal' ? token.text : 'expected value or quoted');
  }

  #unquote(start: number, literal: string, patternQuotes: boolean): string {
    if (!patternQuotes && literal[0] !== '"') throw this.#error(start, 'invalid quote encountered');
    return unquote(literal);
  }

  #error(position: number, reason: string): EbbtideError {
    const code = this.#input.codePointAt(position);
    const before = shorten(this.#input.slice(0, position), -SHOWN_CHARACTERS);
    if (code === undefined) return parseError(`[${before}]`, reason);
    const ch = String.fromCodePoint(code);
    const after = shorten(this.#input.slice(position + ch.length), SHOWN_CHARACTERS);
    return parseError(`[${before} >|${ch}|< ${after}]`, reason);
  }
}

const parseError = (place: string, reason: string): EbbtideError =>
  invalidArgument(`filters: parse error: ${place}: ${reason}`, {
    remedy: 'write `path`, `path==value`, `path!=value` or `path~=/pattern/`, parted by commas',
  });

/** The first (count > 0) or last characters of a text, with a mark where some are missing. */
function shorten(text: string, count: number): string {
  if (text.length <= Math.abs(count)) return text;
  return count < 0 ? `…${text.slice(count)}` : `${text.slice(0, count)}…`;
}
