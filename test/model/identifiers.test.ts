import assert from 'node:assert/strict';
import { test } from 'node:test';
import { validateIdentifier } from '../../src/model/identifiers.js';
import { cpuMs } from '../support/cpu.js';

const accepted = [
  'default',
  'Default',
  'default-default',
  'containerd.io',
  '0912341234',
  'task.0.0123456789',
  'container.system-75-f19a.00',
  'underscores_are_allowed',
  'a'.repeat(76),
];
const rejected = [
  '',
  '.foo..foo',
  'foo/foo',
  'foo/..',
  'foo..foo',
  'foo.-boo',
  '-foo.boo',
  'foo.boo-',
  'but__only',
  'default--default',
  'zn--e9.org',
  'a'.repeat(77),
  'default\n',
  'fóo',
];

test('[#4] given a well-formed identifier, when validated, then it is accepted', () => {
  for (const value of accepted) assert.doesNotThrow(() => validateIdentifier(value), value);
});

test('[#5] given a malformed identifier, when validated, then InvalidArgument names what it is', () => {
  for (const value of rejected) {
    const expected = { kind: 'InvalidArgument', message: /^container id/ };
    assert.throws(() => validateIdentifier(value, 'container id'), expected, JSON.stringify(value));
  }
});

test('given a huge hostile identifier, when validated, then the result comes at once', () => {
  const started = cpuMs();
  assert.throws(() => validateIdentifier(`${'a-'.repeat(500_000)}!`), { kind: 'InvalidArgument' });
  assert.throws(() => validateIdentifier(`${'a'.repeat(75)}!`), { kind: 'InvalidArgument' });
  assert.ok(cpuMs() - started < 1000);
});
