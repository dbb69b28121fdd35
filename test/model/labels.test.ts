import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EbbtideError } from '../../src/errors.js';
import {
  compactMap,
  copyMap,
  inheritedSnapshotLabels,
  Label,
  labelOf,
  validateLabel,
  validateLabels,
} from '../../src/model/labels.js';

/** A map with entries that collide with what every object inherits. */
const awkward = (): Record<string, string> =>
  Object.fromEntries([
    ['__proto__', 'p'],
    ['constructor', 'c'],
    ['plain', '1'],
  ]);

function failure(run: () => void): EbbtideError {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof EbbtideError);
    assert.equal(error.kind, 'InvalidArgument');
    return error;
  }
  return assert.fail('nothing was thrown');
}

test('[#6] given 4096 bytes of key and value, when validated, then accepted; one more and it is not', () => {
  assert.doesNotThrow(() => validateLabel('k', 'v'.repeat(4095)));
  failure(() => validateLabel('k', 'v'.repeat(4096)));
  failure(() => validateLabels({ fine: '1', k: 'v'.repeat(4096) }));
});

test('[#7] given a long key, when the label is too large, then the message has its first 64 bytes and both sizes', () => {
  const key = `${'k'.repeat(63)}X${'y'.repeat(6)}`;
  const { message, object } = failure(() => validateLabel(key, 'v'.repeat(4097 - 70)));
  assert.ok(message.includes('4097') && message.includes('4096'), message);
  assert.ok(message.includes(key.slice(0, 64)) && !message.includes(key.slice(0, 65)), message);
  assert.equal(object, key.slice(0, 64));
});

test('[#7] given a key of wide characters, when it is cut, then no character is broken', () => {
  // 64 bytes end in the middle of the 22nd character of 3 bytes.
  const { message } = failure(() => validateLabel('€'.repeat(40), 'v'.repeat(5000)));
  assert.ok(message.includes('€'.repeat(21)) && !message.includes('€'.repeat(22)), message);
  assert.ok(!message.includes('\ufffd'), message);
});

test('[#8] given 2000 characters of three bytes, when validated, then bytes count', () => {
  failure(() => validateLabel('k', '€'.repeat(2000)));
  assert.doesNotThrow(() => validateLabel('k', '€'.repeat(1365)));
  failure(() => validateLabel('kk', '€'.repeat(1365)));
});

test('given a key that no store accepts, when validated, then InvalidArgument', () => {
  failure(() => validateLabel('', 'v'));
  failure(() => validateLabel('a\0b', 'v'));
  assert.doesNotThrow(() => validateLabels(undefined));
  assert.doesNotThrow(() => validateLabels({ '': '', a: '' }));
});

test('[#9] given empty values, when compacted, then they are gone and an empty rest is not a map', () => {
  assert.deepEqual(compactMap({ a: '1', b: '' }), { a: '1' });
  assert.deepEqual(compactMap({ a: '1', b: '2' }), { a: '1', b: '2' });
  assert.equal(compactMap({ b: '' }), undefined);
  assert.equal(compactMap({}), undefined);
  assert.equal(compactMap(undefined), undefined);
});

test('[#12] given a copied map, when the original changes, then the copy does not', () => {
  const original = { a: '1' };
  const copies = [copyMap(original), compactMap(original)];
  original.a = '2';
  assert.deepEqual(copies, [{ a: '1' }, { a: '1' }]);
  assert.deepEqual(copyMap(undefined), {});
});

test('given keys that objects inherit, when copied or looked up, then only own entries are seen', () => {
  assert.deepEqual(Object.entries(copyMap(awkward())), Object.entries(awkward()));
  assert.deepEqual(Object.entries(compactMap({ ...awkward(), gone: '' })!), Object.entries(awkward()));
  assert.deepEqual(Object.entries(compactMap(awkward())!), Object.entries(awkward()));
  assert.equal(labelOf(awkward(), '__proto__'), 'p');
  assert.equal(labelOf({}, '__proto__'), undefined);
  assert.equal(labelOf({}, 'constructor'), undefined);
  assert.equal(labelOf(undefined, 'a'), undefined);
});

test('[#140] [#141] given labels of a snapshot, when handed down, then only the inherited ones are', () => {
  assert.equal(inheritedSnapshotLabels(undefined), undefined);
  assert.deepEqual(inheritedSnapshotLabels({}), {});
  assert.deepEqual(inheritedSnapshotLabels({ '': '' }), {});
  assert.deepEqual(
    inheritedSnapshotLabels({
      [Label.snapshotRef]: 'target',
      [Label.snapshotUidMapping]: '0:1000:1',
      'containerd.io/snapshot/': 'bare prefix',
      'containerd.io/snapshot.ref.more': 'no',
      'containerd.io/snapshots': 'no',
      [Label.gcRoot]: 'no',
    }),
    {
      [Label.snapshotRef]: 'target',
      [Label.snapshotUidMapping]: '0:1000:1',
      'containerd.io/snapshot/': 'bare prefix',
    },
  );
});
