/** Blobs whose file is missing, of another size, or no file: reads fail by name, and the next writer of the blob makes it whole. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { appendFile, truncate } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { blobKey } from '../../src/engine/schema/keys.js';
import { EbbtideError } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import type { BlobRecord } from '../../src/model/records.js';
import { putRecord, readRecord } from '../../src/stores/common.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { damages } from './damage.js';
import { ns1, ns2, rejects } from './fixtures.js';
import { rooted, type StoreWorld, storeWorld } from './store-world.js';

const data = Buffer.from('content that the disk lost');
const d = digestOf(data);
const size = data.length;

const pathOf = async (world: StoreWorld, digest = d): Promise<string> =>
  (await world.blobs.inspect!(digest)).path;

async function failure(work: Promise<unknown>): Promise<EbbtideError> {
  const error: unknown = await work.then(
    () => assert.fail('should fail'),
    (e) => e,
  );
  assert.ok(error instanceof EbbtideError, String(error));
  return error;
}

describe('damaged content', () => {
  for (const [what, damage] of Object.entries(damages)) {
    it(`given a blob whose file is ${what}, then reads fail by its digest, and info stays the record's`, async (t) => {
      const world = await storeWorld(t);
      await world.blob(ns1, data);
      await damage(await pathOf(world));
      const error = await failure(world.content.readerAt(ns1, d));
      assert.ok(error.message.includes(d.slice(7)), error.message);
      assert.equal(error.kind, what === 'missing' ? 'NotFound' : 'FailedPrecondition');
      assert.equal(error.object, d);
      assert.equal(await world.content.has(ns1, d), false);
      assert.equal((await world.content.info(ns1, d)).size, size);
    });

    for (const known of [true, false]) {
      it(`given a blob whose file is ${what}, when written again ${known ? 'under its digest' : 'unnamed'}, then it is whole`, async (t) => {
        const world = await storeWorld(t);
        await world.blob(ns1, data, { mine: 'kept', ...rooted });
        await damage(await pathOf(world));
        const leased = await world.lease(ns1, 'l');
        const descriptor = known ? { digest: d, size } : {};
        const writer = await world.content.writer(leased, 'again', descriptor);
        assert.equal((await writer.status()).offset, 0);
        await writer.write(data);
        await writer.commit(size, d);
        assert.deepEqual(await world.read(ns1, d), data);
        assert.equal(await world.content.has(ns1, d), true);
        assert.equal((await world.content.info(ns1, d)).labels.mine, 'kept');
        assert.deepEqual(await world.held(ns1, 'l'), [`content ${d}`]);
        await rejects(world.content.writer(ns1, 'third', { digest: d, size }), 'AlreadyExists');
        await world.collect({ fullSweep: true });
        assert.deepEqual(await world.read(ns1, d), data);
      });
    }

    it(`given a blob of ns1 whose file is ${what}, when ns2 asks for it without its size, then it sends the bytes`, async (t) => {
      const world = await storeWorld(t);
      await world.blob(ns1, data);
      await damage(await pathOf(world));
      const writer = await world.content.writer(ns2, 'r', { digest: d });
      assert.equal((await writer.status()).offset, 0);
      await writer.write(data);
      await writer.commit(0, d);
      assert.deepEqual(await world.read(ns2, d), data);
      assert.deepEqual(await world.read(ns1, d), data);
    });
  }

  it('given a shared writer, when the file shrinks before its commit, then NotFound and nothing is recorded', async (t) => {
    const world = await storeWorld(t);
    await world.blob(ns1, data);
    const writer = await world.content.writer(ns2, 'r', { digest: d });
    await truncate(await pathOf(world), 2);
    await rejects(writer.commit(0, d), 'NotFound');
    await rejects(world.content.info(ns2, d), 'NotFound');
  });

  it('given bytes that no record vouches for, when asked for by digest alone, then only the right ones are taken', async (t) => {
    const world = await storeWorld(t);
    await world.blob(ns1, data);
    await world.content.delete(ns1, d);
    assert.equal((await (await world.content.writer(ns2, 'sound', { digest: d })).status()).offset, size);
    await truncate(await pathOf(world), 4);
    const writer = await world.content.writer(ns2, 'damaged', { digest: d });
    assert.equal((await writer.status()).offset, 0);
    await writer.close();
  });

  it('given a record of the wrong size, when the blob is written again, then the record is right', async (t) => {
    const world = await storeWorld(t);
    await world.blob(ns1, data);
    await world.host.engine.update((tx) => {
      const record = readRecord<BlobRecord>(tx, blobKey('ns1', d))!;
      putRecord<BlobRecord>(tx, blobKey('ns1', d), { ...record, size: 5 });
    });
    await rejects(world.content.readerAt(ns1, d), 'FailedPrecondition', `${size} of 5 bytes`);
    await writeBlob(world.content, ns1, 'again', data, { digest: d, size });
    assert.equal((await world.content.info(ns1, d)).size, size);
    assert.deepEqual(await world.read(ns1, d), data);
  });

  it('given two writers of a damaged blob and a reader of the old file, then all end well', async (t) => {
    const world = await storeWorld(t);
    const big = randomBytes(700_000);
    const digest = await world.blob(ns1, big);
    const reader = await world.content.readerAt(ns1, digest);
    await truncate(await pathOf(world, digest), 300_000);
    await Promise.all(
      ['a', 'b'].map((ref) => writeBlob(world.content, ns1, ref, big, { digest, size: big.length })),
    );
    assert.deepEqual(await world.read(ns1, digest), big);
    // Its file is the truncated one still.
    const error = await failure(reader.read(Buffer.alloc(10), 300_000));
    assert.match(error.message, /300000 of 700000/);
    await reader.close();
  });

  it('given a file cut while it is read, then the read fails by digest and offset, and gives no bytes too few', async (t) => {
    const world = await storeWorld(t);
    const big = randomBytes(1_000_000);
    const digest = await world.blob(ns1, big);
    const reader = await world.content.readerAt(ns1, digest);
    const read = async (): Promise<number> => {
      let done = 0;
      for await (const chunk of reader.stream()) {
        done += chunk.length;
        await truncate(await pathOf(world, digest), 600_000);
      }
      return done;
    };
    const error = await failure(read());
    assert.equal(error.kind, 'FailedPrecondition');
    assert.ok(error.message.includes(digest) && error.message.includes('600000 of 1000000'), error.message);
    await reader.close();
  });

  it('given ingests that come and end, when listed until many were seen, then no listing fails', async (t) => {
    const world = await storeWorld(t);
    let running = true;
    const user = async (u: number): Promise<void> => {
      for (let i = 0; running; i++) {
        const bytes = Buffer.from(`${u} ${i}`);
        const writer = await world.content.writer(ns1, `fetch ${u}`, { size: bytes.length });
        await writer.write(bytes);
        // Now and then open for a while, so that a listing meets it.
        if (i % 4 === 1) await delay(20);
        await writer.commit(bytes.length, digestOf(bytes));
      }
    };
    const users = [0, 1, 2, 3].map(user);
    let seen = 0;
    try {
      for (let i = 0; i < 100 || seen < 100; i++) {
        for (const { ref } of await world.content.listStatuses(ns1)) {
          assert.match(ref, /^fetch [0-3]$/);
          seen++;
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
    } finally {
      running = false;
      await Promise.all(users);
    }
    assert.deepEqual(world.logged, []);
  });

  it('given a file that grows while it is read, then only the bytes of the blob are given', async (t) => {
    const world = await storeWorld(t);
    await world.blob(ns1, data);
    await using reader = await world.content.readerAt(ns1, d);
    await appendFile(await pathOf(world), 'more');
    const buffer = Buffer.alloc(100);
    assert.equal(await reader.read(buffer, 0), size);
    assert.equal(await reader.read(buffer, size), 0);
  });
});
