import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { blobKey, ingestKey } from '../../src/engine/schema/keys.js';
import { digestOf } from '../../src/model/digest.js';
import { ns1, ns2, rejects } from './fixtures.js';
import { altered, type StoreWorld, storeWorld, type WorldOptions } from './store-world.js';

const shareable = 'containerd.io/namespace.shareable';
const data = Buffer.from('content that ns1 has');
const d = digestOf(data);
const size = data.length;

/** A world where ns1 has `data`. */
async function withBlob(t: Parameters<typeof storeWorld>[0], options?: WorldOptions): Promise<StoreWorld> {
  const world = await storeWorld(t, options);
  await world.blob(ns1, data);
  world.events.length = 0;
  return world;
}

describe('shared content', () => {
  for (const known of [size, 0]) {
    it(`[#92] [#94] given a blob in ns1, when ns2 opens it with size ${known}, then it is complete without writing`, async (t) => {
      const world = await withBlob(t);
      const writer = await world.content.writer(ns2, 'r', { digest: d, size: known, mediaType: 'm' });
      const { startedAt, updatedAt, ...status } = await writer.status();
      assert.deepEqual(status, { ref: 'r', offset: size, total: size, expected: d });
      assert.equal(startedAt, updatedAt);
      assert.equal(writer.digest(), d);
      assert.equal(world.ingest('ns2', 'r')?.expected, d);
      await rejects(world.content.info(ns2, d), 'NotFound');
      await rejects(world.content.readerAt(ns2, d), 'NotFound');
      await rejects(world.content.status(ns2, 'r'), 'NotFound');
      assert.deepEqual(await world.content.listStatuses(ns2), []);
      const before = await world.content.info(ns1, d);
      await writer.sync();
      await writer.close();
      await writer.commit(size, d, { labels: { mine: '2' } });
      const info = await world.content.info(ns2, d);
      assert.deepEqual([info.size, info.labels], [size, { mine: '2' }]);
      assert.deepEqual(await world.read(ns2, d), data);
      assert.deepEqual(await world.content.info(ns1, d), before);
      assert.equal(world.ingest('ns2', 'r'), undefined);
      assert.deepEqual(world.events, [
        { namespace: 'ns2', topic: '/content/create', payload: { digest: d, size, mediaType: 'm' } },
      ]);
    });
  }

  it('given a shared writer, then it takes no lock on its ref', async (t) => {
    const world = await withBlob(t);
    const first = await world.content.writer(ns2, 'r', { digest: d });
    const second = await world.content.writer(ns2, 'r', { digest: d });
    await first.commit(0, '');
    await rejects(second.commit(0, ''), 'AlreadyExists');
    await rejects(second.commit(0, ''), 'FailedPrecondition');
  });

  it('[#93] given a wrong size, then an ordinary writer that starts empty', async (t) => {
    const world = await withBlob(t);
    const writer = await world.content.writer(ns2, 'r', { digest: d, size: size + 1 });
    const { offset, total } = await writer.status();
    assert.deepEqual([offset, total], [0, size + 1]);
    assert.equal(world.ingest('ns2', 'r')?.expected, undefined);
    await writer.write(data);
    await rejects(writer.commit(size + 1, d), 'FailedPrecondition');
  });

  it('given wrong expectations at commit, then FailedPrecondition and nothing is recorded', async (t) => {
    const world = await withBlob(t);
    for (const [n, expected] of [
      [size - 1, ''],
      [0, digestOf(Buffer.from('other'))],
    ] as const) {
      const writer = await world.content.writer(ns2, 'r', { digest: d });
      await rejects(writer.commit(n, expected), 'FailedPrecondition');
    }
    await rejects(world.content.info(ns2, d), 'NotFound');
    assert.equal(world.ingest('ns2', 'r')?.expected, d);
  });

  it('[#95] given bytes written after a shared blob, then the result is both, and ns1 keeps its own', async (t) => {
    const world = await withBlob(t);
    const writer = await world.content.writer(ns2, 'r', { digest: d, size });
    assert.equal(await writer.write(Buffer.from(' and more')), 9);
    const whole = Buffer.concat([data, Buffer.from(' and more')]);
    assert.equal(writer.digest(), digestOf(whole));
    assert.equal((await writer.status()).offset, whole.length);
    await rejects(world.content.writer(ns2, 'r'), 'Unavailable');
    await writer.commit(whole.length, digestOf(whole));
    assert.deepEqual(await world.read(ns2, digestOf(whole)), whole);
    assert.deepEqual(await world.read(ns1, d), data);
    await rejects(world.content.info(ns2, d), 'NotFound');
  });

  it('[#96] given a write of nothing, then the writer stays shared', async (t) => {
    const world = await withBlob(t);
    const writer = await world.content.writer(ns2, 'r', { digest: d });
    assert.equal(await writer.write(new Uint8Array()), 0);
    assert.equal((await writer.status()).expected, d);
    await rejects(world.blobs.status('ns2/1/r'), 'NotFound');
  });

  for (const [kept, more] of [
    [0, 'fresh'],
    [7, ' changed'],
  ] as const) {
    it(`[#97] given a shared writer cut to ${kept} bytes, when written, then those bytes and the new ones`, async (t) => {
      const world = await withBlob(t);
      const writer = await world.content.writer(ns2, 'r', { digest: d });
      await rejects(writer.truncate(size + 1), 'InvalidArgument');
      await writer.truncate(kept);
      assert.equal((await writer.status()).offset, kept);
      await writer.write(Buffer.from(more));
      const whole = Buffer.concat([data.subarray(0, kept), Buffer.from(more)]);
      await writer.commit(whole.length, digestOf(whole));
      assert.deepEqual(await world.read(ns2, digestOf(whole)), whole);
    });
  }

  it('given old bytes under the ref, when a shared writer is changed, then they are cut off first', async (t) => {
    const world = await withBlob(t);
    const before = await world.content.writer(ns2, 'r');
    await before.write(Buffer.from('something else that was sent before'));
    await before.close();
    const writer = await world.content.writer(ns2, 'r', { digest: d });
    await writer.write(Buffer.from('!'));
    await writer.commit(size + 1, digestOf(Buffer.concat([data, Buffer.from('!')])));
  });

  it('given a copy that fails, when a shared writer is changed, then it stays shared and the ref free', async (t) => {
    const world = await withBlob(t, {
      content: (real) => ({
        readerAt: async (digest) =>
          altered(await real.readerAt(digest), {
            stream: async function* () {
              yield data.subarray(0, 3);
              throw new Error('bad sector');
            },
          }),
      }),
    });
    const writer = await world.content.writer(ns2, 'r', { digest: d });
    await assert.rejects(writer.write(Buffer.from('x')), /bad sector/);
    assert.equal((await writer.status()).expected, d);
    await (await world.content.writer(ns2, 'r')).close();
    await writer.commit(size, d);
    assert.equal((await world.content.info(ns2, d)).size, size);
  });

  it('given a shared ingest, when ns1 drops the blob and both are swept, then the bytes survive for the commit', async (t) => {
    const world = await withBlob(t);
    const writer = await world.content.writer(ns2, 'r', { digest: d });
    await world.content.delete(ns1, d);
    await world.collect();
    assert.equal(await world.hasBlob(d), true);
    await writer.commit(size, d);
    assert.deepEqual(await world.read(ns2, d), data);
  });

  it('given a shared ingest whose record was collected, when committed, then NotFound and nothing is created', async (t) => {
    const world = await withBlob(t);
    const writer = await world.content.writer(ns2, 'r', { digest: d });
    await world.host.engine.update((tx) => tx.delete(ingestKey('ns2', 'r')));
    await rejects(writer.commit(size, d), 'NotFound');
    assert.equal(world.host.engine.has(blobKey('ns2', d)), false);
    await rejects(writer.commit(size, d), 'FailedPrecondition');
  });

  it('given a shared ingest whose bytes are gone, when committed, then NotFound; AlreadyExists if the namespace has it', async (t) => {
    const world = await withBlob(t);
    const first = await world.content.writer(ns2, 'a', { digest: d });
    const second = await world.content.writer(ns2, 'b', { digest: d });
    const third = await world.content.writer(ns2, 'c', { digest: d });
    await world.blobs.delete(d);
    await rejects(first.commit(size, d), 'NotFound');
    assert.equal(world.host.engine.has(blobKey('ns2', d)), false);
    await world.blob(ns1, 'unrelated');
    const sent = await world.content.writer(ns2, 'sent');
    await sent.write(data);
    await sent.commit(size, d);
    await rejects(second.commit(size, d), 'AlreadyExists');
    await world.host.engine.update((tx) => tx.delete(ingestKey('ns2', 'c')));
    await rejects(third.commit(size, d), 'AlreadyExists');
  });

  it('given a shared writer of an aborted ref, then nothing is left in store or backend', async (t) => {
    const world = await withBlob(t);
    const leased = await world.lease(ns2, 'l');
    const writer = await world.content.writer(leased, 'r', { digest: d });
    await writer.write(Buffer.from('x'));
    await writer.close();
    assert.equal((await world.content.status(ns2, 'r')).offset, size + 1);
    await world.content.abort(leased, 'r');
    await rejects(world.blobs.status('ns2/1/r'), 'NotFound');
    assert.deepEqual(await world.held(ns2, 'l'), []);
  });
});

describe('isolated content', () => {
  it('[#98] given the isolated policy, then ns2 must write the bytes, and then has them', async (t) => {
    const world = await withBlob(t, { policy: 'isolated' });
    const writer = await world.content.writer(ns2, 'r', { digest: d, size });
    assert.equal((await writer.status()).offset, 0);
    await writer.write(data);
    await writer.commit(size, d);
    assert.deepEqual(await world.read(ns2, d), data);
  });

  for (const [namespace, value, offset] of [
    ['ns1', 'true', size],
    ['ns1', 'True', 0],
    ['ns1', '1', 0],
    ['ns2', 'true', 0],
  ] as const) {
    it(`[#99] given ${namespace} labelled shareable=${value}, then ns2 opens at offset ${offset}`, async (t) => {
      const world = await withBlob(t, { policy: 'isolated' });
      await world.namespaces.setLabel({}, namespace, shareable, value);
      const writer = await world.content.writer(ns2, 'r', { digest: d, size });
      assert.equal((await writer.status()).offset, offset);
      await writer.close();
    });
  }

  it('[#99] given a shareable namespace that dropped the blob, then it shares it no more', async (t) => {
    const world = await withBlob(t, { policy: 'isolated' });
    await world.namespaces.setLabel({}, 'ns1', shareable, 'true');
    await world.content.delete(ns1, d);
    const writer = await world.content.writer(ns2, 'r', { digest: d, size });
    assert.equal((await writer.status()).offset, 0);
    await writer.close();
  });
});
