/** Values kept in memory: copies go out, changed keys come out, and there are never many. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Value } from '../../src/engine/contract.js';
import { copyOfValue, RecordCache } from '../../src/engine/lmdb/record-cache.js';

const scalar = fc.oneof(fc.string(), fc.double(), fc.bigInt(), fc.boolean(), fc.uint8Array({ maxLength: 8 }));
const name = fc.oneof(fc.string(), fc.constantFrom('__proto__', 'labels', '1'));
const map = fc.dictionary(name, scalar, { noNullPrototype: true, maxKeys: 4 });
const value = fc.oneof(
  fc.string(),
  fc.dictionary(
    name,
    fc.oneof(scalar, map, fc.dictionary(name, map, { noNullPrototype: true, maxKeys: 3 })),
    {
      noNullPrototype: true,
      maxKeys: 5,
    },
  ),
) as fc.Arbitrary<Value>;

/** Everything in a value that can be changed. */
function* parts(of: unknown): Generator<object> {
  if (typeof of !== 'object' || of === null) return;
  yield of;
  if (!(of instanceof Uint8Array)) for (const part of Object.values(of)) yield* parts(part);
}

test('given any value, when copied, then it is equal and shares nothing', () => {
  fc.assert(
    fc.property(value, (original) => {
      const copy = copyOfValue(original);
      assert.deepEqual(copy, original);
      assert.deepEqual(Object.keys(copy), Object.keys(original));
      const mine = new Set(parts(original));
      for (const part of parts(copy)) assert.equal(mine.has(part), false);
    }),
  );
});

test('given kept values, when a result is changed, then the next result is as the first', () => {
  const cache = new RecordCache();
  const first = cache.keep('a', { labels: { l: '1' } }) as { labels: Record<string, string> };
  first.labels.l = 'changed';
  assert.deepEqual(cache.get('a'), { labels: { l: '1' } });
  const second = cache.get('a') as { labels: Record<string, string> };
  second.labels.more = 'x';
  assert.deepEqual(cache.get('a'), { labels: { l: '1' } });
});

test('given many keys, when kept, then the ones asked for stay and the others go; deleted ones are gone', () => {
  const cache = new RecordCache();
  for (let i = 0; i < 20_000; i++) {
    cache.keep(`k${i}`, { i });
    assert.deepEqual(cache.get('k7'), i < 7 ? undefined : { i: 7 });
  }
  let kept = 0;
  for (let i = 0; i < 20_000; i++) if (cache.get(`k${i}`) !== undefined) kept++;
  assert.ok(kept >= 2048 && kept <= 4096, `${kept}`);
  const all = Array.from({ length: 20_000 }, (_, i) => `k${i}`);
  cache.delete(all.filter((k) => k !== 'k19999'));
  assert.deepEqual(
    all.filter((k) => cache.get(k) !== undefined),
    ['k19999'],
  );
});

test('given nodes that are asked for, when one comes again soon, then it is known; of others few are taken for known', () => {
  const cache = new RecordCache();
  let taken = 0;
  for (let id = 0; id < 200_000; id++) if (cache.wasAsked(id)) taken++;
  assert.ok(taken < 20_000, `${taken} of 200,000`);
  // Listed again where the list of reads began again in between.
  for (let round = 0; round < 2; round++) for (let id = 500_000; id < 504_000; id++) cache.wasAsked(id);
  for (let id = 500_000; id < 504_000; id++) assert.equal(cache.wasAsked(id), true);
});
