import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { CallContext } from '../../src/context.js';
import { digestOf, EMPTY_SHA256 } from '../../src/model/digest.js';
import { now } from '../../src/model/time.js';
import { openWriter } from '../../src/stores/content/content-helpers.js';
import { digest, ns1, ns2, rejects } from './fixtures.js';
import { alteredWriters, type StoreWorld, storeWorld } from './store-world.js';

const bytes = (size: number, seed = 7): Buffer =>
  Buffer.from(Array.from({ length: size }, (_, i) => (i * seed) % 251));

/** Opens the ref and closes it again: the ref is free, and this much of it is there. */
async function offsetOf(world: StoreWorld, ctx: CallContext, ref: string): Promise<number> {
  const writer = await world.content.writer(ctx, ref);
  const { offset } = await writer.status();
  await writer.close();
  return offset;
}

describe('content writer', () => {
  it('[#79] given an empty ref and no namespace, then InvalidArgument; given a ref, FailedPrecondition', async (t) => {
    const { content } = await storeWorld(t);
    await rejects(content.writer({}, ''), 'InvalidArgument', 'ref');
    await rejects(content.writer({}, 'r'), 'FailedPrecondition', 'namespace');
    await rejects(content.writer({ namespace: 'version' }, 'r'), 'InvalidArgument');
    await rejects(content.writer(ns1, 'r', { size: -1 }), 'InvalidArgument');
    await rejects(content.writer(ns1, 'r', { size: 1.5 }), 'InvalidArgument');
  });

  it('[#80] given 256 bytes in pieces of 32, when committed with labels, then record and bytes are right', async (t) => {
    const world = await storeWorld(t);
    const data = bytes(256);
    const before = now();
    const writer = await world.content.writer(ns1, 'r', { size: 256, mediaType: 'text/x' });
    for (let at = 0; at < 256; at += 32) assert.equal(await writer.write(data.subarray(at, at + 32)), 32);
    assert.equal(writer.digest(), digestOf(data));
    const labels = { a: '1', empty: '' };
    await writer.commit(0, '', { labels });
    labels.a = 'changed';
    const info = await world.content.info(ns1, digestOf(data));
    assert.deepEqual(
      { ...info, createdAt: 0n, updatedAt: 0n },
      {
        digest: digestOf(data),
        size: 256,
        labels: { a: '1' },
        createdAt: 0n,
        updatedAt: 0n,
      },
    );
    assert.ok(info.createdAt > before && info.createdAt < now());
    assert.equal(info.updatedAt, info.createdAt);
    assert.deepEqual(await world.read(ns1, info.digest), data);
    assert.deepEqual(world.events, [
      {
        namespace: 'ns1',
        topic: '/content/create',
        payload: { digest: info.digest, size: 256, mediaType: 'text/x' },
      },
    ]);
  });

  it('[#81] [#84] given a wrong size at commit, then FailedPrecondition and the ref goes on where it was', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(bytes(100));
    await rejects(writer.commit(99, ''), 'FailedPrecondition');
    await rejects(writer.commit(100, ''), 'FailedPrecondition', 'closed');
    assert.ok(world.ingest('ns1', 'r'));
    const again = await world.content.writer(ns1, 'r');
    assert.equal((await again.status()).offset, 100);
    await again.commit(100, digestOf(bytes(100)));
    assert.equal((await world.content.info(ns1, digestOf(bytes(100)))).size, 100);
    assert.equal(world.ingest('ns1', 'r'), undefined);
  });

  it('[#82] [#84] given a wrong expected digest, then FailedPrecondition and the ref goes on where it was', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(bytes(100));
    await rejects(writer.commit(100, digest('other')), 'FailedPrecondition');
    await rejects(world.content.info(ns1, digestOf(bytes(100))), 'NotFound');
    const again = await world.content.writer(ns1, 'r');
    assert.equal((await again.status()).offset, 100);
    await again.commit(0, '');
    await world.content.info(ns1, digestOf(bytes(100)));
  });

  for (const expected of ['', digestOf(bytes(64))]) {
    it(`[#83] [#84] [#100] given bytes the namespace has, when committed expecting "${expected}", then AlreadyExists`, async (t) => {
      const world = await storeWorld(t);
      await world.blob(ns1, bytes(64), { first: 'yes' });
      world.events.length = 0;
      const writer = await world.content.writer(ns1, 'again');
      await writer.write(bytes(64));
      await rejects(writer.commit(64, expected, { labels: { second: 'yes' } }), 'AlreadyExists');
      assert.equal(world.ingest('ns1', 'again'), undefined);
      await rejects(world.blobs.status('ns1/1/again'), 'NotFound');
      assert.equal(await offsetOf(world, ns1, 'again'), 0);
      assert.deepEqual((await world.content.info(ns1, digestOf(bytes(64)))).labels, { first: 'yes' });
      assert.deepEqual(world.events, []);
    });
  }

  it('[#85] [#87] given an open ref, when opened again, then Unavailable; after close it goes on with its status', async (t) => {
    const { content } = await storeWorld(t);
    const writer = await content.writer(ns1, 'r', { size: 500 });
    await writer.write(bytes(10));
    await rejects(content.writer(ns1, 'r'), 'Unavailable');
    const before = await writer.status();
    await writer.close();
    const again = await content.writer(ns1, 'r');
    const after = await again.status();
    assert.deepEqual(
      { ref: after.ref, startedAt: after.startedAt, offset: after.offset, total: after.total },
      { ref: 'r', startedAt: before.startedAt, offset: 10, total: 500 },
    );
    await again.close();
  });

  it('[#88] given nothing written, when committed, then it is the empty blob', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.commit(0, EMPTY_SHA256);
    assert.equal((await world.content.info(ns1, EMPTY_SHA256)).size, 0);
    assert.equal((await world.read(ns1, EMPTY_SHA256)).length, 0);
  });

  it('[#89] given 6 bytes, when read with a buffer of 7, then 6 bytes and the end', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, '6bytes');
    await using reader = await world.content.readerAt(ns1, { digest: d });
    const buffer = Buffer.alloc(7);
    assert.equal(reader.size, 6);
    assert.equal(await reader.read(buffer, 0), 6);
    assert.equal(buffer.toString('utf8', 0, 6), '6bytes');
    assert.equal(await reader.read(buffer, 6), 0);
  });

  it('[#90] [#91] given a digest the namespace has, when opened with any size, then AlreadyExists and the lease keeps it', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, 'there');
    const leased = await world.lease(ns1, 'l');
    await rejects(world.content.writer(leased, 'r', { digest: d, size: 5 }), 'AlreadyExists');
    assert.deepEqual(await world.held(ns1, 'l'), [`content ${d}`]);
    await rejects(world.content.writer(ns1, 'r', { digest: d, size: 999 }), 'AlreadyExists');
    assert.equal(world.ingest('ns1', 'r'), undefined);
    await rejects(world.blobs.status('ns1/1/r'), 'NotFound');
    await rejects(world.content.writer({ ...ns1, lease: 'none' }, 'r', { digest: d }), 'NotFound');
  });

  it('[#101] given an oversized label, when committed, then InvalidArgument, bytes kept and the ref free', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(bytes(33));
    await rejects(writer.commit(33, '', { labels: { big: 'x'.repeat(5000) } }), 'InvalidArgument');
    const again = await world.content.writer(ns1, 'r');
    assert.equal((await again.status()).offset, 33);
    await again.commit(33, '');
    await world.content.info(ns1, digestOf(bytes(33)));
  });

  it('[#102] given no lease, then the ingest expires in a day; given a lease, not by itself', async (t) => {
    const world = await storeWorld(t);
    const leased = await world.lease(ns1, 'l');
    const day = 24n * 3600n * 1_000_000_000n;
    const writer = await world.content.writer(ns1, 'plain');
    const first = world.ingest('ns1', 'plain')?.expireat ?? 0n;
    assert.ok(first > now() + day - 60_000_000_000n && first <= now() + day);
    await writer.close();
    await (await world.content.writer(ns1, 'plain')).close();
    const second = world.ingest('ns1', 'plain')?.expireat ?? 0n;
    assert.ok(second > first);
    await (await world.content.writer(leased, 'plain')).close();
    assert.equal(world.ingest('ns1', 'plain')?.expireat, second);
    await (await world.content.writer(leased, 'leased')).close();
    assert.deepEqual(world.ingest('ns1', 'leased'), { ref: 'ns1/1/leased' });
    assert.deepEqual(await world.held(ns1, 'l'), ['ingests leased', 'ingests plain']);
  });

  it('[#103] given a commit inside a lease, then the lease keeps the content instead of the ingest', async (t) => {
    const world = await storeWorld(t);
    const leased = await world.lease(ns1, 'l');
    const writer = await world.content.writer(leased, 'r');
    assert.deepEqual(await world.held(ns1, 'l'), ['ingests r']);
    await writer.write(bytes(5));
    await writer.commit(0, '', {}, leased);
    assert.deepEqual(await world.held(ns1, 'l'), [`content ${digestOf(bytes(5))}`]);
  });

  it('given another namespace in the commit context, then the blob goes to the writer’s own', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(bytes(5));
    await writer.commit(0, '', {}, ns2);
    await world.content.info(ns1, digestOf(bytes(5)));
    await rejects(world.content.info(ns2, digestOf(bytes(5))), 'NotFound');
  });

  it('given a lease that is missing at commit, then NotFound, no record, and the next sweep takes the bytes', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(bytes(5));
    await rejects(writer.commit(0, '', {}, { ...ns1, lease: 'none' }), 'NotFound');
    await rejects(world.content.info(ns1, digestOf(bytes(5))), 'NotFound');
    assert.ok(world.ingest('ns1', 'r'));
    assert.equal(await world.hasBlob(digestOf(bytes(5))), true);
    await world.collect();
    assert.equal(await world.hasBlob(digestOf(bytes(5))), false);
  });

  it('[#106] given one ref open in two namespaces, then they do not touch each other', async (t) => {
    const world = await storeWorld(t);
    const a = await world.content.writer(ns1, 'r');
    const b = await world.content.writer(ns2, 'r');
    await a.write(bytes(5));
    await b.write(bytes(9));
    assert.equal((await world.content.status(ns1, 'r')).offset, 5);
    assert.equal((await world.content.status(ns2, 'r')).offset, 9);
    await a.commit(5, '');
    await b.commit(9, '');
  });

  it('[#107] given a malformed digest, when opening or committing, then InvalidArgument', async (t) => {
    const world = await storeWorld(t);
    for (const bad of ['foo', 'sha256:short', `sha256:${'A'.repeat(64)}`, 'md5:00']) {
      await rejects(world.content.writer(ns1, 'r', { digest: bad }), 'InvalidArgument', 'digest');
      const writer = await world.content.writer(ns1, 'r');
      await rejects(writer.commit(0, bad), 'InvalidArgument', 'digest');
      await rejects(world.content.info(ns1, bad), 'InvalidArgument', 'digest');
    }
    assert.equal(await offsetOf(world, ns1, 'r'), 0);
  });

  it('[#108] given a missing lease, when opened, then NotFound, no record and no lock', async (t) => {
    const world = await storeWorld(t);
    await rejects(world.content.writer({ ...ns1, lease: 'none' }, 'r'), 'NotFound', 'lease');
    assert.equal(world.ingest('ns1', 'r'), undefined);
    await rejects(world.blobs.status('ns1/1/r'), 'NotFound');
    assert.equal(await offsetOf(world, ns1, 'r'), 0);
  });

  it('[#108] given a lease that goes while the backend opens, then NotFound, no record, lock or bytes', async (t) => {
    const world: StoreWorld = await storeWorld(t, {
      content: (real) => ({
        writer: async (ref, desc) => {
          const writer = await real.writer(ref, desc);
          await world.leases.delete(ns1, 'l');
          return writer;
        },
      }),
    });
    const leased = await world.lease(ns1, 'l');
    await rejects(world.content.writer(leased, 'r'), 'NotFound', 'lease');
    assert.equal(world.ingest('ns1', 'r'), undefined);
    await rejects(world.blobs.status('ns1/1/r'), 'NotFound');
  });

  it('[#109] given a closed writer, when closed again, then fine; when written or committed, FailedPrecondition', async (t) => {
    const { content } = await storeWorld(t);
    const writer = await content.writer(ns1, 'r');
    await writer.close();
    await writer.close();
    await rejects(writer.write(bytes(1)), 'FailedPrecondition');
    await rejects(writer.truncate(0), 'FailedPrecondition');
    await rejects(writer.sync(), 'FailedPrecondition');
    await rejects(writer.commit(0, ''), 'FailedPrecondition');
  });

  it('[#110] given two refs with the same bytes, then the second commit is AlreadyExists only in the same namespace', async (t) => {
    const world = await storeWorld(t);
    const writers = [];
    for (const [ctx, ref] of [
      [ns1, 'a'],
      [ns1, 'b'],
      [ns2, 'a'],
    ] as const) {
      const writer = await world.content.writer(ctx, ref);
      await writer.write(bytes(50));
      writers.push(writer);
    }
    const outcomes = await Promise.allSettled(writers.map((w) => w.commit(50, '')));
    assert.deepEqual(outcomes.map((o) => o.status).sort(), ['fulfilled', 'fulfilled', 'rejected']);
    await world.content.info(ns1, digestOf(bytes(50)));
    await world.content.info(ns2, digestOf(bytes(50)));
  });

  it('[#111] given many opens of one ref at once, then one succeeds and the store is not delayed', async (t) => {
    const world = await storeWorld(t);
    const opens = Array.from({ length: 8 }, () => world.content.writer(ns1, 'r'));
    const outcomes = await Promise.allSettled(opens);
    assert.equal(outcomes.filter((o) => o.status === 'fulfilled').length, 1);
    const waiting = new AbortController();
    const waiter = openWriter(world.content, { ...ns1, signal: waiting.signal }, 'r');
    await world.blob(ns1, 'written meanwhile');
    waiting.abort();
    await rejects(waiter, 'Unavailable');
    for (const outcome of outcomes) if (outcome.status === 'fulfilled') await outcome.value.close();
  });

  it('[#130] given a committed writer, when committed again, then the ref’s next owner keeps it', async (t) => {
    const { content } = await storeWorld(t);
    const first = await content.writer(ns1, 'r');
    await first.write(bytes(8));
    await first.commit(0, '');
    const second = await content.writer(ns1, 'r');
    await rejects(first.commit(0, ''), 'FailedPrecondition');
    await first.close();
    await rejects(content.writer(ns1, 'r'), 'Unavailable');
    await second.write(bytes(3));
    await second.commit(3, '');
  });

  it('given overlapping calls on one writer, then they run in order', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    const parts = Array.from({ length: 20 }, (_, i) => bytes(100 + i, i + 1));
    const calls: Promise<unknown>[] = parts.map((part) => writer.write(part));
    const whole = Buffer.concat(parts);
    calls.push(writer.commit(whole.length, digestOf(whole)));
    await Promise.all(calls);
    assert.deepEqual(await world.read(ns1, digestOf(whole)), whole);
  });

  it('given a backend that cannot sync, when committed, then its error and the ref is free', async (t) => {
    let broken = true;
    const world = await storeWorld(t, {
      content: alteredWriters((real) => ({
        sync: async () => {
          if (broken) throw new Error('disk on fire');
          return real.sync();
        },
      })),
    });
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(bytes(4));
    await assert.rejects(writer.commit(4, ''), /disk on fire/);
    broken = false;
    const again = await world.content.writer(ns1, 'r');
    assert.equal((await again.status()).offset, 4);
    await again.commit(4, '');
  });

  it('given a sha512 expected digest, then the blob is known by it, also when the backend had it', async (t) => {
    const world = await storeWorld(t);
    const wanted = digestOf(bytes(12), 'sha512');
    for (const ctx of [ns1, ns2]) {
      const writer = await world.content.writer(ctx, 'r');
      await writer.write(bytes(12));
      await writer.commit(12, wanted);
      assert.equal((await world.content.info(ctx, wanted)).size, 12);
      assert.deepEqual(await world.read(ctx, wanted), bytes(12));
    }
  });

  it('given an ingest whose record was collected, when opened before the sweep, then the old bytes are there', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(bytes(40));
    await writer.close();
    await world.host.engine.update((tx) => tx.delete(`ingests\0ns1\0r`));
    assert.equal(await offsetOf(world, ns1, 'r'), 40);
  });
});

describe('content writer in a context transaction', () => {
  it('given a transaction that fails, then nothing is recorded and the ref is free', async (t) => {
    const world = await storeWorld(t);
    const failure = new Error('no');
    await assert.rejects(
      world.transaction(ns1, async (ctx) => {
        await world.content.writer(ctx, 'r');
        throw failure;
      }),
      failure,
    );
    assert.equal(world.ingest('ns1', 'r'), undefined);
    assert.equal(await offsetOf(world, ns1, 'r'), 0);
    assert.deepEqual([...world.content.inFlightIngests()], []);
  });

  it('given open, write and commit in one transaction that runs twice, then the blob is there once, and one event', async (t) => {
    const world = await storeWorld(t);
    let runs = 0;
    await world.transaction(ns1, async (ctx, tx) => {
      runs++;
      tx.get('raw\0contended');
      const writer = await world.content.writer(ctx, 'r');
      const { offset } = await writer.status();
      if (offset === 0) await writer.write(bytes(70));
      await writer.commit(70, digestOf(bytes(70)), {}, ctx);
      assert.equal((await world.content.info(ctx, digestOf(bytes(70)))).size, 70);
      if (runs === 1) await world.host.engine.update((other) => other.put('raw\0contended', 'x'));
    });
    assert.equal(runs, 2);
    assert.deepEqual(await world.read(ns1, digestOf(bytes(70))), bytes(70));
    assert.equal(world.ingest('ns1', 'r'), undefined);
    assert.deepEqual(
      world.events.map(({ topic }) => topic),
      ['/content/create'],
    );
    assert.equal(await offsetOf(world, ns1, 'r'), 0);
  });

  it('given a writer opened before, when committed in a transaction that runs twice, then it is committed', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(bytes(71));
    let runs = 0;
    await world.transaction(ns1, async (ctx, tx) => {
      runs++;
      tx.get('raw\0contended');
      await writer.commit(71, '', {}, ctx);
      if (runs === 1) await world.host.engine.update((other) => other.put('raw\0contended', 'x'));
    });
    assert.equal(runs, 2);
    assert.equal((await world.content.info(ns1, digestOf(bytes(71)))).size, 71);
    await rejects(writer.commit(71, ''), 'FailedPrecondition');
  });

  it('given a blob committed in an open transaction, when swept meanwhile, then its bytes stay', async (t) => {
    const world = await storeWorld(t);
    const d = await world.blob(ns1, bytes(20));
    await world.content.delete(ns1, d);
    let sweep: Promise<unknown> = Promise.resolve();
    await world.transaction(ns1, async (ctx) => {
      const writer = await world.content.writer(ctx, 'r');
      await writer.write(bytes(20));
      await writer.commit(20, d, {}, ctx);
      sweep = world.collect();
      await new Promise((resolve) => setTimeout(resolve, 50));
    });
    await sweep;
    assert.deepEqual(await world.read(ns1, d), bytes(20));
  });

  it('given an abort and a new open in one transaction, then the ref starts again', async (t) => {
    const world = await storeWorld(t);
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(bytes(20));
    await writer.close();
    await world.transaction(ns1, async (ctx) => {
      await world.content.abort(ctx, 'r');
      const again = await world.content.writer(ctx, 'r');
      assert.equal((await again.status()).offset, 0);
      await again.write(bytes(3));
      await again.close();
    });
    assert.equal(await offsetOf(world, ns1, 'r'), 3);
  });

  it('[#230] given a read-only transaction, when opening a writer, then FailedPrecondition and no lock', async (t) => {
    const world = await storeWorld(t);
    await world.host.view({}, async (tx) => {
      await rejects(world.content.writer({ ...ns1, tx }, 'r'), 'FailedPrecondition', 'read-only');
    });
    assert.equal(await offsetOf(world, ns1, 'r'), 0);
  });

  it('[#232] given an update body without its transaction, when opening a writer, then FailedPrecondition', async (t) => {
    const world = await storeWorld(t);
    await world.host.update({}, async () => {
      await rejects(world.content.writer(ns1, 'r'), 'FailedPrecondition', 'without its transaction');
    });
  });
});
