/** The list of backend items without records: what goes in comes out, in order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type BackendItem, UnnamedItems } from '../../src/gc/unnamed-items.js';

const text = fc.string({ unit: 'grapheme', maxLength: 300 });
const item: fc.Arbitrary<BackendItem> = fc.oneof(
  text.map((digest) => ({ kind: 'blob' as const, digest })),
  text.map((ref) => ({ kind: 'ingest' as const, ref })),
  fc.tuple(text, text).map(([snapshotter, name]) => ({ kind: 'snapshot' as const, snapshotter, name })),
  fc
    .tuple(text, text, text)
    .map(([snapshotter, name, parent]) => ({ kind: 'snapshot' as const, snapshotter, name, parent })),
);

test('given items of every kind, when they are told, then they are answered in order', () => {
  fc.assert(
    fc.property(fc.array(item, { maxLength: 60 }), (items: BackendItem[]) => {
      const list = new UnnamedItems();
      assert.deepEqual([...list], []);
      for (const one of items) list.push(one);
      assert.equal(list.length, items.length);
      assert.deepEqual([...list], items);
      assert.deepEqual([...list], items, 'and again');
    }),
  );
});

test('given an item without a parent and one with none known, then they differ', () => {
  const list = new UnnamedItems();
  const root: BackendItem = { kind: 'snapshot', snapshotter: 'native', name: 'ns/1/a', parent: '' };
  const unknown: BackendItem = { kind: 'snapshot', snapshotter: 'native', name: 'ns/1/b' };
  list.push(root);
  list.push(unknown);
  assert.deepEqual([...list], [root, unknown]);
  assert.ok(list.size > 0);
});
