import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { blobKey, ingestKey } from '../../src/engine/schema/keys.js';
import { isDigest } from '../../src/model/digest.js';
import { digest, ns1, ns2, rejects } from './fixtures.js';
import { type StoreWorld, storeWorld } from './store-world.js';

describe('content info and update', () => {
  it('[#116] given labels, when updated in full or by path, then labels change and nothing else', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, 'blob', { k1: 'a', k2: 'b', k3: 'c' });
    const before = await world.content.info(ns1, d);
    const given = { digest: d, size: 999, createdAt: 1n, labels: { k1: 'A', k2: 'B' } };
    const partial = await world.content.update(ns1, given, 'labels.k1', 'labels.k3');
    assert.deepEqual(partial.labels, { k1: 'A', k2: 'b' });
    assert.deepEqual([partial.size, partial.createdAt], [before.size, before.createdAt]);
    assert.ok(partial.updatedAt > before.updatedAt);
    assert.deepEqual(await world.content.info(ns1, d), partial);
    const whole = { k4: 'd', 'x.y/z': '1', empty: '' };
    const full = await world.content.update(ns1, { digest: d, labels: whole });
    whole.k4 = 'changed';
    assert.deepEqual(full.labels, { k4: 'd', 'x.y/z': '1' });
    full.labels = {};
    assert.deepEqual((await world.content.info(ns1, d)).labels, { k4: 'd', 'x.y/z': '1' });
    assert.deepEqual((await world.content.update(ns1, { digest: d }, 'labels')).labels, {});
  });

  it('[#116] given an unknown path, digest or an oversized label, then the error and no change', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, 'blob', { a: '1' });
    const before = await world.content.info(ns1, d);
    const update = (input: object, ...paths: string[]) =>
      world.content.update(ns1, { digest: d, ...input }, ...paths);
    await rejects(update({}, 'size'), 'InvalidArgument', 'cannot update content field "size"');
    await rejects(update({ labels: { a: '2' } }, 'labels.a', 'digest'), 'InvalidArgument');
    await rejects(update({ labels: { a: 'x'.repeat(4096) } }), 'InvalidArgument');
    await rejects(update({ digest: digest('none') }), 'NotFound');
    await rejects(world.content.update(ns2, { digest: d }), 'NotFound');
    assert.deepEqual(await world.content.info(ns1, d), before);
    await rejects(world.content.info(ns2, d), 'NotFound');
    await rejects(world.content.info({}, d), 'FailedPrecondition');
  });

  it('given a clock that was set back, then an update is still later than the creation', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, 'blob');
    const k = blobKey('ns1', d);
    const future = 4_000_000_000n * 1_000_000_000n;
    await world.host.engine.update((tx) => tx.put(k, { createdat: future, updatedat: future, size: 4 }));
    assert.equal((await world.content.update(ns1, { digest: d, labels: { a: '1' } })).updatedAt, future + 1n);
  });
});

describe('content walk', () => {
  it('[#117] given filters, then matching blobs in digest order; fn may delete the blob it is given', async (t) => {
    const world = await storeWorld(t);
    const wanted: string[] = [];
    for (let i = 0; i < 12; i++) {
      const d = await world.blob(ns1, `blob ${i}`, i % 3 === 0 ? { mark: 'yes' } : undefined);
      if (i % 3 === 0) wanted.push(d);
    }
    await world.blob(ns2, 'other namespace', { mark: 'yes' });
    const seen: string[] = [];
    await world.content.walk(
      ns1,
      async (info) => {
        seen.push(info.digest);
        await world.content.delete(ns1, info.digest);
      },
      'labels.mark==yes',
    );
    assert.deepEqual(seen, wanted.sort());
    let left = 0;
    await world.content.walk(ns1, () => void left++);
    assert.equal(left, 8);
  });

  it('[#117] given a failing fn, then the walk stops with its error', async (t) => {
    const world = await storeWorld(t);
    for (let i = 0; i < 3; i++) await world.blob(ns1, `blob ${i}`);
    const failure = new Error('enough');
    let calls = 0;
    const walk = world.content.walk(ns1, () => {
      if (++calls === 2) throw failure;
    });
    await assert.rejects(walk, failure);
    assert.equal(calls, 2);
  });

  it('[#77] [#78] given filters on size, digest or with an error, then nothing, one blob, InvalidArgument', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, 'abc');
    await world.blob(ns1, 'abd');
    const matching = async (...filters: string[]): Promise<string[]> => {
      const found: string[] = [];
      await world.content.walk(ns1, (info) => void found.push(info.digest), ...filters);
      return found;
    };
    assert.deepEqual(await matching('size==3'), []);
    assert.deepEqual(await matching('size'), []);
    assert.deepEqual(await matching(`digest==${d}`), [d]);
    assert.equal((await matching(`digest==${d}`, 'digest')).length, 2);
    await rejects(matching('digest==='), 'InvalidArgument', 'parse error');
    await rejects(world.content.listStatuses(ns1, 'ref='), 'InvalidArgument', 'parse error');
  });

  it('given a record whose key is not a digest, then it is skipped, and can be deleted', async (t) => {
    const world = await storeWorld(t);
    await world.host.engine.update((tx) =>
      tx.put(blobKey('ns1', 'junk'), { createdat: 0n, updatedat: 0n, size: 1 }),
    );
    const d = await world.blob(ns1, 'abc');
    const seen: string[] = [];
    await world.content.walk(ns1, (info) => void seen.push(info.digest));
    assert.deepEqual(seen, [d]);
    await world.content.delete(ns1, 'junk');
    await rejects(world.content.delete(ns1, 'junk'), 'NotFound');
  });

  it('given more blobs than one batch and a transaction’s own ones, then each is seen once, in order', async (t) => {
    const world = await storeWorld(t);
    const digests = Array.from({ length: 4500 }, (_, i) => digest(`n${i}`)).sort();
    await world.transaction(ns1, async (ctx, tx) => {
      for (const d of digests) tx.put(blobKey('ns1', d), { createdat: 0n, updatedat: 0n, size: 1 });
      const seen: string[] = [];
      await world.content.walk(ctx, (info) => void seen.push(info.digest));
      assert.deepEqual(seen, digests);
    });
    const seen: string[] = [];
    await world.content.walk(ns1, (info) => void seen.push(info.digest));
    assert.deepEqual(seen, digests);
    assert.ok(seen.every(isDigest));
  });
});

describe('content delete', () => {
  it('[#118] given a blob in two namespaces, when one deletes it, then only its record goes, bytes with the last', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, 'shared');
    await world.blob(ns2, 'shared', { 'containerd.io/gc.root': 'yes' });
    world.events.length = 0;
    await world.content.delete(ns1, d);
    await rejects(world.content.info(ns1, d), 'NotFound');
    await rejects(world.content.readerAt(ns1, d), 'NotFound');
    assert.equal((await world.content.info(ns2, d)).size, 6);
    assert.deepEqual(world.events, [{ namespace: 'ns1', topic: '/content/delete', payload: { digest: d } }]);
    await world.collect();
    assert.equal(await world.hasBlob(d), true);
    await world.content.delete(ns2, d);
    assert.equal(await world.hasBlob(d), true);
    assert.equal(world.host.dirty.deletions, 1);
    await world.collect();
    assert.equal(await world.hasBlob(d), false);
  });

  it('[#119] given a deleted blob, when deleted again, then NotFound', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, 'x');
    await world.content.delete(ns1, d);
    await rejects(world.content.delete(ns1, d), 'NotFound');
  });

  it('[#120] given two leases on a blob, when deleted inside one, then the other keeps a dead entry and GC is fine', async (t) => {
    const world = await storeWorld(t);
    const l1 = await world.lease(ns1, 'l1');
    const l2 = await world.lease(ns1, 'l2');
    const d = await world.blob(l1, 'held');
    await rejects(world.content.writer(l2, 'r', { digest: d }), 'AlreadyExists');
    await world.content.delete(l1, d);
    assert.deepEqual(await world.held(ns1, 'l1'), []);
    assert.deepEqual(await world.held(ns1, 'l2'), [`content ${d}`]);
    await world.collect();
    assert.deepEqual(await world.held(ns1, 'l2'), [`content ${d}`]);
    assert.equal(await world.hasBlob(d), false);
  });

  it('[#121] given a file removed without our knowledge, when opened for reading, then NotFound', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, 'x');
    await world.blobs.delete(d);
    await rejects(world.content.readerAt(ns1, d), 'NotFound');
    assert.equal((await world.content.info(ns1, d)).size, 1);
  });

  it('given operations in a context transaction that fails, then records and leases are as before', async (t) => {
    const world = await storeWorld(t);
    const l1 = await world.lease(ns1, 'l1');
    const d = await world.blob(l1, 'held', { a: '1' });
    const failed = world.transaction(l1, async (ctx) => {
      await world.content.update(ctx, { digest: d });
      assert.deepEqual((await world.content.info(ctx, d)).labels, {});
      await world.content.delete(ctx, d);
      await rejects(world.content.info(ctx, d), 'NotFound');
      throw new Error('back');
    });
    await assert.rejects(failed, /back/);
    assert.deepEqual((await world.content.info(ns1, d)).labels, { a: '1' });
    assert.deepEqual(await world.held(ns1, 'l1'), [`content ${d}`]);
    assert.equal(world.host.dirty.deletions, 0);
  });
});

describe('ingests', () => {
  it('[#104] given an ingest in a lease, when aborted, then record, entry and bytes go; again NotFound', async (t) => {
    const world = await storeWorld(t);
    const leased = await world.lease(ns1, 'l');
    const writer = await world.content.writer(leased, 'r');
    await writer.write(Buffer.from('abc'));
    await writer.close();
    await world.content.abort(leased, 'r');
    assert.equal(world.ingest('ns1', 'r'), undefined);
    assert.deepEqual(await world.held(ns1, 'l'), []);
    await rejects(world.blobs.status('ns1/1/r'), 'NotFound');
    await rejects(world.content.abort(leased, 'r'), 'NotFound');
    assert.equal(world.host.dirty.deletions, 0);
  });

  it('[#104] given a writer that is open, when its ref is aborted, then it cannot commit', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(Buffer.from('abc'));
    await world.content.abort(ns1, 'r');
    await rejects(writer.commit(3, ''), 'NotFound');
    const again = await world.content.writer(ns1, 'r');
    assert.equal((await again.status()).offset, 0);
    await again.close();
  });

  it('[#104] given an abort in a transaction, then the bytes go after its commit and stay if it fails', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(Buffer.from('abc'));
    await writer.close();
    const failed = world.transaction(ns1, async (ctx) => {
      await world.content.abort(ctx, 'r');
      throw new Error('back');
    });
    await assert.rejects(failed, /back/);
    assert.equal((await world.content.status(ns1, 'r')).offset, 3);
    await world.transaction(ns1, (ctx) => world.content.abort(ctx, 'r'));
    for (let i = 0; i < 200; i++) {
      const there = await world.blobs.status('ns1/1/r').catch(() => undefined);
      if (there === undefined) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.fail('the bytes are still there after 2 s');
  });

  it('[#104] given a backend that fails to abort, then its error, and the next collection tries again', async (t) => {
    let broken = true;
    const world = await storeWorld(t, {
      content: (real) => ({
        abort: async (ref) => {
          if (broken) throw new Error('busy');
          await real.abort(ref);
        },
      }),
    });
    await (await world.content.writer(ns1, 'r')).close();
    await rejects(world.content.abort(ns1, 'r'), 'Unknown', 'busy');
    assert.equal(world.ingest('ns1', 'r'), undefined);
    broken = false;
    await world.collect();
    await rejects(world.blobs.status('ns1/1/r'), 'NotFound');
  });

  it('[#105] given ingests, then they are known by the user’s ref only', async (t) => {
    const world = await storeWorld(t);
    for (const ref of ['b/1', 'a', 'c']) {
      const writer = await world.content.writer(ns1, ref, { size: 10 });
      await writer.write(Buffer.from(ref));
      await writer.close();
    }
    await (await world.content.writer(ns2, 'other')).close();
    const status = await world.content.status(ns1, 'b/1');
    assert.deepEqual([status.ref, status.offset, status.total], ['b/1', 3, 10]);
    const refs = async (...filters: string[]) =>
      (await world.content.listStatuses(ns1, ...filters)).map((s) => s.ref);
    assert.deepEqual(await refs(), ['a', 'b/1', 'c']);
    assert.deepEqual(await refs('ref==a', 'ref~=^c'), ['a', 'c']);
    for (const ref of ['ns1/1/a', 'other']) {
      await rejects(world.content.status(ns1, ref), 'NotFound');
      await rejects(world.content.abort(ns1, ref), 'NotFound');
    }
    await world.blobs.abort('ns1/1/a');
    assert.deepEqual(await refs(), ['b/1', 'c']);
    await rejects(world.content.status(ns1, 'a'), 'NotFound');
  });

  it('given a record with an empty backend ref, as an old migration left it, then NotFound until it is opened', async (t) => {
    const world = await storeWorld(t);
    await world.host.engine.update((tx) => tx.put(ingestKey('ns1', 'r'), { ref: '' }));
    await rejects(world.content.status(ns1, 'r'), 'NotFound');
    await rejects(world.content.abort(ns1, 'r'), 'NotFound');
    assert.deepEqual(await world.content.listStatuses(ns1), []);
    await (await world.content.writer(ns1, 'r')).close();
    assert.equal(world.ingest('ns1', 'r')?.ref, 'ns1/1/r');
  });

  it('given a sweep of everything while a ref is being opened, then its bytes stay', async (t) => {
    let sweep: Promise<unknown> = Promise.resolve();
    const world: StoreWorld = await storeWorld(t, {
      content: (real) => ({
        writer: async (ref, desc) => {
          const writer = await real.writer(ref, desc);
          sweep = world.collect({ fullSweep: true });
          await new Promise((resolve) => setTimeout(resolve, 50));
          return writer;
        },
      }),
    });
    const writer = await world.content.writer(ns1, 'r');
    await sweep;
    await writer.write(Buffer.from('abc'));
    await writer.commit(3, '');
    assert.equal((await world.content.info(ns1, digest('abc'))).size, 3);
  });
});
