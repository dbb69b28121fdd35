/**
 * Order of strings by their UTF-8 bytes, which is the order of every listing. UTF-16 order differs from it
 * for characters outside the basic plane. Called by engines and by code that merges or sorts keys; pure.
 */

/**
 * Negative, 0 or positive as `a` sorts before, equal to or after `b` by UTF-8 bytes; allocates nothing. Lone
 * surrogates, which have no UTF-8 form, sort with the characters outside the basic plane, so that different
 * strings never compare equal.
 */
export function compareUtf8(a: string, b: string): number {
  if (a === b) return 0;
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return x < 0xd800 && y < 0xd800 ? x - y : utf8Rank(x) - utf8Rank(y);
  }
  return a.length - b.length;
}

/** Moves surrogates (characters of four UTF-8 bytes) after the rest of the basic plane. */
function utf8Rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}

const SURROGATE_OR_ABOVE = /[\ud800-\uffff]/;

/** Sorts in place. Texts without units from 0xd800 on have the order of JavaScript's own sort, which is quicker. */
export const sortUtf8 = (texts: string[]): string[] =>
  texts.some((text) => SURROGATE_OR_ABOVE.test(text)) ? texts.sort(compareUtf8) : texts.sort();
