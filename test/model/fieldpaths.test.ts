import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyMapPath, unknownPath } from '../../src/model/fieldpaths.js';
import type { Any } from '../../src/model/records.js';

const stored = { a: '1', 'x.y/z': 'old' };

test('given the path of the whole field, when applied, then the map is replaced without empty values', () => {
  assert.deepEqual(applyMapPath('labels', 'labels', stored, { b: '2', c: '' }), { b: '2' });
  assert.equal(applyMapPath('labels', 'labels', stored, {}), undefined);
  assert.equal(applyMapPath('labels', 'labels', stored, undefined), undefined);
});

test('[#10] given an entry the object lacks or has empty, when its path is applied, then it is deleted', () => {
  assert.deepEqual(applyMapPath('labels', 'labels.a', stored, {}), { 'x.y/z': 'old' });
  assert.deepEqual(applyMapPath('labels', 'labels.a', stored, { a: '' }), { 'x.y/z': 'old' });
  assert.deepEqual(applyMapPath('labels', 'labels.a', stored, undefined), { 'x.y/z': 'old' });
  assert.equal(applyMapPath('labels', 'labels.a', { a: '1' }, {}), undefined);
  assert.equal(applyMapPath('labels', 'labels.a', undefined, {}), undefined);
});

test('[#11] given a key with dots and slashes, when its path is applied, then exactly that entry changes', () => {
  const given = { a: 'ignored', x: 'ignored', 'x.y/z': 'new' };
  assert.deepEqual(applyMapPath('labels', 'labels.x.y/z', stored, given), { a: '1', 'x.y/z': 'new' });
  assert.deepEqual(stored, { a: '1', 'x.y/z': 'old' });
});

test('given a path of another field, when applied, then the answer is null', () => {
  for (const path of ['label', 'labelsx', 'labels/a', 'annotations.a', '', 'Labels']) {
    assert.equal(applyMapPath('labels', path, stored, stored), null, path);
  }
});

test('given a name that objects inherit, when its path is applied, then it is an entry like any other', () => {
  assert.equal(applyMapPath('labels', 'labels.constructor', undefined, {}), undefined);
  const given: Record<string, string> = Object.fromEntries([['__proto__', 'p']]);
  const result = applyMapPath('labels', 'labels.__proto__', { a: '1' }, given);
  assert.deepEqual(Object.entries(result ?? {}), [
    ['a', '1'],
    ['__proto__', 'p'],
  ]);
});

test('given extensions, when paths are applied, then typed messages replace and go like texts do', () => {
  const one: Any = { typeUrl: 'one', value: Uint8Array.of(1) };
  const two: Any = { typeUrl: 'two', value: new Uint8Array(0) };
  assert.deepEqual(applyMapPath('extensions', 'extensions.b', { a: one }, { a: two, b: two }), {
    a: one,
    b: two,
  });
  assert.deepEqual(applyMapPath('extensions', 'extensions.a', { a: one, b: two }, {}), { b: two });
  assert.deepEqual(applyMapPath('extensions', 'extensions', { a: one }, { b: two }), { b: two });
});

test('given an unknown path, when the error is made, then it names the kind, the path and the object', () => {
  const error = unknownPath('image', 'target.size', 'docker.io/library/x');
  assert.equal(error.kind, 'InvalidArgument');
  assert.equal(error.message, 'cannot update image field "target.size"');
  assert.equal(error.object, 'docker.io/library/x');
});
