/** Contract suite: the graph follows the records; ids; what a collection relies on. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { present } from '../../errors.js';
import { type Engine, type Key, NodeFlag, type Transaction } from '../contract.js';
import { key } from '../schema/keys.js';
import { assertGraphSound, type EngineUnderTest, putAll, suiteIndexer } from './support.js';

type Test = (subject: EngineUnderTest, t: TestContext) => Promise<void>;

const image = (name: string): Key => key('images', 'ns', name);
const blob = (name: string): Key => key('blobs', 'ns', name);

/** Targets of a node's edges, as keys. */
function targets(engine: Engine, from: Key): Key[] {
  const id = engine.idOf(from);
  assert.ok(id !== undefined, from);
  // Of each edge its target, and its kind.
  const ids = [...engine.graph.edgesOf(id)].filter((_, i) => i % 2 === 0);
  return ids.map((target) => present(engine.keyOf(target), `the key of node ${target}`)).sort();
}

const EDGE_WORDS = ['label', 'structural', 'flat', 'back'];

/** Puts, deletes, links or unlinks something. */
function changeOne(tx: Transaction, next: (below: number) => number, any: () => Key): void {
  const choice = next(10);
  if (choice < 4) {
    const refs: Record<string, string> = {};
    for (let i = next(4); i > 0; i--) refs[`${EDGE_WORDS[next(4)]}.${i}`] = any();
    tx.put(any(), { root: next(5) === 0, refs, ...(next(6) === 0 && { expireat: BigInt(next(1000)) }) });
  } else if (choice < 7) {
    tx.delete(any());
  } else if (choice < 9) {
    tx.link(any(), next(2) === 0 ? 'holds' : 'holds.flat', any());
  } else {
    tx.unlink(any(), 'holds', any());
  }
}

/** A small repeatable random source. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

export const graphs: Record<string, Test> = {
  'given a record that refers to what is not there, when the target comes and goes, then its node stays':
    async ({ engine }) => {
      await putAll(engine, [[image('a'), { root: true, refs: { structural: blob('t') } }]]);
      const dangling = engine.idOf(blob('t'));
      assert.ok(dangling !== undefined);
      assert.equal(engine.get(blob('t')), undefined);
      assert.equal(engine.has(blob('t')), false);
      assert.deepEqual([...engine.scan('blobs')], []);
      assert.equal(engine.isReferenced(blob('t')), true);
      assert.equal(engine.graph.flagsOf(dangling), suiteIndexer.absent(blob('t')));
      await putAll(engine, [[blob('t'), { size: 1 }]]);
      assert.equal(engine.idOf(blob('t')), dangling);
      assert.ok(engine.graph.flagsOf(dangling) & NodeFlag.present);
      await engine.update((tx) => tx.delete(blob('t')));
      assert.equal(engine.idOf(blob('t')), dangling);
      assert.equal(engine.graph.flagsOf(dangling) & NodeFlag.present, 0);
      assertGraphSound(engine);
      await engine.update((tx) => tx.delete(image('a')));
      await putAll(engine, [[image('z'), {}]]);
      assert.equal(engine.isReferenced(blob('t')), false);
      assert.equal(engine.idOf(blob('t')), undefined);
      assert.equal(engine.keyOf(dangling) === blob('t'), false);
      assertGraphSound(engine);
    },

  'given records with references, when they change, then the edges change with them': async ({ engine }) => {
    await putAll(engine, [
      [
        image('a'),
        { refs: { 'label.1': blob('x'), 'label.2': blob('x'), structural: blob('y'), flat: blob('z') } },
      ],
    ]);
    assert.deepEqual(targets(engine, image('a')), [blob('x'), blob('x'), blob('y'), blob('z')]);
    await putAll(engine, [[image('a'), { refs: { 'label.1': blob('x'), back: blob('b') } }]]);
    assert.deepEqual(targets(engine, image('a')), [blob('x')]);
    assert.deepEqual(targets(engine, blob('b')), [image('a')]);
    assertGraphSound(engine);
    await putAll(engine, [[image('a'), { refs: {} }]]);
    assert.deepEqual(targets(engine, image('a')), []);
    assert.equal(engine.isReferenced(blob('b')), false);
    assertGraphSound(engine);
  },

  'given a record that refers to itself, when it is deleted, then nothing is left': async ({ engine }) => {
    await putAll(engine, [[image('a'), { refs: { label: image('a'), back: image('a') } }]]);
    assertGraphSound(engine);
    await engine.update((tx) => tx.delete(image('a')));
    assert.equal(engine.idOf(image('a')), undefined);
    assertGraphSound(engine);
  },

  'given roots with and without expiry, when they are stored, then the graph has both': async ({
    engine,
  }) => {
    const soon = 1_700_000_000_000_000_000n;
    await putAll(engine, [
      [image('plain'), { root: true }],
      [image('until'), { root: true, expireat: soon }],
      [image('far'), { root: true, expireat: 2n ** 70n }],
      [image('past'), { root: true, expireat: -(2n ** 70n) }],
    ]);
    const expiry = (name: string) => engine.graph.expiryOf(present(engine.idOf(image(name)), name));
    assert.equal(expiry('plain'), undefined);
    assert.equal(expiry('until'), soon);
    assert.equal(expiry('far'), 2n ** 63n - 1n);
    assert.equal(expiry('past'), -(2n ** 63n));
    await putAll(engine, [[image('until'), { root: true }]]);
    assert.equal(expiry('until'), undefined);
    assertGraphSound(engine);
  },

  'given links that are edges, when the record goes, then the edges go too': async ({ engine }) => {
    const lease = key('leases', 'ns', 'l');
    await engine.update((tx) => {
      tx.put(lease, { root: true });
      tx.link(lease, 'holds', blob('x'));
      tx.link(lease, 'holds.flat', blob('y'));
      tx.link(lease, 'children', blob('z'));
    });
    assert.deepEqual(targets(engine, lease), [blob('x'), blob('y')]);
    assert.equal(engine.isReferenced(blob('z')), false);
    await engine.update((tx) => tx.delete(lease));
    for (const name of ['x', 'y']) assert.equal(engine.isReferenced(blob(name)), false);
    assertGraphSound(engine);
  },

  'given deleted records, when new ones come, then their ids are used again and the graph does not grow':
    async ({ engine }) => {
      const names = Array.from({ length: 100 }, (_, i) => blob(`b${i}`));
      await putAll(
        engine,
        names.map((name) => [name, {}] as const),
      );
      const { limit } = engine.graph.stats();
      for (let round = 0; round < 5; round++) {
        await engine.update((tx) => {
          for (const name of names) tx.delete(name);
        });
        assert.equal(engine.graph.stats().nodes, 0);
        await putAll(
          engine,
          names.map((name, i) => [image(`r${round}-${i}`), { refs: { label: name } }] as const),
        );
        await engine.update((tx) => {
          for (let i = 0; i < 100; i++) tx.delete(image(`r${round}-${i}`));
        });
        // What became free with them is taken away by the commits that follow.
        await putAll(engine, [[image('one more'), {}]]);
        await engine.update((tx) => tx.delete(image('one more')));
        assert.equal(engine.graph.stats().nodes, 0);
        await putAll(
          engine,
          names.map((name) => [name, {}] as const),
        );
        assertGraphSound(engine);
      }
      assert.ok(engine.graph.stats().limit <= 2 * limit + 2, `limit ${engine.graph.stats().limit}`);
    },

  'given a collection under way, when a garbage record is deleted and made again, then it is not a candidate':
    async ({ engine }) => {
      await putAll(engine, [
        [blob('again'), {}],
        [blob('at once'), {}],
        [blob('garbage'), {}],
      ]);
      const { graph } = engine;
      await graph.mark(0n);
      try {
        const keysOf = () => [...graph.candidates()].map((id) => engine.keyOf(id)).sort();
        assert.deepEqual(keysOf(), [blob('again'), blob('at once'), blob('garbage')]);
        await engine.update((tx) => {
          tx.delete(blob('at once'));
          tx.put(blob('at once'), { size: 2 });
        });
        await engine.update((tx) => tx.delete(blob('again')));
        await putAll(engine, [[blob('again'), { size: 2 }]]);
        await putAll(engine, [[blob('new'), {}]]);
        assert.deepEqual(keysOf(), [blob('garbage')]);
      } finally {
        graph.endRun();
      }
      assertGraphSound(engine);
    },

  'given random changes, when the graph is compared with one derived again, then they are equal': async ({
    engine,
    reopen,
  }) => {
    const next = random(20260714);
    const keys = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? image(`i${i}`) : blob(`b${i}`)));
    const any = () => present(keys[next(keys.length)], 'a key');
    for (let round = 0; round < 120; round++) {
      await engine.update((tx) => {
        for (let i = next(6); i >= 0; i--) changeOne(tx, next, any);
      });
      if (round % 20 === 19) assertGraphSound(engine);
    }
    const before = [...engine.scan('')];
    const again = (await reopen?.()) ?? engine;
    assert.deepEqual([...again.scan('')], before);
    assertGraphSound(again);
  },
};
