/** Layers over a storage: what is walked is what a plain merge says, however much of it is read and merged at a time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { layered } from '../../src/engine/core/reads.js';
import { SortedMap } from '../../src/engine/core/sorted-map.js';
import { compareUtf8 } from '../../src/model/utf8.js';

type Changes = [string, number | undefined][];

const name = fc.oneof(
  fc.nat({ max: 60 }).map((n) => `p\0${String(n).padStart(2, '0')}`),
  fc.constantFrom('o\0x', 'p', 'q', 'q\0a', 'p\0\u{1f600}', 'p\0\uff5e'),
);
const changes: fc.Arbitrary<Changes> = fc.array(
  fc.tuple(name, fc.option(fc.nat({ max: 99 }), { nil: undefined })),
  { maxLength: 80 },
);

function layerOf(list: Changes): SortedMap<number | undefined> {
  const layer = new SortedMap<number | undefined>();
  for (const [key, value] of list) layer.set(key, value);
  return layer;
}

test('given a storage and layers of any size, when walked, then it is what a plain merge says', () => {
  const stored = fc.uniqueArray(fc.tuple(name, fc.nat({ max: 99 })), {
    selector: ([key]) => key,
    maxLength: 60,
  });
  const after = fc.option(name, { nil: undefined });
  fc.assert(
    fc.property(
      stored,
      fc.array(changes, { maxLength: 2 }),
      after,
      fc.integer({ min: 1, max: 20 }),
      (rows, layers, behind, first) => {
        const sorted = [...rows].sort(([a], [b]) => compareUtf8(a, b));
        let most = 0;
        const read = (from: string | undefined, limit: number): [string, number][] => {
          most = Math.max(most, limit);
          return sorted
            .filter(([key]) => key.startsWith('p\0') && (from === undefined || compareUtf8(key, from) > 0))
            .slice(0, limit);
        };
        const expected = new Map<string, number>(rows);
        for (const list of layers) {
          for (const [key, value] of list) {
            if (value === undefined) expected.delete(key);
            else expected.set(key, value);
          }
        }
        const wanted = [...expected]
          .filter(([key]) => key.startsWith('p\0') && (behind === undefined || compareUtf8(key, behind) > 0))
          .sort(([a], [b]) => compareUtf8(a, b));
        const maps = layers.map(layerOf);
        assert.deepEqual([...layered<number>('p\0', behind, read, () => maps, first)], wanted);
      },
    ),
    { numRuns: 2000 },
  );
});

test('given a layer with many changes, when a few entries are taken, then no more than a few are put together', () => {
  let reported = 0;
  const layer = {
    size: 100_000,
    *from(start: string, exclusive: boolean): Generator<[string, number]> {
      const begin = start === 'p\0' ? 0 : Number(start.slice(2)) + (exclusive ? 1 : 0);
      for (let i = begin; i < 100_000; i++) {
        reported++;
        yield [`p\0${String(i).padStart(6, '0')}`, i];
      }
    },
  };
  const found: number[] = [];
  for (const [, value] of layered<number>(
    'p\0',
    undefined,
    () => [],
    () => [layer],
    100,
  )) {
    found.push(value);
    if (found.length === 250) break;
  }
  assert.deepEqual(
    found,
    Array.from({ length: 250 }, (_, i) => i),
  );
  assert.ok(reported < 1000, `${reported}`);
});
