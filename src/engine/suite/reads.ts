/** Contract suite: keys, order, values, plain reads. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { present } from '../../errors.js';
import { compareUtf8 } from '../../model/utf8.js';
import type { Engine, Key, Value } from '../contract.js';
import { CHUNK_BYTES } from '../core/reads.js';
import { decodeFields, decodeSlice } from '../schema/codec.js';
import { components, key } from '../schema/keys.js';
import { assertGraphSound, assertKind, type EngineUnderTest, keysBelow, putAll } from './support.js';

type Test = (subject: EngineUnderTest, t: TestContext) => Promise<void>;

const digest = (fill: string): string => `sha256:${fill.repeat(64).slice(0, 64)}`;

/** What is visited, by chunks. */
function visited(engine: Engine, prefix: Key): [Key, Value][][] {
  const chunks: [Key, Value][][] = [];
  let after: Key | undefined;
  do {
    const chunk: [Key, Value][] = [];
    after = engine.visit(prefix, after, (k, bytes, start, end) => {
      chunk.push([k, decodeSlice(k, bytes, start, end)]);
    });
    chunks.push(chunk);
  } while (after !== undefined);
  return chunks;
}

/** Names around every corner of the order: digests, what looks like one, other planes, prefixes of one another. */
const cornerNames = [
  'a',
  'a!',
  'ab',
  'r~',
  's',
  'sandbox',
  'sha255:zz',
  'sha256',
  'sha256:',
  'sha256:0',
  'sha256:-',
  digest('0'),
  digest('09'),
  `${digest('1')}x`,
  digest('1').slice(0, -1),
  'sha256:1z',
  'sha256:1A',
  'sha256:9:',
  digest('f'),
  `${digest('f')}.`,
  'sha256:g',
  digest('A'),
  'sha384:00',
  'sha512:00',
  't',
  'z',
  '~',
  'é',
  '豆',
  '\uff5e',
  '\u{1f600}',
  '\u{10ffff}',
  '__proto__',
  'x'.repeat(600),
  `${'x'.repeat(600)}y`,
  `${'x'.repeat(2000)}a`,
  `${'x'.repeat(2000)}b`,
  `${'x'.repeat(2000)}`,
  'y'.repeat(32768),
];

export const reads: Record<string, Test> = {
  'given names of every kind, when listed, then they come in the order of their UTF-8 bytes': async ({
    engine,
  }) => {
    const records = cornerNames.map((name) => [key('images', 'ns', name), { digest: name }] as const);
    await putAll(engine, [...records].reverse());
    const expected = records.map(([k]) => k).sort(compareUtf8);
    assert.deepEqual(keysBelow(engine, key('images', 'ns')), expected);
    for (const [k, value] of records) assert.deepEqual(engine.get(k), value);
    for (const [i, k] of expected.entries()) {
      const rest = [...engine.scan(key('images', 'ns'), { after: k })].map(([found]) => found);
      assert.deepEqual(rest, expected.slice(i + 1), `after ${k.slice(0, 80)}`);
    }
  },

  'given keys in several collections and levels, when a prefix is scanned, then only what is strictly below comes':
    async ({ engine }) => {
      const all = [
        key('images', 'a'),
        key('images', 'a', 'x'),
        key('images', 'a', 'x', 'deep'),
        key('images', 'a', 'xy'),
        key('images', 'ab', 'x'),
        key('blobs', 'a', digest('3')),
        key('unlisted', 'a', 'x'),
        key('imagery', 'a', 'x'),
      ];
      await putAll(
        engine,
        all.map((k) => [k, 'v'] as const),
      );
      assert.deepEqual(keysBelow(engine, key('images', 'a')), all.slice(1, 4));
      assert.deepEqual(keysBelow(engine, key('images', 'a', 'x')), [all[2]]);
      assert.deepEqual(keysBelow(engine, 'images'), all.slice(0, 5));
      assert.deepEqual(keysBelow(engine, ''), [...all].sort(compareUtf8));
      assert.deepEqual(keysBelow(engine, key('images', 'b')), []);
    },

  'given many records, when scanned with a limit and from a key, then that part comes': async ({
    engine,
  }) => {
    const names = Array.from({ length: 1500 }, (_, i) => `n${String(i).padStart(5, '0')}`);
    await putAll(
      engine,
      names.map((name) => [key('containers', 'ns', name), { image: name }] as const),
    );
    const prefix = key('containers', 'ns');
    assert.equal(keysBelow(engine, prefix).length, 1500);
    const some = [...engine.scan(prefix, { after: key('containers', 'ns', 'n00699'), limit: 3 })];
    assert.deepEqual(
      some.map(([k, value]) => [components(k)[2], value]),
      ['n00700', 'n00701', 'n00702'].map((name) => [name, { image: name }]),
    );
    assert.deepEqual([...engine.scan(prefix, { limit: 0 })], []);
    await engine.view((tx) => {
      assert.equal([...tx.scan(prefix, { limit: 700 })].length, 700);
    });
  },

  'given records, when visited, then each is passed on as it is stored, in the order of a scan': async ({
    engine,
  }) => {
    const all = cornerNames.map((name, i) => [key('images', 'ns', name), { digest: name, size: i }] as const);
    const many = Array.from(
      { length: 1100 },
      (_, i) => [key('images', 'many', `n${i}`), { size: i }] as const,
    );
    await putAll(engine, [...all, ...many]);
    // The newest are on their way still where commits take time.
    const late = engine.update((tx) => tx.put(key('images', 'ns', 'late'), 'text'));
    for (const prefix of [key('images', 'ns'), key('images', 'many'), 'images', 'blobs']) {
      assert.deepEqual(visited(engine, prefix).flat(), [...engine.scan(prefix)]);
    }
    await late;
    assert.throws(() => engine.visit('images', undefined, () => assert.fail('as it should')), /as it should/);
  },

  'given namespaces whose records go and come, when the first key of each is asked for, then none with a record is passed over':
    async ({ engine }) => {
      const records = ['a', 'b', 'c'].flatMap((ns) =>
        ['0', '09', 'f'].map((fill) => key('blobs', ns, digest(fill))),
      );
      const check = (...expected: string[]): void => {
        const found: string[] = [];
        for (let after: Key | undefined; ; ) {
          const first = engine.firstKey('blobs', after);
          if (first === undefined) break;
          const [, ns = ''] = components(first);
          found.push(ns);
          after = `${key('blobs', ns)}\x01`;
        }
        assert.deepEqual(found, [...new Set(found)].sort(compareUtf8));
        for (const ns of expected) assert.ok(found.includes(ns), `${ns} among ${found}`);
        for (const k of records) assert.ok(!(engine.isGone(k, since) && engine.has(k)), k);
      };
      let since = engine.revision;
      await putAll(engine, [[key('images', 'z', 'x'), 'v']]);
      check();
      await putAll(
        engine,
        records.map((k) => [k, 'v'] as const),
      );
      await engine.flush();
      check('a', 'b', 'c');
      since = engine.revision;
      await engine.update((tx) => {
        for (const k of records.slice(1)) tx.delete(k);
      });
      check('a');
      await putAll(
        engine,
        records.slice(6).map((k) => [k, 'again'] as const),
      );
      check('a', 'c');
      assert.equal(engine.firstKey('ingests', undefined), undefined);
    },

  'given records of nodes, when they are read by their ids, then each as it is stored, with the digest that its key ends in':
    async ({ engine }) => {
      const all = cornerNames.map(
        (name, i) => [key('images', 'ns', name), { digest: name, size: i }] as const,
      );
      await putAll(engine, all);
      await engine.update((tx) =>
        tx.put(key('images', 'ns', 'holder'), { refs: { label: key('blobs', 'ns', 'x') } }),
      );
      const read = (k: Key) =>
        engine.readNode(present(engine.idOf(k), 'an id'), (node) => {
          const digest = Buffer.alloc(34);
          const end = node.copyDigest(digest, 1) ? `sha256:${digest.toString('hex', 1, 33)}` : undefined;
          return [node.key, node.parent + node.leaf, decodeFields(node, new Set(['size'])), end];
        });
      const expected = all.map(([k, { size }]) => {
        const name = components(k)[2] ?? '';
        return [k, k, { size }, /^sha256:[0-9a-f]{64}$/.test(name) ? name : undefined];
      });
      // Visible, and perhaps not in the tree yet.
      const added = [key('images', 'ns', digest('77')), { size: 77 }] as const;
      await engine.update((tx) => tx.put(...added), { durability: 'visible' });
      assert.deepEqual(read(key('images', 'ns', digest('77'))), [
        key('images', 'ns', digest('77')),
        key('images', 'ns', digest('77')),
        { size: 77 },
        digest('77'),
      ]);
      assert.deepEqual(
        all.map(([k]) => read(k)),
        expected,
      );
      // What something refers to has a node, and no record.
      assert.equal(read(key('blobs', 'ns', 'x')), undefined);
    },

  'given large records, when they are read, then a few at a time': async ({ engine }) => {
    const prefix = key('containers', 'ns');
    const text = 'x'.repeat(CHUNK_BYTES / 8);
    const large = (i: number) => [key('containers', 'ns', `n${i}`), { text }] as const;
    await putAll(
      engine,
      Array.from({ length: 40 }, (_, i) => large(i)),
    );
    await engine.update((tx) => tx.put(...large(40)), { durability: 'visible' });
    for (const when of ['on its way', 'stored']) {
      const chunks = visited(engine, prefix);
      assert.deepEqual(
        chunks.map(({ length }) => length),
        [8, 8, 8, 8, 8, 1],
        when,
      );
      assert.deepEqual(chunks.flat(), [...engine.scan(prefix)]);
      await engine.flush();
    }
  },

  'given values of every kind, when stored, then they come back equal and not shared': async ({
    engine,
    reopen,
  }) => {
    const values: Value[] = [
      '',
      'text',
      {},
      { labels: {} },
      { labels: { 'containerd.io/gc.root': 'yes', '': 'empty', ['__proto__']: 'own' }, size: 0 },
      { a: -1, b: 2 ** 53 - 1, c: -(2 ** 53 - 1), d: 0.5, e: Number.NaN, f: -0, g: Number.POSITIVE_INFINITY },
      { createdat: 1n, updatedat: 1n, zero: -62_135_596_800_000_000_000n, far: 2n ** 70n, negative: -5n },
      { spec: new Uint8Array([0, 1, 255]), empty: new Uint8Array(), on: true, off: false },
      {
        digest: digest('a'),
        ref: `x/y@${digest('b')}`,
        id: 'c'.repeat(64),
        other: `sha512:${'d'.repeat(128)}`,
      },
      { name: 'default/17/the-record', deep: { er: { still: { value: 'é豆\u{1f600}' } } } },
      { long: 'x'.repeat(70_000), bytes: new Uint8Array(300_000).fill(7) },
    ];
    const keyOf = (i: number): Key => key('snapshots', 'default', 'native', `the-record-${i}`);
    await putAll(
      engine,
      values.map((value, i) => [keyOf(i), value] as const),
    );
    for (const [i, value] of values.entries()) assert.deepEqual(engine.get(keyOf(i)), value);
    const first = engine.get(keyOf(4));
    assert.ok(typeof first === 'object' && typeof first.labels === 'object');
    Object.assign(first.labels, { changed: 'by the caller' });
    assert.deepEqual(engine.get(keyOf(4)), values[4]);
    if (reopen === undefined) return;
    const again = await reopen();
    for (const [i, value] of values.entries()) assert.deepEqual(again.get(keyOf(i)), value);
  },

  'given records that are read again and again, when they change or go, then reads follow at once': async ({
    engine,
    reopen,
  }) => {
    const keys = Array.from({ length: 12 }, (_, i) => key('images', 'ns', `n${i}`));
    const values: (Value | undefined)[] = keys.map((_, i) => ({ size: i, labels: { i: `${i}` } }));
    await engine.update((tx) => {
      for (const [i, k] of keys.entries()) tx.put(k, present(values[i], k));
    });
    // Where commits are brought to their place later, some are there then and others on their way.
    let current = (await reopen?.()) ?? engine;
    for (let round = 0; round < 48; round++) {
      const at = (round * 7) % keys.length;
      const k = present(keys[at], 'a key');
      for (const [i, one] of keys.entries()) assert.deepEqual(current.get(one), values[i]);
      const next = round % 3 === 0 ? undefined : { size: round, labels: { round: `${round}` } };
      await current.update((tx) => {
        assert.deepEqual(tx.get(k), values[at]);
        if (next === undefined) tx.delete(k);
        else tx.put(k, next);
        assert.deepEqual(tx.get(k), next);
        assert.deepEqual(current.get(k), values[at], 'outside, before the commit');
      });
      values[at] = next;
      assert.deepEqual(current.get(k), next);
      if (round % 16 === 15) current = (await reopen?.()) ?? current;
    }
  },

  'given a bad key or value, when put, then it is refused and nothing is stored': async ({ engine }) => {
    const bad: [Key, unknown][] = [
      ['', 'v'],
      ['images\0\0x', 'v'],
      ['images\0ns\0', 'v'],
      ['images\0ns\0\ud800', 'v'],
      [key('images', 'ns', 'x'), { list: ['a'] }],
      [key('images', 'ns', 'x'), { nothing: null }],
      [key('images', 'ns', 'x'), { half: 'a\udc00' }],
    ];
    for (const [k, value] of bad) {
      await assert.rejects(
        engine.update((tx) => tx.put(k, value as Value)),
        assertKind('InvalidArgument'),
      );
    }
    assert.deepEqual(keysBelow(engine, ''), []);
  },

  'given links, when added and removed, then they are sets in key order that go with their record': async ({
    engine,
  }) => {
    const lease = key('leases', 'ns', 'l');
    const [blob, image, ingest] = [
      key('blobs', 'ns', digest('1')),
      key('images', 'ns', 'i'),
      key('ingests', 'ns', 'r'),
    ];
    const held = [blob, image, ingest];
    await engine.update((tx) => {
      tx.put(lease, {});
      assert.equal(tx.link(lease, 'holds', ingest), true);
      assert.equal(tx.link(lease, 'holds', blob), true);
      assert.equal(tx.link(lease, 'holds', image), true);
      assert.equal(tx.link(lease, 'holds', image), false);
      assert.equal(tx.link(lease, 'odd relation', image), true);
      assert.deepEqual([...tx.links(lease, 'holds')], held);
    });
    assert.deepEqual([...engine.links(lease, 'holds')], held);
    assert.deepEqual([...engine.links(lease, 'odd relation')], [image]);
    assert.equal(engine.hasLink(lease, 'holds', blob), true);
    assert.equal(engine.hasLink(lease, 'holds.flat', blob), false);
    assertGraphSound(engine);
    await engine.update((tx) => {
      assert.equal(tx.unlink(lease, 'holds', blob), true);
      assert.equal(tx.unlink(lease, 'holds', blob), false);
    });
    assert.deepEqual([...engine.links(lease, 'holds')], held.slice(1));
    await engine.update((tx) => {
      assert.equal(tx.delete(lease), true);
      assert.equal(tx.hasLinks(lease, 'holds'), false);
      tx.put(lease, {});
      tx.link(lease, 'holds', ingest);
    });
    assert.deepEqual([...engine.links(lease, 'holds')], [ingest]);
    assert.equal(engine.hasLinks(lease, 'odd relation'), false);
    assertGraphSound(engine);
  },

  'given long link ends, when listed, then they are whole and in order': async ({ engine, reopen }) => {
    const from = key('snapshots', 'ns', 'native', 'f'.repeat(900));
    const to = ['c', 'a', 'b'].map((end) => key('snapshots', 'ns', 'native', 'g'.repeat(1500) + end));
    await engine.update((tx) => {
      tx.put(from, {});
      for (const target of to) tx.link(from, 'children', target);
    });
    const expected = [...to].sort(compareUtf8);
    assert.deepEqual([...engine.links(from, 'children')], expected);
    const again = (await reopen?.()) ?? engine;
    assert.deepEqual([...again.links(from, 'children')], expected);
    await again.update((tx) => tx.delete(from));
    assert.deepEqual([...again.links(from, 'children')], []);
  },
};
