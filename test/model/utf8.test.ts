import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compareUtf8, sortUtf8 } from '../../src/model/utf8.js';

test('given names beyond the basic plane, when sorted, then the order is that of their UTF-8 bytes', () => {
  const names = ['b', '\u{1f600}', 'é', '\uff5e', 'a', '', 'ab'];
  const sorted = ['', 'a', 'ab', 'b', 'é', '\uff5e', '\u{1f600}'];
  assert.deepEqual(names.toSorted(compareUtf8), sorted);
  assert.deepEqual(sortUtf8([...names]), sorted);
  assert.deepEqual(sortUtf8(['b', 'é', 'ab', 'a']), ['a', 'ab', 'b', 'é']);
});

test('given any two texts, when compared, then the sign is that of comparing their bytes', () => {
  // Few characters, so that common beginnings are common.
  const unit = fc.oneof(
    fc.constantFrom('a', 'b', 'é', '\ud7ff', '\ue000', '\uff5e', '\u{10000}', '\u{1f600}', '\u{1f601}'),
    fc.string({ unit: 'binary', maxLength: 1 }),
  );
  const text = fc.array(unit, { maxLength: 5 }).map((units) => units.join(''));
  fc.assert(
    fc.property(text, text, (a, b) => {
      assert.equal(Math.sign(compareUtf8(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)));
    }),
  );
});

test('given different texts with broken characters, when compared, then they are never equal', () => {
  assert.notEqual(compareUtf8('\ud800', '\ud801'), 0);
  assert.notEqual(compareUtf8('\ud800', '\ufffd'), 0);
  assert.equal(compareUtf8('\ud800', '\ud800'), 0);
});
