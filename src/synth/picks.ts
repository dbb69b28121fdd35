/**
 * Deterministic randomness: digests and numbers derived from words instead of a random generator, so that any
 * part of a synthetic store can be computed on its own, in any order, and the same seed always gives the same
 * store.
 */
import { hash } from 'node:crypto';

/** A sha256 digest for a blob that has no bytes. */
export const digestFor = (...words: (string | number)[]): string =>
  `sha256:${hash('sha256', words.join(' '))}`;

/** 64 hexadecimal digits, as container ids are. */
export const idFor = (...words: (string | number)[]): string => hash('sha256', words.join(' '));

/** A number in [0, 1), uniformly distributed. */
export const chance = (...words: (string | number)[]): number =>
  Number.parseInt(hash('sha256', words.join(' ')).slice(0, 12), 16) / 2 ** 48;

/** `mean` as a whole number: rounded up with the probability of its fraction. */
export function countFor(mean: number, ...words: (string | number)[]): number {
  const whole = Math.floor(mean);
  return whole + (chance(...words) < mean - whole ? 1 : 0);
}
