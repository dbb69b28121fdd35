/**
 * Durations as text: `1h30m`, `-1.5s`, `100ms`. Called for scheduler settings, command lines and conditional
 * references; pure.
 */

const UNIT_NANOS: ReadonlyMap<string, bigint> = new Map([
  ['ns', 1n],
  ['us', 1_000n],
  ['µs', 1_000n],
  ['μs', 1_000n],
  ['ms', 1_000_000n],
  ['s', 1_000_000_000n],
  ['m', 60_000_000_000n],
  ['h', 3_600_000_000_000n],
]);
const MAX_NANOS = (1n << 63n) - 1n;
/** More digits cannot fit into 63 bits; fewer fraction digits than this could change the nanosecond. */
const MAX_INTEGER_DIGITS = 19;
const FRACTION_DIGITS = 30;

/**
 * Nanoseconds of a sequence of decimal numbers, each with a unit (ns us µs ms s m h), optionally signed; also
 * a bare `0`. Fractions of a nanosecond are cut off. Returns undefined for anything else and beyond 63 bits
 * (292 years).
 */
export function parseDuration(text: string): bigint | undefined {
  const negative = text[0] === '-';
  const unsigned = negative || text[0] === '+' ? text.slice(1) : text;
  if (unsigned === '0') return 0n;
  if (unsigned === '') return undefined;
  // The lowest duration is one further from zero than the highest.
  const max = negative ? MAX_NANOS + 1n : MAX_NANOS;
  const part = /(\d*)(\.\d*)?(ns|us|µs|μs|ms|s|m|h)/y;
  let total = 0n;
  while (part.lastIndex < unsigned.length) {
    const nanos = partNanos(part.exec(unsigned));
    if (nanos === undefined) return undefined;
    total += nanos;
    if (total > max) return undefined;
  }
  return negative ? -total : total;
}

function partNanos(match: RegExpExecArray | null): bigint | undefined {
  const integer = (match?.[1] ?? '').replace(/^0+(?=\d)/, '');
  const fraction = (match?.[2] ?? '').slice(1, 1 + FRACTION_DIGITS);
  const unit = UNIT_NANOS.get(match?.[3] ?? '');
  if (unit === undefined || (integer === '' && fraction === '')) return undefined;
  if (integer.length > MAX_INTEGER_DIGITS) return undefined;
  return BigInt(integer) * unit + (BigInt(fraction) * unit) / 10n ** BigInt(fraction.length);
}
