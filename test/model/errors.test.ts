/** Errors: kinds, codes, and those of a second copy of the package. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DamagedContent } from '../../src/backends/damaged.js';
import * as errors from '../../src/errors.js';
import { meant } from '../../src/system/system-errors.js';

const { EbbtideError, errorKinds, isNotFound, kindOf, notFound, OutcomeUnknown, wrap } = errors;

test('given each kind, then its error has a code of its own, and prints as before', () => {
  const codes = errorKinds.map((kind) => new EbbtideError(kind, 'x').code);
  assert.ok(codes.includes('EBBTIDE_NOT_FOUND') && codes.includes('EBBTIDE_DEADLINE_EXCEEDED'));
  assert.equal(new Set(codes).size, errorKinds.length);
  const unknown = new OutcomeUnknown('x');
  assert.deepEqual([unknown.kind, unknown.code], ['Unavailable', 'EBBTIDE_OUTCOME_UNKNOWN']);
  assert.equal(String(notFound('image "x" not found')), 'EbbtideError: image "x" not found');
  assert.equal(wrap('reading', notFound('x')).code, 'EBBTIDE_NOT_FOUND');
});

test('given subclasses, then each is itself and an EbbtideError, and no other', () => {
  const plain = notFound('x');
  const damaged = new DamagedContent('sha256:1', 'x');
  const unknown = new OutcomeUnknown('x');
  assert.deepEqual(
    [plain, damaged, unknown, new Error('x'), undefined, { kind: 'NotFound' }].map((error) => [
      error instanceof EbbtideError,
      error instanceof DamagedContent,
      error instanceof OutcomeUnknown,
    ]),
    [
      [true, false, false],
      [true, true, false],
      [true, false, true],
      [false, false, false],
      [false, false, false],
      [false, false, false],
    ],
  );
});

test('given a second copy of the package, then its errors are recognised', async () => {
  const copy = (await import(
    `${new URL('../../src/errors.js', import.meta.url).href}?copy`
  )) as typeof errors;
  assert.notEqual(copy.EbbtideError, EbbtideError);
  const foreign = copy.notFound('x');
  assert.ok(foreign instanceof EbbtideError && isNotFound(foreign));
  assert.equal(kindOf(new Error('outer', { cause: foreign })), 'NotFound');
  assert.ok(new copy.OutcomeUnknown('x') instanceof OutcomeUnknown);
  assert.ok(!(foreign instanceof OutcomeUnknown));
});

test('given an error that is wrapped, then object and remedy are its cause’s, unless there are others', () => {
  const cause = notFound('x', { object: 'o', remedy: 'r' });
  const parts = (error: InstanceType<typeof EbbtideError>) => [error.kind, error.object, error.remedy];
  assert.deepEqual(parts(wrap('reading', cause)), ['NotFound', 'o', 'r']);
  assert.deepEqual(parts(wrap('reading', cause, { object: 'p', remedy: 's' })), ['NotFound', 'p', 's']);
});

test('given an error of the system that nobody has given a kind, when it leaves the program, then it has one, and a remedy', () => {
  const system = (code: string) => Object.assign(new Error(`${code}: so the disk says`), { code });
  for (const [code, kind] of [
    ['EIO', 'Unavailable'],
    ['ENOSPC', 'Unavailable'],
    ['EROFS', 'FailedPrecondition'],
  ] as const) {
    const inner = wrap('cannot look', system(code), { object: 'o' });
    for (const error of [meant(system(code)), meant(inner), meant(new Error('x', { cause: system(code) }))]) {
      assert.ok(error instanceof EbbtideError);
      assert.equal(error.kind, kind);
      assert.ok(error.remedy);
    }
    assert.equal((meant(inner) as InstanceType<typeof EbbtideError>).object, 'o');
  }
  // It says nothing about what the caller named, and what has a kind keeps it.
  for (const error of [
    system('ENOENT'),
    system('EEXIST'),
    new Error('x'),
    notFound('x', { cause: system('EIO') }),
  ])
    assert.equal(meant(error), error);
});
