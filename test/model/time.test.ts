import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatSeconds, formatTimestamp, now, parseTimestamp, zeroTime } from '../../src/model/time.js';

const at = (iso: string, nanos = 0n): bigint => BigInt(Date.parse(iso)) * 1_000_000n + nanos;

test('given timestamps of the exact grammar, when parsed, then they are nanoseconds since 1970', () => {
  const cases: [string, bigint][] = [
    ['1970-01-01T00:00:00Z', 0n],
    ['2024-02-29T23:59:59Z', at('2024-02-29T23:59:59Z')],
    ['2000-02-29T00:00:00Z', at('2000-02-29T00:00:00Z')],
    ['2021-06-01T12:00:00.5Z', at('2021-06-01T12:00:00.500Z')],
    ['2021-06-01T12:00:00,25Z', at('2021-06-01T12:00:00.250Z')],
    ['2021-06-01T12:00:00.123456789Z', at('2021-06-01T12:00:00Z', 123_456_789n)],
    ['2021-06-01T12:00:00.1234567899999999Z', at('2021-06-01T12:00:00Z', 123_456_789n)],
    ['2021-06-01T12:00:00+02:30', at('2021-06-01T09:30:00Z')],
    ['2021-06-01T12:00:00.000000001-07:00', at('2021-06-01T19:00:00Z', 1n)],
    ['2021-06-01T12:00:00+24:60', at('2021-05-31T11:00:00Z')],
    ['2021-06-01T12:00:00-00:00', at('2021-06-01T12:00:00Z')],
    ['0001-01-01T00:00:00Z', zeroTime],
    ['0000-02-29T00:00:00Z', at('0000-02-29T00:00:00Z')],
    ['9999-12-31T23:59:59.999999999Z', at('9999-12-31T23:59:59Z', 999_999_999n)],
  ];
  for (const [text, instant] of cases) assert.equal(parseTimestamp(text), instant, text);
});

test('given any other text, when parsed, then there is no instant', () => {
  const texts = [
    ...['', 'now', '2021-06-01', '2021-06-01T12:00:00', '2021-06-01 12:00:00Z', '2021-06-01t12:00:00Z'],
    ...['2021-06-01T12:00:00z', ' 2021-06-01T12:00:00Z', '2021-06-01T12:00:00Z ', '2021-06-01T12:00:00Z\n'],
    ...['2021-06-01T12:00Z', '2021-06-01T1:00:00Z', '21-06-01T12:00:00Z', '+02021-06-01T12:00:00Z'],
    ...['2021-02-29T00:00:00Z', '1900-02-29T00:00:00Z', '2021-04-31T00:00:00Z', '2021-00-10T00:00:00Z'],
    ...['2021-13-01T00:00:00Z', '2021-01-00T00:00:00Z', '2021-01-32T00:00:00Z', '2021-06-01T24:00:00Z'],
    ...['2021-06-01T23:60:00Z', '2021-06-01T23:59:60Z', '2021-06-01T12:00:00.Z', '2021-06-01T12:00:00;5Z'],
    ...['2021-06-01T12:00:00+25:00', '2021-06-01T12:00:00+00:61', '2021-06-01T12:00:00+0200'],
    ...['2021-06-01T12:00:00+02', '2021-06-01T12:00:00Z+02:00', '２021-06-01T12:00:00Z', '1622548800'],
  ];
  for (const text of texts) assert.equal(parseTimestamp(text), undefined, JSON.stringify(text));
});

test('given instants, when formatted, then UTC with trimmed nanoseconds, or whole seconds cut towards the past', () => {
  const cases: [bigint, string, string][] = [
    [0n, '1970-01-01T00:00:00Z', '1970-01-01T00:00:00Z'],
    [1n, '1970-01-01T00:00:00.000000001Z', '1970-01-01T00:00:00Z'],
    [-1n, '1969-12-31T23:59:59.999999999Z', '1969-12-31T23:59:59Z'],
    [500_000_000n, '1970-01-01T00:00:00.5Z', '1970-01-01T00:00:00Z'],
    [zeroTime, '0001-01-01T00:00:00Z', '0001-01-01T00:00:00Z'],
    [at('2024-02-29T12:34:56Z', 120_000_000n), '2024-02-29T12:34:56.12Z', '2024-02-29T12:34:56Z'],
  ];
  for (const [instant, exact, whole] of cases) {
    assert.equal(formatTimestamp(instant), exact);
    assert.equal(formatSeconds(instant), whole);
  }
});

test('given any instant of the years 0 to 9999, when formatted and parsed, then it is the same', () => {
  const first = at('0000-01-01T00:00:00Z');
  const last = at('9999-12-31T23:59:59Z', 999_999_999n);
  fc.assert(
    fc.property(fc.bigInt({ min: first, max: last }), (instant) => {
      assert.equal(parseTimestamp(formatTimestamp(instant)), instant);
      const second = parseTimestamp(formatSeconds(instant));
      assert.ok(second !== undefined && instant - second >= 0n && instant - second < 1_000_000_000n);
    }),
  );
});

test('given any millisecond, when formatted, then the date is the one the platform knows', () => {
  const range = { min: Date.parse('0000-01-01T00:00:00Z'), max: Date.parse('9999-12-31T23:59:59Z') };
  fc.assert(
    fc.property(fc.integer(range), (ms) => {
      assert.equal(formatSeconds(BigInt(ms) * 1_000_000n), `${new Date(ms).toISOString().slice(0, 19)}Z`);
    }),
  );
});

test('given two calls in a row, when the time is asked, then the second is later and both are near the clock', () => {
  const before = BigInt(Date.now()) * 1_000_000n;
  let previous = now();
  for (let i = 0; i < 1000; i++) {
    const next = now();
    assert.ok(next > previous);
    previous = next;
  }
  const apart = previous - before;
  assert.ok(apart > -2_000_000_000n && apart < 60_000_000_000n, `${apart} ns apart`);
});
