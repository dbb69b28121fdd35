/** Raw reads while a transaction too big for one of etcd's is applied: all of it or nothing, whatever is asked. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import type { EtcdClient } from '../../src/engine/etcd/client/client.js';
import { engineOf, openHost } from './hosts.js';
import { cluster } from './one-member.js';

const names = Array.from({ length: 300 }, (_, i) => `set/${String(i).padStart(3, '0')}`);

test('given a big transaction, when its keys are read by prefix all the while, then none or all of it is seen', async (t) => {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' } });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  const seen = new Set<string>();
  let done = false;
  const reading = (async () => {
    while (!done) {
      for (const serializable of [false, true]) {
        const found = await b.get('set/', { prefix: true, serializable });
        seen.add(`${found.size} ${[...new Set(found.values())].join()}`);
      }
    }
  })();
  for (let round = 1; round <= 8; round++) {
    await a.eUpdate(async (tx) => {
      for (const name of names) await tx.put(name, String(round));
    });
  }
  done = true;
  await reading;
  for (const one of seen) assert.match(one, /^(?:0 |300 \d)$/);
  assert.ok(seen.size >= 2, `${seen.size} states seen`);
});

/** A tree with a unit that is decided and applied to a half, as a host that died leaves it. */
async function halfApplied(t: TestContext): Promise<{ db: DB; client: EtcdClient; decided: number }> {
  const etcd = cluster.config();
  const db = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  for (const name of ['k/a', 'k/b', 'k/c', 'kx']) await db.put(name, 'old');
  const { client } = engineOf(db);
  const changes = [{ p: 'k/a', v: '3' }, { p: 'k/b', v: '1' }, { d: 'k/c' }, { p: 'k/d', v: '2' }];
  const staged = changes.map((change) => JSON.stringify(change)).join('\n');
  await client.txn([], [{ put: 'sys/unit/dead-1-1-1/000000', value: staged }]);
  const { revision: decided } = await client.txn(
    [],
    [
      { put: 'sys/gate', value: JSON.stringify({ id: 'dead-1-1-1', state: 'flipped', chunks: 1 }) },
      { put: 'sys/commit/dead/0', value: '{"id":"dead-1-1-1"}' },
    ],
  );
  await client.txn([], [{ put: 'k/a', value: '3' }]);
  return { db, client, decided };
}

const entries = (map: Map<string, string>): string[] => [...map].map(([key, value]) => `${key}=${value}`);

test('given a decided unit that is half applied, when raw keys are read, then every read shows all of it', async (t) => {
  const { db, decided } = await halfApplied(t);
  const whole = ['k/a=3', 'k/b=1', 'k/d=2'];
  assert.deepEqual(entries(await db.get('k/', { prefix: true })), whole);
  assert.deepEqual(entries(await db.get('k/b')), ['k/b=1']);
  assert.deepEqual(entries(await db.get('k/c')), []);
  assert.deepEqual(entries(await db.get('k/d')), ['k/d=2']);
  assert.deepEqual(entries(await db.get('k/b', { rangeEnd: 'kx' })), ['k/b=1', 'k/d=2']);
  assert.deepEqual(entries(await db.get('k/b', { rangeEnd: 'kx', limit: 1 })), ['k/b=1']);
  assert.deepEqual(entries(await db.get('k/b', { fromKey: true })).slice(0, 3), ['k/b=1', 'k/d=2', 'kx=old']);
  const byValue = { prefix: true, sort: { by: 'value', order: 'desc' } } as const;
  assert.deepEqual(entries(await db.get('k/', byValue)), ['k/a=3', 'k/d=2', 'k/b=1']);
  assert.deepEqual(entries(await db.get('k/', { prefix: true, keysOnly: true })), ['k/a=', 'k/b=', 'k/d=']);
  assert.deepEqual(entries(await db.get('k/', { prefix: true, rev: decided })), whole, 'as it was decided');
  assert.deepEqual(entries(await db.get('k/', { prefix: true, rev: decided - 1 })), [
    'k/a=old',
    'k/b=old',
    'k/c=old',
  ]);
});

test('given a decided unit that is half applied, when a key of it is put with a lease, then the put is last', async (t) => {
  const { db, client } = await halfApplied(t);
  const lease = await client.grantLease(60);
  await db.put('k/b', 'leased', { lease });
  assert.deepEqual(entries(await db.get('k/', { prefix: true })), ['k/a=3', 'k/b=leased', 'k/d=2']);
  assert.equal((await client.range('sys/gate')).count, 0);
  await db.eUpdate(async (tx) => assert.equal((await tx.get('k/b')).get('k/b'), 'leased'));
});
