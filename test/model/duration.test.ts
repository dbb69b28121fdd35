import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseDuration } from '../../src/model/time.js';

const SECOND = 1_000_000_000n;

test('given durations, when parsed, then they are nanoseconds', () => {
  const cases: [string, bigint][] = [
    ['0', 0n],
    ['-0', 0n],
    ['5s', 5n * SECOND],
    ['+5s', 5n * SECOND],
    ['-5s', -5n * SECOND],
    ['1478s', 1478n * SECOND],
    ['5.0s', 5n * SECOND],
    ['5.6s', 5_600_000_000n],
    ['5.s', 5n * SECOND],
    ['.5s', SECOND / 2n],
    ['-.5s', -SECOND / 2n],
    ['10ns', 10n],
    ['11us', 11_000n],
    ['12µs', 12_000n],
    ['12μs', 12_000n],
    ['13ms', 13_000_000n],
    ['15m', 900n * SECOND],
    ['16h', 57_600n * SECOND],
    ['1h30m', 5_400n * SECOND],
    ['10.5s4m', 250_500_000_000n],
    ['-2m3.4s', -123_400_000_000n],
    ['1h2m3s4ms5us6ns', 3_723_004_005_006n],
    ['39h9m14.425s', 140_954_425_000_000n],
    ['0.3333333333333333333h', 1_200n * SECOND - 1n],
    ['0.830103483285477580700h', 2_988_372_539_827n],
    ['0.9ns', 0n],
    ['00000000000000000000000001s', SECOND],
    ['9223372036854775807ns', 9_223_372_036_854_775_807n],
    ['-9223372036854775808ns', -9_223_372_036_854_775_808n],
  ];
  for (const [text, nanos] of cases) assert.equal(parseDuration(text), nanos, text);
});

test('given other texts, when parsed, then there is no duration', () => {
  const texts = [
    ...['', '3', '-', '+', 's', '.', '-.', '.s', '+.s', '1', '1.5', '1d', '1x', '1S', '1h ', ' 1h', '1h 2m'],
    ...['--1s', '1s-', '1e3s', '0x1s', '3000000h', '9223372036854775808ns', '9223372036854775us808ns'],
    ...['-9223372036854775809ns', '1,5s', '１s', '1mss', 'NaNs', '1s\n', `${'9'.repeat(100_000)}s`],
  ];
  for (const text of texts) assert.equal(parseDuration(text), undefined, text.slice(0, 40));
});

test('given whole numbers of units, when parsed, then their sum comes back', () => {
  const part = fc.nat({ max: 100_000 });
  fc.assert(
    fc.property(part, part, part, (h, s, ns) => {
      const expected = BigInt(h) * 3_600n * SECOND + BigInt(s) * SECOND + BigInt(ns);
      assert.equal(parseDuration(`${h}h${s}s${ns}ns`), expected);
      assert.equal(parseDuration(`-${ns}ns${h}h${s}s`), -expected);
    }),
  );
});
