/** The texts of blobs in a plan are what their records say (src/policy/blob-texts.ts), and roots are read as their whole records are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NodeInMemory } from '../../src/engine/core/stored-node.js';
import { encodeValue } from '../../src/engine/schema/codec.js';
import { key } from '../../src/engine/schema/keys.js';
import type { Items } from '../../src/gc/report/items.js';
import { BlobTexts } from '../../src/policy/blob-texts.js';
import { readRoot } from '../../src/policy/root-record.js';

test('given instants of any size, when their texts are made, then they are those of their bigints', () => {
  const max = 2n ** 63n - 1n;
  const around = [
    0n,
    10n ** 9n,
    10n ** 14n,
    2n ** 32n,
    2n ** 31n * 10n ** 9n,
    1_700_000_000n * 10n ** 9n,
    max,
  ];
  const times = around.flatMap((time) => [time - 1n, time, time + 1n, -time]).filter((time) => time <= max);
  const items = {
    parentOf: (id: number) => (id === 1 ? 0 : 1),
    ofNode: Uint32Array.from(times, (_, n) => n),
    copyDigest: (item: number, target: Uint8Array, at: number) =>
      target.fill(item, at, at + 32) !== undefined,
    createdHigh: Int32Array.from(times, (time) => Number(time >> 32n)),
    createdLow: Uint32Array.from(times, (time) => Number(BigInt.asUintN(32, time))),
  } as unknown as Items;
  const ids = Uint32Array.from(times, (_, n) => n).reverse();
  const texts = new BlobTexts(items, ids);
  for (const [n, id] of ids.entries()) {
    const digest = `sha256:${id.toString(16).padStart(2, '0').repeat(32)}`;
    assert.equal(texts.digestAt(n), id === 1 ? undefined : digest);
    if (id !== 1) assert.equal(texts.identityAt(n), String(times[id]));
  }
});

test('given records of roots, when they are read for a plan, then what is asked for is what they hold', () => {
  const read = (record: Parameters<typeof encodeValue>[1]) => {
    const k = key('images', 'ns', 'name');
    return readRoot(new NodeInMemory(k, encodeValue(k, record)));
  };
  const target = { digest: `sha256:${'ab'.repeat(32)}`, mediatype: 'x', size: 3 };
  const times = { createdat: 5n, updatedat: 7n };
  const plain = { ...times, labels: undefined, target: target.digest, image: '' };
  assert.deepEqual(read({ ...times, target }), plain);
  const labels = { 'io.cri-containerd.pinned': 'pinned', other: '' };
  assert.deepEqual(read({ ...times, labels, annotations: { a: 'b' }, target }), { ...plain, labels });
  // In another order, with fields of no known name, and times outside 64 bits.
  const strange = { unknown: { deep: 1 }, target, createdat: 2n ** 70n, updatedat: -1n };
  assert.deepEqual(read(strange), { ...plain, createdat: 2n ** 70n, updatedat: -1n });
  const spec = { typeUrl: 'x', value: new Uint8Array(500) };
  const container = { ...times, spec, image: 'docker.io/a:b', runtime: { name: 'r', options: spec } };
  assert.deepEqual(read(container), { ...plain, target: undefined, image: 'docker.io/a:b' });
  assert.deepEqual(read({ createdat: 5n, labels: {} }), {
    ...plain,
    updatedat: undefined,
    labels: {},
    target: undefined,
  });
});
