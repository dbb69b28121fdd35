/** Which host a DB is that was put together from parts and given no name. */
import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openContent } from '../../src/backends/content/store.js';
import { openNative } from '../../src/backends/snapshotters/native.js';
import type { DB } from '../../src/db.js';
import { withLeaseBackend } from '../../src/db-options.js';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import { newDB } from '../../src/open.js';
import { withId } from '../../src/stores/leases.js';
import { tempDir } from '../support/db.js';
import { FakeContent } from '../support/fake-backends.js';
import { ctx, engineOf, openHost } from './hosts.js';
import { cluster } from './one-member.js';

function nameless(): EtcdConfig {
  const { hostId: _, ...etcd } = cluster.config();
  return etcd;
}

/** A DB of a content directory and a snapshotter, with leases of its own. */
async function fromParts(t: TestContext, etcd: EtcdConfig, dir: string): Promise<DB> {
  const content = await openContent(join(dir, 'content'));
  const native = await openNative(join(dir, 'native'));
  const db = await newDB(etcd, undefined, content, { native }, withLeaseBackend('bolt'), { log: () => {} });
  t.after(() => db.close());
  return db;
}

const nameOf = (db: DB): string => engineOf(db).client.settings.hostId;

test('given two stores of parts on one machine, when neither has a name, then both work and keep theirs', async (t) => {
  const etcd = nameless();
  const [one, two] = [await tempDir(t), await tempDir(t)];
  const a = await fromParts(t, etcd, one);
  const b = await fromParts(t, etcd, two);
  for (let i = 0; i < 3; i++) {
    await a.leases.create(ctx, withId(`a${i}`));
    await b.leases.create(ctx, withId(`b${i}`));
  }
  assert.equal((await a.leases.list(ctx)).length, 3, 'leases are those of one host');
  assert.notEqual(nameOf(a), nameOf(b));
  const name = nameOf(b);
  await b.close();
  const again = await fromParts(t, etcd, two);
  assert.equal(nameOf(again), name);
  assert.deepEqual(
    (await again.leases.list(ctx)).map(({ id }) => id),
    ['b0', 'b1', 'b2'],
  );
});

test('given a store that was known by the name of its machine, when it opens, then it keeps that name; another one does not get it', async (t) => {
  const etcd = nameless();
  const [one, two] = [await tempDir(t), await tempDir(t)];
  // As an older version left it: no registration, a lease under the machine's name.
  const former = await openHost(t, { etcd: { ...etcd, hostId: hostname() }, leaseBackend: 'bolt' });
  await former.leases.create(ctx, withId('own'));
  await former.close();
  const client = cluster.client(etcd.prefix);
  t.after(() => client.close());
  await client.txn([], [{ del: 'sys/member/', end: 'sys/member0' }]);

  const a = await fromParts(t, etcd, one);
  assert.equal(nameOf(a), hostname());
  assert.deepEqual(
    (await a.leases.list(ctx)).map(({ id }) => id),
    ['own'],
  );
  const b = await fromParts(t, etcd, two);
  assert.notEqual(nameOf(b), hostname());
  await a.close();
  await b.close();
  assert.notEqual(nameOf(await fromParts(t, etcd, two)), hostname(), 'also when the other is away');
  assert.equal(nameOf(await fromParts(t, etcd, one)), hostname());
});

test('given stores without any directory, when several open at once, then each has a name; names are used again', async (t) => {
  const etcd = nameless();
  const open = async (): Promise<DB> => {
    const db = await newDB(etcd, undefined, new FakeContent(), {}, { log: () => {} });
    t.after(() => db.close());
    return db;
  };
  const dbs = await Promise.all([open(), open(), open()]);
  const names = dbs.map(nameOf).sort();
  assert.deepEqual(names, [hostname(), `${hostname()}:2`, `${hostname()}:3`]);
  for (const [i, db] of dbs.entries()) {
    const digest = `sha256:${String(i).repeat(64)}`;
    await db.images.create(ctx, { name: `i${i}`, target: { digest, mediaType: 'm', size: 1 } });
  }
  for (const db of dbs) await db.close();
  assert.equal(nameOf(await open()), hostname());
});
