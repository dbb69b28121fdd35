/** Writers beside collections, on a few digests and keys that all of them want: nothing acknowledged may be lost. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { CallContext } from '../../src/context.js';
import { isAlreadyExists, isKind, isNotFound } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { withId } from '../../src/stores/leases.js';
import { Random } from '../support/random.js';
import { ns1, ns2 } from './fixtures.js';
import { type StoreWorld, storeWorld } from './store-world.js';

const ROUNDS = 25;
const blobs = Array.from({ length: 4 }, (_, i) => Buffer.from(`blob ${i}`));

/** The lease keeps what exists, unless the transaction that found it fails. */
function passIfExists(error: unknown): void {
  if (!isAlreadyExists(error)) throw error;
}

/** Writes a blob under a lease in one of the ways there are, and reads it back while the lease lives. */
async function keepBlob(world: StoreWorld, random: Random, ctx: CallContext, id: string): Promise<void> {
  const data = blobs[random.int(blobs.length)]!;
  const digest = digestOf(data);
  const leased = await world.lease(ctx, id);
  const way = random.int(3);
  const open = way === 0 ? {} : { digest, size: data.length };
  const write = async (c: CallContext): Promise<void> => {
    const writer = await world.content.writer(c, id, open);
    const { offset } = await writer.status();
    if (offset < data.length) await writer.write(data.subarray(offset));
    await writer.commit(data.length, digest, {}, c);
  };
  if (way === 2) await world.transaction(leased, (c) => write(c).catch(passIfExists));
  else await write(leased).catch(passIfExists);
  assert.deepEqual(await world.read(leased, digest), data, `${id} lost its blob`);
  // ns2 has several writers, which would delete each other's.
  if (ctx === ns1 && random.chance(0.5)) {
    await world.content.delete(leased, digest).catch((error: unknown) => {
      if (!isNotFound(error)) throw error;
    });
  }
  await world.leases.delete(ctx, id);
}

/** Prepares and commits a snapshot under a lease, and looks at it while the lease lives. */
async function keepSnapshot(world: StoreWorld, random: Random, ctx: CallContext, id: string): Promise<void> {
  const name = `layer-${random.int(3)}`;
  const leased = await world.lease(ctx, id);
  const make = async (c: CallContext): Promise<void> => {
    await world.snapshots.prepare(c, `active-${id}`, '');
    await world.snapshots.commit(c, name, `active-${id}`);
  };
  if (random.chance(0.3)) await world.transaction(leased, (c) => make(c).catch(passIfExists));
  else await make(leased).catch(passIfExists);
  assert.equal((await world.snapshots.stat(leased, name)).kind, 'committed', `${id} lost its snapshot`);
  await world.leases.delete(ctx, id);
}

async function collectUntil(world: StoreWorld, random: Random, done: () => boolean): Promise<void> {
  while (!done()) {
    await world.collect({ fullSweep: random.chance(0.5) });
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe('content and snapshots beside collections', () => {
  for (const [engine, seed] of [
    ['memory', 1],
    ['memory', 2],
    ['lmdb', 3],
  ] as const) {
    it(`given writers of the same few blobs and snapshots, when collections run all the time (${engine}, seed ${seed}), then nothing kept is lost`, async (t) => {
      const world = await storeWorld(t, { engine });
      const random = new Random(seed);
      let working = 4;
      const worker = async (n: number, keep: typeof keepBlob): Promise<void> => {
        try {
          for (let i = 0; i < ROUNDS; i++) await keep(world, random, n % 2 ? ns1 : ns2, `w${n}-${i}`);
        } finally {
          working--;
        }
      };
      await Promise.all([
        worker(0, keepBlob),
        worker(1, keepBlob),
        worker(2, keepBlob),
        worker(3, keepSnapshot),
        collectUntil(world, random, () => working === 0),
      ]);
      for (const ctx of [ns1, ns2]) {
        await world.content.walk(ctx, (info) => world.content.delete(ctx, info.digest));
      }
      await world.host.engine.update((tx) => {
        for (const ns of ['ns1', 'ns2']) for (const [k] of tx.scan(`ingests\0${ns}`)) tx.delete(k);
      });
      await world.collect({ fullSweep: true });
      for (const data of blobs) assert.equal(await world.hasBlob(digestOf(data)), false);
      assert.deepEqual(await world.blobs.listStatuses(), []);
      assert.deepEqual(await world.backendNames(), []);
    });
  }

  it('given a lease that ends while a commit is under way, then the blob is there or the commit says why not', async (t) => {
    const world = await storeWorld(t);
    for (let i = 0; i < 10; i++) {
      await world.leases.create(ns1, withId('l'));
      const writer = await world.content.writer({ ...ns1, lease: 'l' }, 'r');
      if ((await writer.status()).offset === 0) await writer.write(blobs[0]!);
      const [committed] = await Promise.allSettled([
        writer.commit(0, ''),
        world.leases.delete(ns1, 'l'),
        world.collect({ fullSweep: true }),
      ]);
      if (committed.status === 'rejected')
        assert.ok(isKind(committed.reason, 'NotFound'), String(committed.reason));
      await world.collect();
      assert.equal(await world.hasBlob(digestOf(blobs[0]!)), false);
    }
  });
});
