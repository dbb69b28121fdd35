/**
 * Removals of garbage over etcd are cut so that each is one etcd transaction: no collection ever puts the gate up for
 * a unit, which would make the writers of all hosts wait until it is applied.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Watch, type WatchEvent } from '../../src/engine/etcd/mirror/watch.js';
import { blobKey, leaseKey, Relation, snapshotKey } from '../../src/engine/schema/keys.js';
import type { BlobRecord, LeaseRecord, SnapshotRecord } from '../../src/model/records.js';
import { now } from '../../src/model/time.js';
import { ensureNamespace, putRecord } from '../../src/stores/common.js';
import { eventually, openHost } from './hosts.js';
import { cluster } from './one-member.js';

const NS = 'ns1';
/** What etcd takes in one transaction. */
const OPS_MAX = 128;

interface Seen {
  /** Operations of each transaction that removed garbage. */
  readonly removals: number[];
  /** Transactions that moved the gate. */
  gates: number;
}

/** What happens below a prefix from now on. */
async function watched(
  t: TestContext,
  prefix: string,
): Promise<{ seen: Seen; allReported: () => Promise<void> }> {
  const client = cluster.client(prefix);
  const { revision } = await client.range('any');
  const seen: Seen = { removals: [], gates: 0 };
  let reported = revision;
  const watch = new Watch(client, revision, {
    revision: (at, events) => {
      reported = at;
      if (events.some(({ kv }) => kv.key === 'sys/gate')) seen.gates++;
      if (events.some(isGarbageRecord)) seen.removals.push(events.length);
    },
    progress: () => {},
    compacted: () => assert.fail('compacted'),
    history: async () => 'same',
    replaced: () => assert.fail('replaced'),
    warn: (message) => assert.fail(message),
  });
  t.after(() => {
    watch.end();
    client.close();
  });
  const allReported = async (): Promise<void> => {
    const mark = (await client.txn([], [{ put: 'sys/mark', value: '' }])).revision;
    await eventually('everything was reported', () => reported >= mark);
  };
  return { seen, allReported };
}

const isGarbageRecord = ({ deleted, kv }: WatchEvent): boolean =>
  !deleted && kv.key.startsWith('sys/commit/') && JSON.parse(kv.value.toString('utf8')).garbage === true;

const digestOf = (n: number): string => `sha256:${n.toString(16).padStart(64, '0')}`;

test('given thousands of garbage records of all kinds, when they are collected, then every removal is one etcd transaction', async (t) => {
  const etcd = cluster.config();
  const host = await openHost(t, { etcd });
  const at = now();
  const times = { createdat: at, updatedat: at };
  const past = '2001-01-01T00:00:00Z';
  for (let from = 0; from < 2000; from += 500) {
    await host.update((tx) => {
      ensureNamespace(tx, NS);
      for (let i = from; i < from + 500; i++)
        putRecord<BlobRecord>(tx, blobKey(NS, digestOf(i)), { ...times, size: 1 });
    });
  }
  await host.update((tx) => {
    for (let i = 0; i < 400; i++) {
      const parent = i % 4 === 0 ? undefined : `s${i - 1}`;
      const record = snapshotKey(NS, 'native', `s${i}`);
      // Another namespace's name of the directory: that is a link of its own.
      putRecord<SnapshotRecord>(tx, record, { ...times, name: `other/${i}/x`, ...(parent && { parent }) });
      if (parent !== undefined) tx.link(snapshotKey(NS, 'native', parent), Relation.children, record);
    }
  });
  await host.update((tx) => {
    const lease = leaseKey(NS, 'expired');
    putRecord<LeaseRecord>(tx, lease, { createdat: at, labels: { 'containerd.io/gc.expire': past } });
    for (let i = 0; i < 700; i++) tx.link(lease, Relation.holds, blobKey(NS, digestOf(i)));
  });
  const { seen, allReported } = await watched(t, etcd.prefix!);

  const { removed, slices } = await host.garbageCollect();
  await allReported();

  assert.deepEqual(removed, { content: 2000, lease: 1, snapshot: 400 });
  assert.equal(seen.gates, 0, 'a removal was a unit');
  assert.ok(Math.max(...seen.removals) <= OPS_MAX, `${Math.max(...seen.removals)} operations`);
  assert.ok(seen.removals.length >= 2400 / OPS_MAX && seen.removals.length <= slices);
  t.diagnostic(`${seen.removals.length} removals of up to ${Math.max(...seen.removals)} operations`);
});
