/**
 * Regular expressions of filters: RE2 syntax, linear time, unanchored. Never the host language's engine,
 * which a hostile pattern can keep busy for hours. Called by filters; keeps a bounded cache of patterns.
 *
 * Linear is not cheap: a program of n instructions takes up to n steps a character. The size of a program is
 * bounded before it is compiled, and the steps for a text before it is matched.
 */
import { createRequire } from 'node:module';
import { invalidArgument } from '../errors.js';

export interface Matcher {
  /** InvalidArgument: the text takes more than MAX_STEPS. */
  (text: string): boolean;
  /** Upper bound on the instructions of the compiled program; 0 where none is needed. */
  readonly size: number;
}

/** Compiled patterns kept; the least recently used one goes first. */
const CACHE_LIMIT = 256;
const MAX_PATTERN_CHARACTERS = 4096;
/** Instructions of a compiled pattern; `[a-f0-9]{64}` has 66. */
export const MAX_PROGRAM = 1024;
/** Limit on instructions times characters for one text. */
export const MAX_STEPS = 1_000_000;
const LITERAL = /^[^\\^$.|?*+()[\]{}]*$/;

const cache = new Map<string, Matcher>();
/** Of a pattern that is not valid. */
export const nothing: Matcher = Object.assign(() => false, { size: 0 });

/**
 * Whether a text contains a match of `pattern`; an invalid or unsupported pattern matches nothing. InvalidArgument: a
 * pattern over the limits.
 */
export function matcherOf(pattern: string): Matcher {
  const known = cache.get(pattern);
  if (known !== undefined) {
    cache.delete(pattern);
    cache.set(pattern, known);
    return known;
  }
  const matcher = compile(pattern);
  const [oldest] = cache.keys();
  if (oldest !== undefined && cache.size >= CACHE_LIMIT) cache.delete(oldest);
  cache.set(pattern, matcher);
  return matcher;
}

let loaded: typeof import('re2js').RE2JS | undefined;

/** Loaded for the first pattern that needs it: most programs never see one. */
function library(): typeof import('re2js').RE2JS {
  loaded ??= (createRequire(import.meta.url)('re2js') as typeof import('re2js')).RE2JS;
  return loaded;
}

function compile(pattern: string): Matcher {
  if (pattern.length > MAX_PATTERN_CHARACTERS) {
    throw invalidArgument(
      `a pattern of ${pattern.length} characters is over the limit of ${MAX_PATTERN_CHARACTERS}`,
      { object: pattern.slice(0, 64), remedy: 'use a shorter one, or several filters' },
    );
  }
  if (LITERAL.test(pattern)) return Object.assign((text: string) => text.includes(pattern), { size: 0 });
  const size = programBound(pattern);
  if (size === undefined) return nothing;
  if (size > MAX_PROGRAM) {
    throw invalidArgument(
      `a pattern of ${size} instructions is over the limit of ${MAX_PROGRAM}: ${pattern.slice(0, 64)}`,
      { object: pattern.slice(0, 64), remedy: 'repeat less, or use several filters' },
    );
  }
  try {
    const compiled = library().compile(pattern);
    const textMax = Math.floor(MAX_STEPS / Math.max(size, 1));
    const matches = (text: string): boolean => {
      if (text.length > textMax) throw tooManySteps(pattern, text.length, textMax);
      return compiled.test(text);
    };
    return Object.assign(matches, { size });
  } catch {
    return nothing;
  }
}

const tooManySteps = (pattern: string, length: number, max: number): Error =>
  invalidArgument(
    `the pattern ${pattern.slice(0, 64)} is too large to be matched against ${length} characters (${max})`,
    { object: pattern.slice(0, 64), remedy: 'use a smaller pattern, or filter by another field' },
  );

// ------------------------------------------------------------------------------------------------------
// bounds

/** A Unicode table of hundreds of ranges counts as this many instructions. */
const TABLE = 4;
/** Characters of a class that count as one instruction: it is one instruction, plus a list to search. */
const CLASS_CHARACTERS = 8;
/** The first and the last instruction of every program. */
const ENDS = 2;

/** The highest repeat count RE2 accepts. */
const MAX_REPEAT = 1000;
/** Counting stops here. */
const MAX_SIZE = 1_000_000_000;

/**
 * An upper bound on the instructions of the compiled pattern; any number if it is not a valid pattern;
 * undefined if RE2 rejects its repeat counts. One pass, no recursion.
 */
function programBound(pattern: string): number | undefined {
  /** For each open group: its size up to the last atom, and the size of that atom. */
  const open: { before: number; atom: number }[] = [];
  let group = { before: 0, atom: 0 };
  const put = (size: number): void => {
    group.before += group.atom;
    group.atom = size;
  };
  for (let at = 0; at < pattern.length; ) {
    const ch = pattern.charAt(at);
    const repeat = ch === '{' ? REPEAT.exec(pattern.slice(at, at + REPEAT_CHARACTERS)) : null;
    if (ch === '(') {
      open.push(group);
      group = { before: 2, atom: 0 };
      at++;
    } else if (ch === ')') {
      const size = group.before + group.atom;
      group = open.pop() ?? { before: 0, atom: 0 };
      put(size);
      at++;
    } else if (ch === '*' || ch === '+' || ch === '?') {
      group.atom += 2;
      at++;
    } else if (repeat !== null) {
      const size = repeated(group.atom, repeat);
      if (size === undefined) return undefined;
      group.atom = size;
      at += repeat[0].length;
    } else {
      const { size, end } = atomAt(pattern, at);
      put(size);
      at = end;
    }
    if (group.before + group.atom > MAX_SIZE) return MAX_SIZE;
  }
  let size = group.before + group.atom + ENDS;
  for (const { before, atom } of open) size += before + atom;
  return size;
}

/** The size of an escape, a class or any other character, and where it ends. */
function atomAt(pattern: string, at: number): { size: number; end: number } {
  const ch = pattern.charAt(at);
  if (ch === '\\') return { size: isTable(pattern, at) ? TABLE : 1, end: at + 2 };
  if (ch !== '[') return { size: 1, end: at + 1 };
  const end = endOfClass(pattern, at);
  const tables = pattern.slice(at, end).match(/\\[pP]|\[:/g)?.length ?? 0;
  return { size: Math.ceil((end - at) / CLASS_CHARACTERS) + tables * TABLE, end };
}

/** The size of an atom under a repeat; undefined if RE2 rejects its counts. */
function repeated(atom: number, [, least, most]: RegExpExecArray): number | undefined {
  const [n, m] = [Number(least), Number(most || 0)];
  if (Math.max(n, m) > MAX_REPEAT) return undefined;
  if (most === undefined) return atom * Math.max(n, 1);
  return most === '' ? atom * (n + 1) + 1 : (atom + 1) * Math.max(m, 1);
}

const REPEAT = /^\{(\d+)(?:,(\d*))?\}/;
const REPEAT_CHARACTERS = 32;

const isTable = (pattern: string, at: number): boolean => /[pP]/.test(pattern[at + 1] ?? '');

/** The offset after the `]` of a class; the first character may be one. */
function endOfClass(pattern: string, at: number): number {
  let end = at + 1;
  if (pattern[end] === '^') end++;
  if (pattern[end] === ']') end++;
  for (; end < pattern.length; end++) {
    if (pattern[end] === '\\') end++;
    else if (pattern[end] === '[' && pattern[end + 1] === ':') {
      const close = pattern.indexOf(':]', end);
      if (close > 0) end = close + 1;
    } else if (pattern[end] === ']') return end + 1;
  }
  return pattern.length;
}
