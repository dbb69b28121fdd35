/**
 * The collecting host is stopped (SIGSTOP) between its decision to remove garbage and the commit of it; meanwhile
 * another host refers to that garbage. Fenced, the removal comes to nothing; with fencing switched off it must lose
 * live objects, or this test would not test anything.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { blobKey } from '../../src/engine/schema/keys.js';
import type { BlobRecord } from '../../src/model/records.js';
import { now } from '../../src/model/time.js';
import { ensureNamespace, putRecord } from '../../src/stores/common.js';
import { tempDir } from '../support/db.js';
import { History } from './history.js';
import { ctx, engineOf, eventually, openHost } from './hosts.js';
import { cluster } from './one-member.js';
import { HostProcess } from './processes.js';

const TTL = 2;
/** Of a session that does not end while the test lasts, however busy the machine is. */
const LONG_TTL = 120;
/** Of a session that is still there when its host has just died. */
const SURVIVING_TTL = 6;
const digests = Array.from({ length: 12 }, (_, i) => `sha256:${i.toString(16).padStart(64, '0')}`);

interface Outcome {
  /** Objects that were removed though they were reachable, by the oracle. */
  lost: string[];
  /** Images whose blob is gone. */
  broken: string[];
  /** The result of the paused host's collection. */
  result: { removed?: Record<string, number>; kind?: string };
  /** What the other host's collection removed meanwhile. */
  meanwhile: Record<string, number>;
}

/** Stops a collection at the worst moment; `pauseMs` later the host goes on. */
async function pausedCollection(t: TestContext, fencing: boolean, pauseMs: number): Promise<Outcome> {
  const etcd = { ...cluster.config(), sessionTtlSeconds: pauseMs === 0 ? LONG_TTL : TTL };
  const client = cluster.client(etcd.prefix);
  const history = new History(client, (await client.range('any')).revision);
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  const a = await HostProcess.make(cluster, 'a', await tempDir(t), etcd, { fencing, stopAtGarbage: 1 });
  t.after(async () => {
    await a.end();
    history.end();
    client.close();
  });
  await b.update((tx) => {
    ensureNamespace(tx, 'ns1');
    const at = now();
    for (const digest of digests) {
      putRecord<BlobRecord>(tx, blobKey('ns1', digest), { createdat: at, updatedat: at, size: 1 });
    }
  });
  await a.start();
  const collecting = a.ask<Outcome['result']>('collect');
  await a.stoppedItself();
  for (const [i, digest] of digests.entries()) {
    await b.update(async (tx) => {
      assert.ok(tx.has(blobKey('ns1', digest)), 'it is there when it is referred to');
      const inTx = b.withTransactionContext(ctx, tx);
      await b.images.create(inTx, { name: `image${i}`, target: { digest, mediaType: 'm', size: 1 } });
    });
  }
  await new Promise((resolve) => setTimeout(resolve, pauseMs));
  const meanwhile = (await b.garbageCollect()).removed;
  a.resume();
  const result = await collecting;
  const { revision } = await client.range('any');
  await client.txn([], [{ put: 'sys/mark', value: '' }]);
  await eventually('the history is whole', () => history.revision > revision);
  const lost = history.judge();
  await b.engine.view(() => undefined);
  const broken = digests.filter((digest) => !b.engine.has(blobKey('ns1', digest)));
  return { lost, broken, result, meanwhile };
}

for (const [length, ms] of [
  ['shorter than its session', 0],
  ['longer than its session', TTL * 1000 + 1500],
] as const) {
  test(`given a collecting host that is paused ${length}, when its garbage was referred to, then all of it is kept`, async (t) => {
    const { lost, broken, result } = await pausedCollection(t, true, ms);
    assert.deepEqual({ lost, broken }, { lost: [], broken: [] });
    if (ms === 0) assert.deepEqual(result.removed, {});
    else assert.equal(result.kind, 'FailedPrecondition', JSON.stringify(result));
  });

  test(`given the same with fencing switched off, paused ${length}, then live objects are lost`, async (t) => {
    const { lost, broken } = await pausedCollection(t, false, ms);
    assert.ok(broken.length > 0, 'nothing was lost: the test has lost its meaning');
    assert.equal(lost.length, broken.length);
  });
}

test('given a collecting host that dies in the middle, when its session is over, then another host collects the rest', async (t) => {
  const etcd = { ...cluster.config(), sessionTtlSeconds: SURVIVING_TTL };
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  const a = await HostProcess.make(cluster, 'a', await tempDir(t), etcd, { stopAtGarbage: 2 });
  t.after(() => a.end());
  await b.update((tx) => {
    ensureNamespace(tx, 'ns1');
    const at = now();
    for (let i = 0; i < 120; i++) {
      const digest = `sha256:${i.toString(16).padStart(64, '0')}`;
      putRecord<BlobRecord>(tx, blobKey('ns1', digest), { createdat: at, updatedat: at, size: 1 });
    }
  });
  await a.start();
  a.ask('collect').catch(() => undefined);
  await a.stoppedItself();
  const left = [...b.engine.scan('blobs\0ns1')].length;
  assert.ok(left > 0 && left < 120, `${left} left when it stopped`);
  await a.kill();
  assert.deepEqual((await b.garbageCollect()).removed, {}, 'the dead host still counts as collecting');
  const died = performance.now();
  let removed = 0;
  await eventually('B takes over', async () => {
    await new Promise((resolve) => setTimeout(resolve, 200));
    removed = (await b.garbageCollect()).removed.content ?? 0;
    return removed > 0;
  });
  t.diagnostic(`another host collected ${Math.round(performance.now() - died)} ms after the first one died`);
  assert.equal(removed, left);
  assert.deepEqual([...b.engine.scan('blobs\0ns1')], []);
});

test('given writers that refer to something before every removal, when a host collects, then it still ends, and so do they', async (t) => {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' } });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  const put = (names: readonly string[]) =>
    b.update((tx) => {
      ensureNamespace(tx, 'ns1');
      const at = now();
      for (const digest of names) {
        putRecord<BlobRecord>(tx, blobKey('ns1', digest), { createdat: at, updatedat: at, size: 1 });
      }
    });
  await put(digests);
  const writes: Promise<unknown>[] = [];
  let removals = 0;
  engineOf(a).setTestHooks({
    beforeGarbage: async () => {
      removals++;
      const target = { digest: digests[0]!, mediaType: 'm', size: 1 };
      const write = b.images.create(ctx, { name: `i${removals}`, target });
      writes.push(write);
      // The last one has to wait for the removal, which must not wait for it.
      await Promise.race([write, new Promise((resolve) => setTimeout(resolve, 500))]);
    },
  });
  const { removed } = await a.garbageCollect();
  await Promise.all(writes);
  assert.deepEqual(removed, { content: digests.length - 1 });
  assert.ok(removals > 4, `${removals} tries`);
  assert.equal((await a.images.list(ctx)).length, removals);
  assert.ok(b.engine.has(blobKey('ns1', digests[0]!)));
});
