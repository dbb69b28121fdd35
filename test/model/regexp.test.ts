import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { EbbtideError } from '../../src/errors.js';
import { MAX_PROGRAM, MAX_STEPS, matcherOf } from '../../src/model/regexp.js';
import { cpuMs } from '../support/cpu.js';

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
  for (const pattern of [...unsupported, `${'('.repeat(300)}a`]) {
    for (const text of ['', 'a', 'aa', 'xa', '(', 'xxx']) {
      assert.equal(matcherOf(pattern)(text), false, `${pattern.slice(0, 20)} on ${text}`);
    }
  }
});

test('given a pattern that backtracks forever elsewhere, when matched, then the result comes at once', () => {
  const started = cpuMs();
  assert.equal(matcherOf('^(a+)+$')(`${'a'.repeat(5000)}!`), false);
  assert.ok(cpuMs() - started < 2000);
});

test('given many patterns, when matched again, then each still means the same', () => {
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 300; i++) assert.equal(matcherOf(`^x${i}$`)(`x${i}`), true);
  }
});

const { RE2JS } = createRequire(import.meta.url)('re2js') as typeof import('re2js');

test('given patterns, when they are compiled, then they are not larger than estimated before', () => {
  const small = [
    'a{1000}',
    '[a-f0-9]{64}',
    '(?i)hello.*w',
    '\\pL{100}',
    '(a|b|c){0,50}',
    '(x+x+)+y',
    '[]a-z]+',
  ];
  const nested = [
    `${'('.repeat(9)}a${')*'.repeat(9)}`,
    '((a{2,}){3,}){4,}x',
    '(\\b[ab]*\\b.){50}c$',
    '(?i)(abc){50}',
  ];
  const odd = [
    '[[:alpha:]_]{2,}',
    '(a?b?){9}?',
    '(?P<n>a)|b{3,7}',
    'a{,3}',
    'x{',
    '\\Qa{3}\\E',
    '(?:a|){20}',
    '^$',
  ];
  for (const pattern of [...small, ...nested, ...odd]) {
    const real = RE2JS.compile(pattern).programSize();
    const { size } = matcherOf(pattern);
    assert.ok(size >= real, `${pattern}: ${real} instructions, ${size} thought`);
    assert.ok(size <= real * 4 + 16, `${pattern}: ${real} instructions, ${size} thought`);
  }
});

test('given patterns that explode, when they are parsed, then InvalidArgument, and none is compiled', () => {
  const hostile = [
    '((a{30}){30}){30}',
    `${'('.repeat(300)}a${'{9}){9}'.repeat(100)}`,
    '(\\pL|\\pN|x){900}',
    '[a-z0-9]{999}'.repeat(250),
    `${'('.repeat(2000)}a${')'.repeat(2000)}`,
    `(a|${'b'.repeat(5000)})`,
    '(((((((((a{9}){9}){9}){9}){9}){9}){9}){9}){9}){9}',
    `a${'{999}'.repeat(800)}`,
    `${'(a|'.repeat(800)}b${'){2}'.repeat(800)}`,
  ];
  const { compile } = RE2JS;
  let compiled = 0;
  RE2JS.compile = (...args: Parameters<typeof compile>) => {
    compiled++;
    return compile.apply(RE2JS, args);
  };
  try {
    for (const pattern of hostile) {
      assert.throws(
        () => matcherOf(pattern),
        (error) => error instanceof EbbtideError && error.kind === 'InvalidArgument',
        pattern.slice(0, 40),
      );
    }
  } finally {
    RE2JS.compile = compile;
  }
  assert.equal(compiled, 0);
});

test('given a large pattern and a long text, when they are matched, then InvalidArgument instead of the work', () => {
  const matches = matcherOf('[ab]*a[ab]{500}c$');
  assert.ok(matches.size > 500 && matches.size <= MAX_PROGRAM);
  assert.equal(matches('ab'.repeat(100)), false);
  assert.throws(() => matches('ab'.repeat(MAX_STEPS / 1000)), /too large to be matched/);
});
