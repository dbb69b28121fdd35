import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { GraphCore } from '../../src/engine/graph.js';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import {
  blobKey,
  containerKey,
  imageKey,
  ingestKey,
  leaseKey,
  mountKey,
  namespaceKey,
  Relation,
  sandboxKey,
  snapshotKey,
} from '../../src/engine/schema/keys.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { createGraph } from '../../src/graph/carriers.js';
import { formatTimestamp, now } from '../../src/model/time.js';
import { digest, gc, World } from '../support/gc-world.js';
import { collectibles, readModel, survivors } from '../support/oracle.js';

const HOUR = 3_600_000_000_000n;
const blobs = ['a', 'b', 'c', 'd', 'e'];
const snapshots = ['s1', 's2', 's3', 's4'];
const images = ['i1', 'i2', 'i3'];
const snapshotters = ['native', 'other'];

const digestArb = fc.constantFrom(...blobs).map(digest);
const snapshotter = fc.constantFrom(...snapshotters);
const snapshotName = fc.constantFrom(...snapshots);
const mountName = fc.constantFrom('m1', 'm2');
const imageName = fc.constantFrom(...images);
const namespace = fc.constantFrom('ns1', 'ns2');
const expiry = fc.constantFrom('past', 'future', 'never');

type Label = readonly [string, string];
const suffix = fc.constantFrom('', '.0', '/x', '.l.1');
const forward: fc.Arbitrary<Label> = fc.oneof(
  fc.tuple(suffix, digestArb).map(([s, d]): Label => [gc(`ref.content${s}`), d]),
  fc.tuple(suffix, imageName).map(([s, i]): Label => [gc(`ref.image${s}`), i]),
  fc.tuple(suffix, mountName).map(([s, m]): Label => [gc(`ref.mount${s}`), m]),
  fc
    .tuple(snapshotter, fc.constantFrom('', '/1'), snapshotName)
    .map(([n, s, k]): Label => [gc(`ref.snapshot.${n}${s}`), k]),
  fc.constantFrom<Label>(
    [gc('ref.contents'), digest('a')],
    [gc('ref.other'), 'x'],
    [gc('ref.mounts'), 'm1'],
    ['containerd.io/gc.reference', 'x'],
  ),
);
const back: fc.Arbitrary<Label> = fc.oneof(
  fc.tuple(suffix, digestArb).map(([s, d]): Label => [gc(`bref.content${s}`), d]),
  fc.tuple(suffix, imageName).map(([s, i]): Label => [gc(`bref.image${s}`), i]),
  fc.tuple(snapshotter, snapshotName).map(([n, k]): Label => [gc(`bref.snapshot.${n}`), k]),
  fc.constant<Label>([gc('bref.container'), 'c1']),
);
const special: fc.Arbitrary<Label> = fc.oneof(
  fc.constantFrom<Label>([gc('root'), 'x'], [gc('rooted.2'), 'x']),
  fc
    .tuple(snapshotter, snapshotName, fc.constantFrom('<7200s', '>7200s'))
    .map(([n, k, test]): Label => [gc(`cond.snapshot.${n}/${test}`), `usedat${test}|${k}`]),
  fc.constantFrom<Label>(
    [gc('cond.value-usedat.x'), 'past'],
    [gc('cond.value-usedat.y'), 'never'],
    ['plain', 'label'],
  ),
);
const labels = fc
  .array(
    fc.oneof(
      { weight: 4, arbitrary: forward },
      { weight: 2, arbitrary: back },
      { weight: 1, arbitrary: special },
    ),
    { maxLength: 4 },
  )
  .map((list) => Object.fromEntries(list));
const resource = fc.oneof(
  digestArb.map((key) => ({ kind: 'content', key })),
  imageName.map((key) => ({ kind: 'image', key })),
  fc.constantFrom('r1', 'r2').map((key) => ({ kind: 'ingest', key })),
  mountName.map((key) => ({ kind: 'mount', key })),
  fc.tuple(snapshotter, snapshotName).map(([n, k]) => ({ kind: 'snapshot', key: `${n}/${k}` })),
);

const alteration = fc.oneof(
  fc.record({ op: fc.constant('blob' as const), namespace, key: digestArb, labels }),
  fc.record({
    op: fc.constant('image' as const),
    namespace,
    key: imageName,
    target: digestArb,
    labels,
    expiry,
  }),
  fc.record({
    op: fc.constant('container' as const),
    namespace,
    key: fc.constantFrom('c1', 'c2'),
    snapshotter: fc.constantFrom('', ...snapshotters),
    snapshotKey: fc.constantFrom('', ...snapshots),
    labels,
  }),
  fc.record({
    op: fc.constant('snapshot' as const),
    namespace,
    key: snapshotName,
    snapshotter,
    parent: fc.constantFrom('', '', ...snapshots),
    labels,
  }),
  fc.record({
    op: fc.constant('ingest' as const),
    namespace,
    key: fc.constantFrom('r1', 'r2'),
    expected: fc.option(digestArb, { nil: '' }),
    expiry,
  }),
  fc.record({ op: fc.constant('mount' as const), namespace, key: mountName, labels }),
  fc.record({ op: fc.constant('sandbox' as const), namespace, key: fc.constant('p1'), labels }),
  fc.record({
    op: fc.constant('lease' as const),
    namespace,
    key: fc.constantFrom('l1', 'l2', 'l3'),
    flat: fc.boolean(),
    expiry,
    resources: fc.array(resource, { maxLength: 4 }),
  }),
);
type Alteration = typeof alteration extends fc.Arbitrary<infer T> ? T : never;

const timeOf = (when: string): bigint => now() + (when === 'past' ? -HOUR : HOUR);

function stamped(map: Record<string, string>): Record<string, string> {
  const entries = Object.entries(map).map(([k, v]) => [
    k,
    v === 'past' && k.includes('usedat') ? formatTimestamp(timeOf('past')) : v,
  ]);
  return Object.fromEntries(entries);
}

function expiring(map: Record<string, string>, when: string): Record<string, string> {
  if (when === 'never') return stamped(map);
  return { ...stamped(map), [gc('expire')]: formatTimestamp(timeOf(when)) };
}

/** A snapshot whose ancestors would include itself is left without a parent: no store makes circles. */
function parentOf(w: World, ns: string, a: Extract<Alteration, { op: 'snapshot' }>): string {
  for (let at = a.parent; at !== ''; ) {
    if (at === a.key) return '';
    const value = w.engine.get(snapshotKey(ns, a.snapshotter, at));
    if (value === undefined) return '';
    at = typeof value === 'object' && typeof value.parent === 'string' ? value.parent : '';
  }
  return a.parent;
}

async function apply(w: World, a: Alteration): Promise<void> {
  const ns = a.namespace;
  const times = { createdat: 1n, updatedat: 1n };
  await w.engine.update((tx) => {
    tx.put(namespaceKey(ns), {});
    switch (a.op) {
      case 'blob':
        tx.put(blobKey(ns, a.key), { ...times, size: 1, labels: stamped(a.labels) });
        break;
      case 'image':
        tx.put(imageKey(ns, a.key), {
          ...times,
          target: { digest: a.target, mediatype: 'm', size: 1 },
          labels: expiring(a.labels, a.expiry),
        });
        break;
      case 'container':
        tx.put(containerKey(ns, a.key), {
          ...times,
          snapshotter: a.snapshotter,
          snapshotKey: a.snapshotKey,
          labels: stamped(a.labels),
        });
        break;
      case 'snapshot': {
        const record = snapshotKey(ns, a.snapshotter, a.key);
        const old = tx.get(record);
        if (typeof old === 'object' && typeof old.parent === 'string') {
          tx.unlink(snapshotKey(ns, a.snapshotter, old.parent), Relation.children, record);
        }
        const parent = parentOf(w, ns, a);
        if (parent !== '') tx.link(snapshotKey(ns, a.snapshotter, parent), Relation.children, record);
        tx.put(record, {
          ...times,
          name: `${ns}/1/${a.key}`,
          ...(parent !== '' && { parent }),
          labels: stamped(a.labels),
        });
        break;
      }
      case 'ingest':
        tx.put(ingestKey(ns, a.key), {
          ref: `${ns}/1/${a.key}`,
          ...(a.expected !== '' && { expected: a.expected }),
          ...(a.expiry !== 'never' && { expireat: timeOf(a.expiry) }),
        });
        break;
      case 'mount':
        tx.put(mountKey(ns, a.key), { ...times, directory: 'd', labels: stamped(a.labels) });
        break;
      case 'sandbox':
        tx.put(sandboxKey(ns, a.key), { ...times, labels: stamped(a.labels) });
        break;
      case 'lease': {
        const record = leaseKey(ns, a.key);
        tx.delete(record);
        tx.put(record, { createdat: 1n, labels: expiring(a.flat ? { [gc('flat')]: 'x' } : {}, a.expiry) });
        for (const { kind, key } of a.resources) {
          const [first = '', ...rest] = key.split('/');
          const target = {
            content: () => blobKey(ns, key),
            image: () => imageKey(ns, key),
            ingest: () => ingestKey(ns, key),
            mount: () => mountKey(ns, key),
            snapshot: () => snapshotKey(ns, first, rest.join('/')),
          }[kind];
          tx.link(
            record,
            a.flat && kind !== 'ingest' ? Relation.holdsFlat : Relation.holds,
            target?.() ?? '',
          );
        }
      }
    }
  });
}

const sorted = (names: Iterable<string>): string[] => [...names].sort();

async function check(t: TestContext, makeGraph: () => GraphCore, runs: number): Promise<void> {
  let removed = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(alteration, { minLength: 20, maxLength: 70 }), async (alterations) => {
      await using engine = await openMemoryEngine({ indexer: metadataIndexer, graph: makeGraph() });
      const w = new World(engine, {});
      for (const a of alterations) await apply(w, a);
      const before = readModel(engine);
      const expected = survivors(before, now());
      const dry = await w.collect({ dryRun: true });
      await w.collect();
      const left = collectibles(readModel(engine));
      assert.deepEqual(sorted(left), sorted(expected));
      const gone = [...collectibles(before)].filter((name) => !expected.has(name));
      assert.deepEqual(
        sorted(dry.wouldRemove?.map(({ kind, namespace: ns, key }) => `${kind}|${ns}|${key}`) ?? []),
        sorted(gone),
        'the dry run predicted it',
      );
      removed += gone.length;
    }),
    { numRuns: runs },
  );
  t.diagnostic(`${removed} objects removed over ${runs} stores`);
  assert.ok(removed > 0);
}

for (const [kind, runs] of [
  ['wasm', 150],
  [undefined, 300],
] as const) {
  test(`given any store on the ${kind ?? 'core in use'}, when collected, then exactly what the rules keep is left`, async (t) => {
    await check(t, () => createGraph(kind), runs);
  });
}
