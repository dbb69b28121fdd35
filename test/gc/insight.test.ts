import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { Streams } from '../../src/gc/streams.js';
import { ResourceStream } from '../../src/gc/types.js';
import { coreInfo } from '../../src/graph/carriers.js';
import { digestOf } from '../../src/model/digest.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { withExpiration, withId } from '../../src/stores/leases.js';
import { testDB } from '../support/db.js';

const cores = coreInfo().core === 'native' ? (['native', 'wasm'] as const) : (['wasm'] as const);

for (const core of cores) {
  describe(`why, du and plans of a DB on LMDB, ${core} core`, () => {
    test('given blobs, an image and a lease, when asked, then results are of this namespace and of the disk', async (t) => {
      const db = await testDB(t, { engine: 'lmdb', core });
      const ctx = { namespace: 'a' };
      const bytes = [randomBytes(1000), randomBytes(2000)];
      const [one, two] = bytes.map((b) => digestOf(b)) as [string, string];
      for (const b of bytes) await writeBlob(db.content, ctx, `ref-${digestOf(b)}`, [b]);
      await db.images.create(ctx, { name: 'app', target: { mediaType: 'x', digest: one, size: 1000 } });
      await db.leases.create(ctx, withId('keep'), withExpiration(60_000));
      await db.leases.addResource(ctx, { id: 'keep' }, { type: 'content', id: two });
      await db.snapshotter('native')?.prepare(ctx, 'work', '');

      const result = await db.why(ctx, two.slice(0, 15));
      assert.deepEqual([result.object.key, result.paths[0]?.[0]?.key], [two, 'keep']);
      assert.equal((await db.why(ctx, { name: 'work', kind: 'snapshot' })).state, 'garbage');
      await assert.rejects(db.why({ namespace: 'b' }, one), (error) => isKind(error, 'NotFound'));
      await assert.rejects(db.why({}, one), (error) => isKind(error, 'FailedPrecondition'));
      const expiry = result.paths[0]?.[0]?.expiresAt ?? 0n;
      assert.equal(db.nextExpiry(0n), expiry);
      assert.equal(db.nextExpiry(expiry), undefined);

      const usage = await db.du();
      assert.deepEqual(usage.rows, [
        { kind: 'image', name: 'app', namespace: 'a', total: 1000, shared: 0, retained: 1000 },
      ]);
      assert.equal(usage.kept, 3000);
      assert.ok(usage.garbage > 0, 'the snapshot');
      assert.deepEqual((await db.du({ namespace: 'b' })).rows, []);

      await db.images.delete(ctx, 'app');
      const plan = await db.planCollection();
      assert.equal(plan.objects.length, 2);
      const running = db.garbageCollect({}, { maxObjects: 1 });
      const { removed, rest } = await db.applyPlan(plan);
      await running;
      assert.deepEqual([removed.length, rest.map(({ reason }) => reason)], [1, ['gone']]);
      assert.equal((await db.du()).garbage, 0);
      assert.deepEqual(db.engine.verifyGraph(), []);
    });

    test('given writers and a collection under way, when asked again and again, then all go on', async (t) => {
      const db = await testDB(t, { engine: 'lmdb', core });
      const ctx = { namespace: 'a' };
      db.registerCollectibleResource(ResourceStream, new Streams());
      const target = { mediaType: 'x', digest: digestOf(Buffer.from('x')), size: 1 };
      const work = Array.from({ length: 20 }, async (_, i) => {
        await db.images.create(ctx, { name: `image${i}`, target });
        if (i % 3 === 0) await db.garbageCollect();
        const { state, paths } = await db.why(ctx, `image${i}`, { all: i % 2 === 0 });
        assert.deepEqual([state, paths.length], ['kept', 1]);
        assert.equal((await db.du(ctx)).kept, 0);
      });
      await Promise.all(work);
      assert.equal((await db.du(ctx)).rows.length, 20);
    });

    test('given an ended signal or a closed DB, when asked, then the errors have their kinds', async (t) => {
      const db = await testDB(t, { engine: 'lmdb', core });
      const signal = AbortSignal.abort();
      await assert.rejects(db.du({ signal }), (error) => isKind(error, 'Canceled'));
      await assert.rejects(db.why({ namespace: 'a', signal }, 'x'), (error) => isKind(error, 'Canceled'));
      await assert.rejects(db.planCollection({ signal }), (error) => isKind(error, 'Canceled'));
      await db.close();
      await assert.rejects(db.du(), (error) => isKind(error, 'FailedPrecondition'));
      await assert.rejects(db.planCollection(), (error) => isKind(error, 'FailedPrecondition'));
    });
  });
}
