/**
 * Filters of list calls: `name==foo,labels."a.b"~=/^x/`. Parsed once, then evaluated for every object. Called
 * by stores/ and snapshotter backends; pure.
 *
 *     filter   = selector *( "," selector )        all selectors must match; of several filters, one
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
import { matcherOf, nothing } from './regexp.js';

export { quoteForFilter } from './filter-quote.js';

/** The value of one field of an object; undefined (which reads as "") when the object does not have it. */
export type Adaptor = (path: readonly string[]) => string | undefined;

/** Whether an object matches. */
export type Filter = (adaptor: Adaptor) => boolean;

/** Characters of the input that an error shows on each side of the position. */
const SHOWN_CHARACTERS = 256;

const always: Filter = () => true;

/**
 * Limits of one call: the number of filters, their characters and selectors in total, and the instructions of
 * their patterns.
 */
const MAX_FILTERS = 1000;
const MAX_FILTERS_CHARACTERS = 64 * 1024;
const MAX_SELECTORS = 2000;
const MAX_PATTERNS_SIZE = 4000;

/**
 * One filter out of several; an empty list accepts everything. InvalidArgument, with the position, for a
 * filter that is not valid, and for filters over the limits. The returned filter itself throws it for a value
 * that is too long for a pattern (see regexp.ts).
 */
export function parseFilters(filters: readonly string[]): Filter {
  let characters = 0;
  for (const filter of filters) characters += filter.length;
  if (filters.length > MAX_FILTERS || characters > MAX_FILTERS_CHARACTERS) {
    throw tooMany(
      `${filters.length} filters of ${characters} characters`,
      `${MAX_FILTERS} and ${MAX_FILTERS_CHARACTERS} characters`,
    );
  }
  const parsed = selectorsOfAll(filters);
  return parsed.some((selectors) => selectors.length === 0) || parsed.length === 0 ? always : anyOf(parsed);
}

function selectorsOfAll(filters: readonly string[]): (readonly Selector[])[] {
  const budget = { selectors: MAX_SELECTORS, patterns: MAX_PATTERNS_SIZE };
  return filters.map((filter) => selectorsOf(filter, budget));
}

/**
 * For callers that must not take a mistake for a filter that matches nothing, or everything: lists do, as containerd's. InvalidArgument
 * as `parseFilters`, and for a pattern that is not valid, and a field that is none of `fields`: the beginnings of paths, by parts.
 */
export function requireMeaning(filters: readonly string[], fields: readonly (readonly string[])[]): void {
  parseFilters(filters);
  for (const { path, invalid } of selectorsOfAll(filters).flat()) {
    if (invalid !== undefined)
      throw invalidArgument(`the pattern "${invalid}" is not valid`, { object: invalid });
    if (fields.some((field) => field.every((part, n) => path[n] === part))) continue;
    const known = fields.map((field) => field.join('.')).join(', ');
    throw invalidArgument(`there is no field "${path.join('.')}"; there are ${known}`, {
      object: path.join('.'),
    });
  }
}

/**
 * Whether all selectors of one of the filters match. Filters that only compare one field with a value are
 * looked up in a map.
 */
function anyOf(filters: readonly (readonly Selector[])[]): Filter {
  const values = new Map<string, { path: readonly string[]; wanted: Set<string> }>();
  const others: Filter[] = [];
  for (const selectors of filters) {
    const [only] = selectors;
    if (selectors.length > 1 || only?.equal === undefined) {
      others.push(allOf(selectors));
      continue;
    }
    const field = only.path.join('\0');
    const known = values.get(field);
    if (known === undefined) values.set(field, { path: only.path, wanted: new Set([only.equal]) });
    else known.wanted.add(only.equal);
  }
  const lookups = [...values.values()];
  return (adaptor) => {
    for (const { path, wanted } of lookups) {
      const value = adaptor(path);
      if (value !== undefined && wanted.has(value)) return true;
    }
    for (const filter of others) if (filter(adaptor)) return true;
    return false;
  };
}

function allOf(selectors: readonly Selector[]): Filter {
  const [first, ...rest] = selectors;
  if (first !== undefined && rest.length === 0) return first.matches;
  return (adaptor) => {
    for (const { matches } of selectors) if (!matches(adaptor)) return false;
    return true;
  };
}

const tooMany = (what: string, limits: string): EbbtideError =>
  invalidArgument(`${what} are over the limits of one call, ${limits}`, {
    remedy: 'use several calls, or a pattern',
  });

/** A label of an object, by its filter path; the parts from index `from` on, joined by dots, are its key. */
export function adaptLabels(
  labels: StringMap | undefined,
  path: readonly string[],
  from = 0,
): string | undefined {
  if (labels === undefined) return undefined;
  const only = path.length === from + 1 ? path[from] : undefined;
  return labelOf(labels, only ?? path.slice(from).join('.'));
}

/** The filter that a text describes. InvalidArgument: it is none. */
export const parseFilter = (input: string): Filter => parseFilters([input]);

/** A condition on an object. */
interface Selector {
  readonly path: readonly string[];
  /** The value the field must have, if that is the whole condition. */
  readonly equal?: string;
  /** A pattern that is not valid, and so matches nothing. */
  readonly invalid?: string;
  readonly matches: Filter;
}

/** What remains of the limits of a call. */
interface Budget {
  selectors: number;
  patterns: number;
}

/** No selectors for the empty filter, which accepts everything. */
const selectorsOf = (input: string, budget: Budget): readonly Selector[] =>
  input === '' ? [] : new Parser(input, budget).filter();

class Parser {
  readonly #input: string;
  readonly #scanner: FilterScanner;
  readonly #budget: Budget;

  constructor(input: string, budget: Budget) {
    this.#input = input;
    this.#scanner = new FilterScanner(input);
    this.#budget = budget;
  }

  filter(): readonly Selector[] {
    const selectors = [this.#selector()];
    for (let ch = this.#scanner.peek(); ch !== ''; ch = this.#scanner.peek()) {
      if (ch !== ',') throw this.#error(this.#scanner.position, `unexpected input: ${ch}`);
      this.#scanner.scan();
      selectors.push(this.#selector());
    }
    return selectors;
  }

  #selector(): Selector {
    if (--this.#budget.selectors < 0) throw tooMany('selectors', `${MAX_SELECTORS} selectors`);
    const path = this.#path();
    const next = this.#scanner.peek();
    if (next === '' || next === ',') return { path, matches: (adaptor) => adaptor(path) !== undefined };
    const operator = this.#operator();
    const value = this.#value(operator === '~=');
    if (operator === '==') return { path, equal: value, matches: (adaptor) => adaptor(path) === value };
    if (operator === '!=') return { path, matches: (adaptor) => (adaptor(path) ?? '') !== value };
    const contains = matcherOf(value);
    this.#budget.patterns -= contains.size;
    if (this.#budget.patterns < 0) {
      throw tooMany('patterns', `${MAX_PATTERNS_SIZE} instructions of patterns`);
    }
    const matches: Filter = (adaptor) => contains(adaptor(path) ?? '');
    return contains === nothing ? { path, matches, invalid: value } : { path, matches };
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
    remedy: 'write `path`, `path==value`, `path!=value` or `path~=/pattern/`, separated by commas',
  });

/** The first (count > 0) or last characters of a text, with a mark where some were cut. */
function shorten(text: string, count: number): string {
  if (text.length <= Math.abs(count)) return text;
  return count < 0 ? `…${text.slice(count)}` : `${text.slice(0, count)}…`;
}
