/**
 * Regular expressions of filters: RE2 syntax, linear time, found anywhere in the text. Never the host language's
 * engine, which a hostile pattern can keep busy for hours. Called by filters; keeps a bounded cache of patterns.
 */
import { createRequire } from 'node:module';

export type Matcher = (text: string) => boolean;

/** Compiled patterns kept; the longest unused one goes first. */
const CACHE_LIMIT = 256;
/** Longer patterns match nothing: compiled, they would take megabytes each. */
const MAX_PATTERN_CHARACTERS = 4096;
const LITERAL = /^[^\\^$.|?*+()[\]{}]*$/;

const cache = new Map<string, Matcher>();
const nothing: Matcher = () => false;

/** Whether a text contains a match of `pattern`; an invalid or unsupported pattern matches nothing. */
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

/** Loaded by the first pattern that needs it: most programs never see one. */
function library(): typeof import('re2js').RE2JS {
  loaded ??= (createRequire(import.meta.url)('re2js') as typeof import('re2js')).RE2JS;
  return loaded;
}

function compile(pattern: string): Matcher {
  if (LITERAL.test(pattern)) return (text) => text.includes(pattern);
  if (pattern.length > MAX_PATTERN_CHARACTERS) return nothing;
  try {
    const compiled = library().compile(pattern);
    return (text) => compiled.test(text);
  } catch {
    return nothing;
  }
}
