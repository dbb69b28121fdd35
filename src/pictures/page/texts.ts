/** Texts of the page. */
import type { PageNode } from '../view/page-data.js';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** As the command prints sizes. */
export function bytes(n: number): string {
  let [value, unit] = [n, 0];
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${n} B` : `${value.toFixed(1)} ${UNITS[unit]}`;
}

const DAY = 86_400;
/** Ages of the last use, in days: each has a colour. */
const ages = [1, 7, 30, 90, 365, Number.POSITIVE_INFINITY] as const;
export const ageTexts = ['a day', 'a week', 'a month', '3 months', 'a year', 'longer'] as const;

/** The index of its colour. */
export const ageOf = (used: number, at: number): number => ages.findIndex((days) => at - used <= days * DAY);

export const day = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(0, 10);

export function nameOf({ kind, of, name }: PageNode): string {
  return of === undefined || kind === 'rest' ? name : `${of} ${name}`;
}

export function keepersText(keepers: number): string {
  if (keepers === 1) return 'one root keeps it';
  return keepers >= 10 ? '10 roots or more keep it' : `${keepers} roots keep it`;
}
