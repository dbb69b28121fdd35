import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_PATHS, MaskedMap, maskedLabels, maskPaths, unknownPath } from '../../src/model/fieldpaths.js';
import type { Any } from '../../src/model/records.js';

/** The map after one path; null: the path is about something else. */
function applyMapPath<T>(
  field: string,
  path: string,
  current: Readonly<Record<string, T>> | undefined,
  given: Readonly<Record<string, T>> | undefined,
): Readonly<Record<string, T>> | undefined | null {
  const masked = new MaskedMap(field, current, given);
  return masked.apply(path) ? masked.map : null;
}

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

test('given a path of another field, when applied, then the result is null', () => {
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

test('given several paths, when applied, then as one after the other', () => {
  const given = { a: 'new', b: 'b' };
  const after = (...paths: string[]) => maskedLabels('content', 'x', { a: '1', c: '3' }, given, paths);
  assert.deepEqual(after('labels.a', 'labels.c'), { a: 'new' });
  assert.deepEqual(after('labels.c', 'labels'), given);
  assert.deepEqual(after('labels', 'labels.c', 'labels'), given);
  assert.deepEqual(after(), given);
  assert.throws(() => after('labels', 'size'), /cannot update content field "size"/);
});

/** Counts how often an entry of the map is looked at. */
function counted(map: Record<string, string>): { map: Record<string, string>; looks: () => number } {
  let looks = 0;
  const seen = new Proxy(map, {
    get: (target, name) => {
      looks++;
      return Reflect.get(target, name);
    },
  });
  return { map: seen, looks: () => looks };
}

test('given ten thousand paths and labels, when applied, then each label is looked at a few times', () => {
  const labels = Object.fromEntries(Array.from({ length: 10_000 }, (_, n) => [`k${n}`, `v${n}`]));
  const given = counted(labels);
  const current = counted(labels);
  const paths = Object.keys(labels).flatMap((key) => [`labels.${key}`, 'labels', `labels.${key}`]);
  assert.deepEqual(maskedLabels('content', 'x', current.map, given.map, paths.slice(0, MAX_PATHS)), labels);
  assert.ok(given.looks() + current.looks() < 5 * 10_000, `${given.looks()} and ${current.looks()} looks`);
});

test('given more paths than an update may have, when they are read, then InvalidArgument', () => {
  assert.throws(() => maskPaths(new Array(MAX_PATHS + 1).fill('labels')), /over the limit of 16384/);
});
