/**
 * Blobs in a plan of a policy: their records are read once, quickly where they are as the stores write them (gc/report/items.ts). Whatever
 * they are like, the plan names them as their records do.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { blobKey, components } from '../../src/engine/schema/keys.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { identityOf } from '../../src/gc/report/dry-run.js';
import { createGraph } from '../../src/graph/carriers.js';
import { newDB } from '../../src/open.js';
import { FakeContent } from '../support/fake-backends.js';
import { digest } from '../support/gc-world.js';
import { tempDir } from '../support/temp.js';

const time = 1_700_000_000_000_000_001n;
const hex512 = 'ab'.repeat(64);

/** By namespace and digest. */
const records = {
  usual: [blobKey('one', digest('1')), { createdat: time, updatedat: time, size: 10 }],
  later: [
    blobKey('two', digest('2')),
    { createdat: time, updatedat: time + 5n, size: 20, labels: { a: 'b' } },
  ],
  'labels first': [blobKey('one', digest('3')), { labels: { a: 'b' }, createdat: time, size: 30 }],
  'size first': [blobKey('one', digest('4')), { size: 40, createdat: -time }],
  'a field of its own': [blobKey('one', digest('5')), { other: { deep: time }, size: 50, createdat: time }],
  'a list of bytes': [blobKey('one', digest('6')), { value: Buffer.alloc(9), size: 60, createdat: time }],
  'no size': [blobKey('one', digest('7')), { createdat: time }],
  'a size that none can be': [blobKey('one', digest('8')), { createdat: time, size: -5 }],
  'a size of another kind': [blobKey('one', digest('9')), { createdat: time, size: 'x' }],
  'no time': [blobKey('one', digest('10')), { size: 100 }],
  'a time of another kind': [blobKey('one', digest('11')), { createdat: 5, size: 110 }],
  'a time beyond 64 bits': [blobKey('one', digest('12')), { createdat: 2n ** 70n, size: 120 }],
  'the same in two namespaces': [blobKey('two', digest('1')), { createdat: time + 1n, size: 10 }],
  'another digest': [blobKey('one', `sha512:${hex512}`), { createdat: time, size: 140 }],
} as const;

for (const carrier of ['native', 'wasm'] as const) {
  test(`given blobs of all shapes, and the ${carrier} graph, when a policy is planned, then the plan names each as its record does`, async (t) => {
    const dir = await tempDir(t);
    const open = () => openLmdbEngine(dir, { indexer: metadataIndexer, graph: createGraph(carrier) });
    const first = await open();
    await first.update((tx) => {
      for (const [k, value] of Object.values(records)) tx.put(k, value);
    });
    // All of them from the tree, and one that it does not have yet.
    await first.close();
    const engine = await open();
    const db = await newDB(undefined, engine, new FakeContent(), {});
    t.after(() => db.close());
    const late = [blobKey('three', digest('13')), { createdat: time, updatedat: time, size: 7 }] as const;
    await engine.update((tx) => tx.put(...late), { durability: 'visible' });
    const { objects } = await db.planPolicy({ rules: [{}] });
    const expected = [...Object.values(records), late].map(([k, value]) => {
      const [, namespace = '', name = ''] = components(k);
      const { size = 0 } = value as { size?: unknown };
      const known = typeof size === 'number' && size > 0 ? size : 0;
      return { kind: 'content', namespace, key: name, size: known, identity: identityOf(value) };
    });
    const byName = (list: typeof expected): typeof expected =>
      list.sort((a, b) => (`${a.key} ${a.namespace}` < `${b.key} ${b.namespace}` ? -1 : 1));
    // Of a blob in two namespaces the first one has the bytes.
    const second = expected.find(({ namespace, key }) => namespace === 'two' && key === digest('1'));
    if (second !== undefined) second.size = 0;
    assert.deepEqual(byName(objects), byName(expected));
  });
}
