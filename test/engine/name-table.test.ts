import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NameTable } from '../../src/engine/schema/name-table.js';

const someName = fc.oneof(
  fc.integer({ min: 0, max: 40 }).map((n) => `sha256:${String(n).padStart(64, '0')}`),
  fc.integer({ min: 0, max: 40 }).map((n) => `overlayfs\0ns/${n}/sha256:${'a'.repeat(64)}`),
  fc.string({ unit: 'grapheme', maxLength: 200 }),
);

test('given any names, when added, then each has one number, by which it is found', () => {
  fc.assert(
    fc.property(fc.array(someName, { maxLength: 200 }), (added) => {
      const names = new NameTable();
      const numbers = new Map<string, number>();
      for (const name of added) {
        assert.equal(names.find(name), numbers.get(name));
        if (!numbers.has(name)) numbers.set(name, names.length);
        assert.equal(names.add(name), numbers.get(name));
      }
      assert.equal(names.length, numbers.size);
      for (const [name, number] of numbers)
        assert.deepEqual([names.at(number), names.find(name)], [name, number]);
    }),
  );
});

test('given a digest as bytes and as a text, when both are added, then they are one', () => {
  const names = new NameTable();
  const digest = Buffer.from('07'.repeat(32), 'hex');
  const node = { copyDigest: (target: Uint8Array, at: number) => digest.copy(target, at) === digest.length };
  assert.equal(names.addDigest({ copyDigest: () => false }), undefined);
  assert.equal(names.addDigest(node), 0);
  assert.equal(names.add(`sha256:${'07'.repeat(32)}`), 0);
  for (let n = 0; n < 20_000; n++) assert.equal(names.add(`other ${n}`), n + 1);
  assert.equal(names.addDigest(node), 0);
  assert.equal(names.at(0), `sha256:${'07'.repeat(32)}`);
});
