/** A record whose links are dropped from the front: what is read is what is there, however its links come and go meanwhile. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { linkPrefix } from '../../src/engine/core/storage.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { FirstLinks } from '../../src/engine/lmdb/first-links.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { key } from '../../src/engine/schema/keys.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { Random } from '../support/random.js';
import { tempDir } from './temp.js';

const owners = [key('leases', 'ns', 'one'), key('leases', 'ns', 'two')];
const relations = ['children', 'holds', 'holds.flat'];
const target = (i: number): string => key('blobs', 'ns', `sha256:${String(i).padStart(4, '0').repeat(16)}`);

test('given links dropped from the front, others that come, and the tree after them, when read, then they are as expected', async (t) => {
  const dir = await tempDir(t);
  const random = new Random(11);
  const engine: CoreEngine = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph() });
  t.after(() => engine.close());
  const { storage } = engine;
  assert.ok(storage instanceof LmdbStorage);
  const expected = new Map(owners.flatMap((o) => relations.map((r) => [o + r, new Set<string>()] as const)));
  const change = (owner: string, relation: string, to: readonly string[], present: boolean): Promise<void> =>
    engine.update(
      (tx) => {
        for (const one of to) {
          if (present) tx.link(owner, relation, one);
          else tx.unlink(owner, relation, one);
        }
      },
      { durability: 'visible' },
    );
  await engine.update((tx) => {
    for (const owner of owners) tx.put(owner, { size: 1 });
  });
  for (let round = 0; round < 160; round++) {
    const [owner, relation] = [
      owners[random.int(8) === 0 ? 1 : 0]!,
      relations[[1, 1, 1, 1, 2, 0][random.int(6)]!]!,
    ];
    const there = expected.get(owner + relation)!;
    const dice = random.int(10);
    if (there.size === 0 || dice === 0) {
      const some = Array.from({ length: dice === 0 ? 3 : 300 }, () => target(random.int(1000)));
      await change(owner, relation, some, true);
      for (const one of some) there.add(one);
    } else if (dice < 8) {
      const first = [...there].sort().slice(0, 1 + random.int(60));
      assert.deepEqual([...engine.links(owner, relation)].slice(0, first.length), first);
      await change(owner, relation, first, false);
      for (const one of first) there.delete(one);
    } else if (dice === 8) await storage.drain();
    else {
      const gone = [...there][random.int(there.size)]!;
      await change(owner, relation, [gone], false);
      there.delete(gone);
    }
    if (round % 4 === 0) {
      for (const r of relations)
        assert.deepEqual([...engine.links(owner, r)], [...expected.get(owner + r)!].sort());
      // As the removal of the record reads them.
      const all = storage.linkRange(`${owner}\0\0`, undefined, 10_000);
      assert.deepEqual(
        all,
        relations.flatMap((r) => [...expected.get(owner + r)!].sort().map((to) => linkPrefix(owner, r) + to)),
      );
    }
  }
  await engine.update((tx) => tx.delete(owners[0]!));
  assert.deepEqual(storage.linkRange(`${owners[0]}\0\0`, undefined, 10), []);
});

test('given many links that go, when more are read, then those that went are passed over, until one comes back', () => {
  const prefix = linkPrefix(owners[0]!, 'holds');
  const links = Array.from({ length: 300 }, (_, i) => prefix + target(i));
  const first = new FirstLinks(() => links[100]);
  first.wereRead(prefix, undefined, links.slice(0, 200));
  first.wereRead(prefix, links[199], links.slice(200));
  assert.equal(first.startAfter(prefix), undefined);
  first.added(new Map(links.slice(0, 100).map((link) => [link, false])));
  assert.equal(first.startAfter(prefix), links[99]);
  assert.equal(
    first.startAfter(`${owners[0]}\0\0`),
    links[99],
    'all of the record, which has no others before',
  );
  const other = linkPrefix(owners[1]!, 'holds');
  first.wereRead(other, undefined, [other + target(1)]);
  assert.equal(first.startAfter(prefix), links[99], 'a read of another record does not make it forget');
  first.added(new Map([[links[50]!, true]]));
  assert.equal(first.startAfter(prefix), undefined);
});
