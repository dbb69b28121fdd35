import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type CallContext, withTransactionContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import { kindOf } from '../../src/errors.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { createGraph } from '../../src/graph/carriers.js';
import { now } from '../../src/model/time.js';
import { newDB } from '../../src/open.js';
import { withId, withLabels } from '../../src/stores/leases.js';
import { FakeContent, FakeSnapshotter } from '../support/fake-backends.js';
import { digest, future, gc, past } from '../support/gc-world.js';
import { collectibles, readModel, survivors } from '../support/oracle.js';

const blobs = ['a', 'b', 'c', 'd', 'e', 'f'];
const snapshots = ['s1', 's2', 's3', 's4'];
const leases = ['l1', 'l2'];

const blob = fc.constantFrom(...blobs);
const snapshot = fc.constantFrom(...snapshots);
const lease = fc.constantFrom(...leases);
const expiry = fc.constantFrom('', '', 'past', 'future');
const labels = fc
  .array(
    fc.oneof(
      fc.tuple(fc.constantFrom('ref.content.0', 'ref.content.1', 'bref.content'), blob.map(digest)),
      fc.tuple(fc.constantFrom('ref.snapshot.native', 'bref.snapshot.native'), snapshot),
      fc.tuple(fc.constantFrom('ref.image', 'bref.image'), fc.constantFrom('i1', 'i2')),
      fc.constantFrom<[string, string]>(['root', 'x'], ['other', 'x']),
    ),
    { maxLength: 2 },
  )
  .map((list) => Object.fromEntries(list.map(([name, value]) => [gc(name), value])));

const operation = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ op: fc.constant('write' as const), blob, labels, known: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('open' as const), blob, known: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('abort' as const), blob }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('label' as const), blob, labels }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('drop' as const), blob }) },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('image' as const),
      name: fc.constantFrom('i1', 'i2'),
      blob,
      labels,
      expiry,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('untag' as const), name: fc.constantFrom('i1', 'i2') }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('prepare' as const),
      key: snapshot,
      parent: fc.constantFrom('', ...snapshots),
      labels,
      view: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ op: fc.constant('commit' as const), key: snapshot, name: snapshot, labels }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('unprepare' as const), key: snapshot }) },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('lease' as const), lease, flat: fc.boolean(), expiry }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('unlease' as const), lease }) },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('hold' as const),
      lease,
      type: fc.constantFrom('content', 'images', 'snapshots/native', 'ingests'),
      blob,
      key: snapshot,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('container' as const),
      id: fc.constantFrom('c1', 'c2'),
      key: snapshot,
      labels,
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('stop' as const), id: fc.constantFrom('c1', 'c2') }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('pod' as const), labels }) },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

const step = fc.record({
  namespace: fc.constantFrom('ns1', 'ns1', 'ns2'),
  lease: fc.option(lease, { nil: undefined, freq: 3 }),
  inTransaction: fc.boolean(),
  operation,
});

const expires = (when: string): Record<string, string> =>
  when === '' ? {} : { [gc('expire')]: when === 'past' ? past() : future() };

/** One operation through the stores; it may fail for any ordinary reason. */
async function perform(db: DB, ctx: CallContext, o: Operation): Promise<unknown> {
  const native = db.snapshotter('native');
  assert.ok(native);
  switch (o.op) {
    case 'write': {
      const bytes = Buffer.from(o.blob);
      const writer = await db.content.writer(ctx, `ref-${o.blob}`, o.known ? { digest: digest(o.blob) } : {});
      if ((await writer.status()).offset === 0) await writer.write(bytes);
      return writer.commit(0, '', { labels: o.labels }, ctx);
    }
    case 'open':
      return (
        await db.content.writer(ctx, `ref-${o.blob}`, o.known ? { digest: digest(o.blob) } : {})
      ).close();
    case 'abort':
      return db.content.abort(ctx, `ref-${o.blob}`);
    case 'label':
      return db.content.update(ctx, { digest: digest(o.blob), labels: o.labels });
    case 'drop':
      return db.content.delete(ctx, digest(o.blob));
    case 'image': {
      const target = { digest: digest(o.blob), mediaType: 'm', size: 1 };
      return db.images.create(ctx, { name: o.name, target, labels: { ...o.labels, ...expires(o.expiry) } });
    }
    case 'untag':
      return db.images.delete(ctx, o.name);
    case 'prepare':
      return native[o.view ? 'view' : 'prepare'](ctx, o.key, o.parent, { labels: o.labels });
    case 'commit':
      return native.commit(ctx, o.name, o.key, { labels: o.labels });
    case 'unprepare':
      return native.remove(ctx, o.key);
    case 'lease':
      return db.leases.create(
        ctx,
        withId(o.lease),
        withLabels({ ...(o.flat && { [gc('flat')]: 'x' }), ...expires(o.expiry) }),
      );
    case 'unlease':
      return db.leases.delete(ctx, { id: o.lease });
    case 'hold': {
      const ids: Record<string, string> = { content: digest(o.blob), images: 'i1', ingests: `ref-${o.blob}` };
      return db.leases.addResource(ctx, { id: o.lease }, { type: o.type, id: ids[o.type] ?? o.key });
    }
    case 'container': {
      const parts = { runtime: { name: 'r' }, spec: { typeUrl: 't', value: new Uint8Array() } };
      return db.containers.create(ctx, {
        id: o.id,
        ...parts,
        snapshotter: 'native',
        snapshotKey: o.key,
        labels: o.labels,
      });
    }
    case 'stop':
      return db.containers.delete(ctx, o.id);
    case 'pod':
      return db.sandboxes.create(ctx, { id: 'p1', runtime: { name: 'r' }, labels: o.labels });
  }
}

const expected = new Set([
  'NotFound',
  'AlreadyExists',
  'FailedPrecondition',
  'InvalidArgument',
  'Unavailable',
]);

/** What the records name in the backends. */
function named(db: DB): { blobs: string[]; ingests: string[]; snapshots: string[] } {
  const found = { blobs: new Set<string>(), ingests: new Set<string>(), snapshots: new Set<string>() };
  const field = (value: unknown, name: string): string =>
    String((value as Record<string, unknown>)[name] ?? '');
  for (const [key] of db.engine.scan('blobs')) found.blobs.add(key.slice(key.lastIndexOf('\0') + 1));
  for (const [, value] of db.engine.scan('ingests')) {
    found.ingests.add(field(value, 'ref'));
    if (field(value, 'expected')) found.blobs.add(field(value, 'expected'));
  }
  for (const [, value] of db.engine.scan('snapshots')) found.snapshots.add(field(value, 'name'));
  return {
    blobs: [...found.blobs].sort(),
    ingests: [...found.ingests].sort(),
    snapshots: [...found.snapshots].sort(),
  };
}

test('given any use of the stores, when collected, then records and backends have exactly what is to be kept', async (t) => {
  let succeeded = 0;
  let removed = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 40, maxLength: 120 }), async (steps) => {
      const content = new FakeContent();
      const native = new FakeSnapshotter();
      const engine = await openMemoryEngine({ indexer: metadataIndexer, graph: createGraph() });
      await using db = await newDB(undefined, engine, content, { native }, { durability: 'visible' });
      for (const { namespace, lease: id, inTransaction, operation: o } of steps) {
        const ctx: CallContext = { namespace, ...(id !== undefined && { lease: id }) };
        try {
          if (inTransaction) await db.update((tx) => perform(db, withTransactionContext(ctx, tx), o));
          else await perform(db, ctx, o);
          succeeded++;
        } catch (error) {
          assert.ok(expected.has(kindOf(error)), `${o.op}: ${error instanceof Error ? error.stack : error}`);
        }
      }
      const model = readModel(engine);
      const keep = survivors(model, now());
      const all = collectibles(model);
      const stats = await db.garbageCollect();
      assert.deepEqual([...collectibles(readModel(engine))].sort(), [...keep].sort());
      const total = Object.values(stats.removed).reduce((sum, n) => sum + n, 0);
      assert.equal(total, all.size - keep.size);
      removed += total;
      assert.equal(stats.backendErrors, 0);
      // Everything named is there (a shared ingest has no bytes of its own), snapshots exactly.
      const names = named(db);
      assert.deepEqual(
        names.blobs.filter((d) => !content.blobs.has(d)),
        [],
      );
      assert.deepEqual([...native.items.keys()].sort(), names.snapshots);
      const again = await db.garbageCollect();
      assert.deepEqual([again.removed, again.contentD, again.snapshotD], [{}, 0, {}]);
      // Failed calls may have left orphans that nothing reported; a full sweep finds those as well.
      await db.garbageCollect({}, { fullSweep: true });
      assert.deepEqual([...content.blobs.keys()].sort(), names.blobs);
      assert.deepEqual(
        [...content.ingests].filter((ref) => !names.ingests.includes(ref)),
        [],
      );
      assert.deepEqual([...native.items.keys()].sort(), names.snapshots);
    }),
    { numRuns: 120 },
  );
  t.diagnostic(`${succeeded} operations, ${removed} objects removed`);
  assert.ok(removed > 100);
});
