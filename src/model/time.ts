/**
 * Instants: nanoseconds since 1970-01-01T00:00:00Z as a bigint, always UTC. Never rounded through
 * milliseconds, so that two updates in one millisecond stay apart. Text is parsed by one exact grammar, never
 * by the host language's lenient parser. Called from everywhere; `now` keeps state, the rest is pure.
 */

export { parseDuration } from './duration.js';

/** Nanoseconds since 1970. */
export type Instant = bigint;

const NANOS_PER_MILLI = 1_000_000n;
export const NANOS_PER_SECOND = 1_000_000_000n;
const SECONDS_PER_DAY = 86_400;

/** 0001-01-01T00:00:00Z, which stands for a missing time. */
export const zeroTime: Instant = -62_135_596_800n * NANOS_PER_SECOND;

let last = 0n;
/**
 * The last known lag of the fine clock against the wall clock. The start of the process is known to
 * microseconds.
 */
let skew =
  BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n - process.hrtime.bigint();

/**
 * How far `now` may be ahead of the wall clock, so that a small correction of it does not make `now` go back.
 */
const AHEAD_MAX = NANOS_PER_SECOND;

/**
 * The time of the wall clock, within a second. Strictly later than every earlier result in this process,
 * unless the wall clock was set back by more than a second: then the result follows it.
 */
export function now(): Instant {
  // The wall clock, which has milliseconds, is read before and after the fine clock. The fine clock must lie
  // between the first reading and the end of the second one's millisecond; otherwise the wall clock was set,
  // and `now` follows it.
  const earliest = BigInt(Date.now()) * NANOS_PER_MILLI;
  let t = process.hrtime.bigint() + skew;
  const latest = (BigInt(Date.now()) + 1n) * NANOS_PER_MILLI - 1n;
  const off = t < earliest ? earliest - t : t > latest ? latest - t : 0n;
  skew += off;
  t += off;
  if (t <= last && last - t < AHEAD_MAX) t = last + 1n;
  last = t;
  return t;
}

/**
 * The current time, or just after the latest of `known` if the wall clock is earlier: the timestamps of one
 * record never go back.
 */
export function nowAfter(...known: readonly Instant[]): Instant {
  let t = now();
  for (const earlier of known) if (t <= earlier) t = earlier + 1n;
  return t;
}

const TIMESTAMP = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))$/;

/**
 * The instant of `YYYY-MM-DDThh:mm:ss[frac](Z|±hh:mm)`: upper-case T and Z, a fraction after `.` or `,` cut
 * off at nanoseconds, real calendar days, seconds to 59, zones to 24:60. Returns undefined for any other
 * text.
 */
export function parseTimestamp(text: string): Instant | undefined {
  const match = TIMESTAMP.exec(text);
  if (match === null) return undefined;
  const field = (group: number): number => Number(match[group] ?? 0);
  const [year, month, day] = [field(1), field(2), field(3)];
  const [hour, minute, second] = [field(4), field(5), field(6)];
  const [zoneHours, zoneMinutes] = [field(9), field(10)];
  if (month < 1 || month > 12 || day < 1 || day > daysInMonth(year, month)) return undefined;
  if (hour > 23 || minute > 59 || second > 59 || zoneHours > 24 || zoneMinutes > 60) return undefined;
  const offset = (zoneHours * 60 + zoneMinutes) * (match[8] === '-' ? -60 : 60);
  const seconds = daysSince1970(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
  const nanos = Number((match[7] ?? '').slice(0, 9).padEnd(9, '0'));
  return BigInt(seconds - offset) * NANOS_PER_SECOND + BigInt(nanos);
}

/** RFC 3339 in UTC with as many fraction digits as needed, none for whole seconds. */
export function formatTimestamp(t: Instant): string {
  return formatted(t, true);
}

/** RFC 3339 in UTC, whole seconds; the fraction is cut off (towards the past). */
export const formatSeconds = (t: Instant): string => formatted(t, false);

/** Written digit by digit: reports have very many, and a text that is put together takes several times the memory. */
const written = Buffer.alloc(64);
let end = 0;

function formatted(t: Instant, withFraction: boolean): string {
  let nanos = Number(t % NANOS_PER_SECOND);
  let seconds = Number(t / NANOS_PER_SECOND);
  if (nanos < 0) {
    nanos += Number(NANOS_PER_SECOND);
    seconds--;
  }
  const days = Math.floor(seconds / SECONDS_PER_DAY);
  const rest = seconds - days * SECONDS_PER_DAY;
  const { year, month, day } = civilDate(days);
  end = 0;
  if (year < 0) written[end++] = Sign.dash;
  const distance = Math.abs(year);
  write(distance, distance < 10_000 ? 4 : String(distance).length, Sign.dash);
  write(month, 2, Sign.dash);
  write(day, 2, Sign.t);
  write(Math.floor(rest / 3600), 2, Sign.colon);
  write(Math.floor(rest / 60) % 60, 2, Sign.colon);
  write(rest % 60, 2, withFraction && nanos > 0 ? Sign.dot : Sign.z);
  if (withFraction && nanos > 0) {
    let digits = 9;
    for (; nanos % 10 === 0; nanos /= 10) digits--;
    write(nanos, digits, Sign.z);
  }
  return written.toString('latin1', 0, end);
}

const Sign = { dash: 0x2d, dot: 0x2e, zero: 0x30, colon: 0x3a, t: 0x54, z: 0x5a } as const;

function write(n: number, digits: number, after: number): void {
  for (let at = end + digits - 1, left = n; at >= end; at--, left = Math.floor(left / 10))
    written[at] = Sign.zero + (left % 10);
  end += digits;
  written[end++] = after;
}

// The calendar: years are counted from March, so that a leap day is the last day of its year, in eras of 400
// years, each of 146,097 days. 719,468 days lie between 0000-03-01 and 1970-01-01.
const DAYS_PER_ERA = 146_097;
const DAYS_TO_1970 = 719_468;

function daysInMonth(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

function daysSince1970(year: number, month: number, day: number): number {
  const y = month > 2 ? year : year - 1;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * DAYS_PER_ERA + dayOfEra - DAYS_TO_1970;
}

function civilDate(days: number): { year: number; month: number; day: number } {
  const shifted = days + DAYS_TO_1970;
  const era = Math.floor(shifted / DAYS_PER_ERA);
  const dayOfEra = shifted - era * DAYS_PER_ERA;
  // Removes the leap days of 4 and 400 years and adds back those of 100, to count in years of 365 days.
  const leapless =
    dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096);
  const yearOfEra = Math.floor(leapless / 365);
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const marchMonth = Math.floor((5 * dayOfYear + 2) / 153);
  const day = dayOfYear - Math.floor((153 * marchMonth + 2) / 5) + 1;
  const month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9;
  return { year: era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, day };
}
