import assert from 'node:assert/strict';
import { test } from 'node:test';
import { matcherOf } from '../../src/model/regexp.js';

test('given a pattern, when matched, then it is found anywhere unless anchored', () => {
  assert.equal(matcherOf('b+')('abbc'), true);
  assert.equal(matcherOf('^b+')('abbc'), false);
  assert.equal(matcherOf('^$')(''), true);
  assert.equal(matcherOf('(?i)HELLO')('say hello'), true);
  assert.equal(matcherOf('(?P<name>a|b)c')('xbc'), true);
  assert.equal(matcherOf('^.$')('\u{1f600}'), true);
});

test('given a pattern without special characters, when matched, then it means itself', () => {
  assert.equal(matcherOf('vnd/oci')('application/vnd/oci+json'), true);
  assert.equal(matcherOf('vnd/oci')('application/vndxoci'), false);
  assert.equal(matcherOf('')('anything'), true);
});

test('given an invalid or unsupported pattern, when matched, then it matches nothing', () => {
  const unsupported = ['(', '[', 'a**', '(a)\\1', '(?=a)', '(?<=x)a', '(?!a)', 'a{1001}', '\\C', 'x*+'];
  for (const pattern of [...unsupported, `${'('.repeat(3000)}a`, `(a|${'b'.repeat(5000)})`]) {
    for (const text of ['', 'a', 'aa', 'xa', '(', 'xxx']) {
      assert.equal(matcherOf(pattern)(text), false, `${pattern.slice(0, 20)} on ${text}`);
    }
  }
});

test('given a pattern that backtracks forever elsewhere, when matched, then the answer comes at once', () => {
  const started = performance.now();
  assert.equal(matcherOf('^(a+)+$')(`${'a'.repeat(5000)}!`), false);
  assert.ok(performance.now() - started < 2000);
});

test('given many patterns, when matched again, then each still means the same', () => {
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 300; i++) assert.equal(matcherOf(`^x${i}$`)(`x${i}`), true);
  }
});
