/** The list of backend items without records: what goes in comes out, in order. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { type BackendItem, OrphanCandidates } from '../../src/gc/sweep/orphan-candidates.js';

const text = fc.string({ unit: 'grapheme', maxLength: 300 });
const item: fc.Arbitrary<BackendItem> = fc.oneof(
  text.map((digest) => ({ kind: 'blob' as const, digest })),
  text.map((ref) => ({ kind: 'ingest' as const, ref })),
  fc.tuple(text, text).map(([snapshotter, name]) => ({ kind: 'snapshot' as const, snapshotter, name })),
  fc
    .tuple(text, text, text)
    .map(([snapshotter, name, parent]) => ({ kind: 'snapshot' as const, snapshotter, name, parent })),
  fc
    .tuple(text, text, fc.maxSafeNat())
    .map(([snapshotter, name, goneSince]) => ({ kind: 'snapshot' as const, snapshotter, name, goneSince })),
);

test('given items of every kind, when they are added, then they are returned in order', () => {
  fc.assert(
    fc.property(fc.array(item, { maxLength: 60 }), (items: BackendItem[]) => {
      const list = new OrphanCandidates();
      assert.deepEqual([...list], []);
      for (const one of items) list.push(one);
      assert.equal(list.length, items.length);
      assert.deepEqual([...list], items);
      assert.deepEqual([...list], items, 'and again');
    }),
  );
});

test('given an item without a parent and one with none known, then they differ', () => {
  const list = new OrphanCandidates();
  const root: BackendItem = { kind: 'snapshot', snapshotter: 'native', name: 'ns/1/a', parent: '' };
  const unknown: BackendItem = { kind: 'snapshot', snapshotter: 'native', name: 'ns/1/b' };
  list.push(root);
  list.push(unknown);
  assert.deepEqual([...list], [root, unknown]);
  assert.ok(list.size > 0);
});

const digestOf = (n: number): string => `sha256:${createHash('sha256').update(String(n)).digest('hex')}`;

test('given items of every kind, when asked for digests and refs, then each of those comes, digests once', () => {
  const digestish = fc.oneof(
    text,
    fc.nat({ max: 9 }).map(digestOf),
    fc.constantFrom('sha512:', ':', 'sha256:ABCDEF', 'no colon'),
  );
  const some = fc.oneof(
    item,
    digestish.map((digest) => ({ kind: 'blob' as const, digest })),
  );
  fc.assert(
    fc.property(fc.array(some, { maxLength: 80 }), fc.integer({ min: 1, max: 30 }), (items, size) => {
      const list = OrphanCandidates.of(items as BackendItem[]);
      const digests = items.flatMap((one) => (one.kind === 'blob' ? [one.digest] : []));
      const refs = items.flatMap((one) => (one.kind === 'ingest' ? [one.ref] : []));
      assert.deepEqual(
        [...list.refs()].filter((ref) => ref !== undefined),
        refs,
      );
      const returned = [...list.digests(size)].filter((part) => part !== undefined);
      assert.deepEqual(new Set(returned.flat()), new Set(digests));
      assert.deepEqual([...list], items);
      for (const part of returned) {
        assert.ok(part.length <= 2 * size);
        assert.equal(new Set(part).size, part.length);
      }
    }),
  );
});

test('given many digests, when asked for lists of them, then all come in order, once, and with pauses before', () => {
  const count = 30_000;
  const items = Array.from({ length: count }, (_, i) => [
    { kind: 'blob' as const, digest: digestOf(i) },
    { kind: 'blob' as const, digest: digestOf(i) },
    { kind: 'ingest' as const, ref: `r${i}` },
  ]).flat();
  const list = OrphanCandidates.of(items);
  const parts = [...list.digests(256)];
  const lists = parts.filter((part) => part !== undefined);
  assert.deepEqual(lists.flat(), Array.from({ length: count }, (_, i) => digestOf(i)).sort());
  assert.ok(lists.length > count / 256 && lists.length < count / 32, `${lists.length} lists`);
  const refs = [...list.refs()];
  assert.deepEqual(
    refs.filter((ref) => ref !== undefined),
    Array.from({ length: count }, (_, i) => `r${i}`),
  );
  // A step looks at some thousand items.
  assert.ok(parts.length - lists.length > 30 && refs.length - count > 15);
});

test('given digests that a client has chosen to begin alike, when asked for lists, then none is long', () => {
  const items = Array.from({ length: 3000 }, (_, i) => ({
    kind: 'blob' as const,
    digest: `sha256:00000000${digestOf(i).slice(15)}`,
  }));
  const lists = [...OrphanCandidates.of(items).digests(100)].filter((part) => part !== undefined);
  assert.ok(lists.every((part) => part.length <= 200));
  assert.deepEqual(new Set(lists.flat()), new Set(items.map(({ digest }) => digest)));
});
