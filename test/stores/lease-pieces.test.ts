/** A part of a lease's deletion that the disk refuses. Of the embedded store: over etcd there is no such disk. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withTransactionContext } from '../../src/context.js';
import { CoreEngine } from '../../src/engine/core/engine.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { leaseKey, Relation } from '../../src/engine/schema/keys.js';
import { isKind, unavailable } from '../../src/errors.js';
import { withId } from '../../src/stores/leases.js';
import { tempDir, testDB } from '../support/db.js';
import { ns1 } from './fixtures.js';

test('given the deletion of a lease that keeps much, when the disk refuses a part of it, then that is done again or reported, and what is said to be gone is', async (t) => {
  const root = await tempDir(t);
  const db = await testDB(t, { engine: 'lmdb', root });
  await db.leases.create(ns1, withId('l'));
  await db.update(async (tx) => {
    for (let i = 0; i < 700; i++)
      await db.leases.addResource(withTransactionContext(ns1, tx), 'l', { type: 'images', id: `r${i}` });
  });
  const { engine } = db;
  assert.ok(engine instanceof CoreEngine && engine.storage instanceof LmdbStorage);
  const { storage } = engine;
  const append = storage.append.bind(storage);
  let appended = 0;
  storage.append = async (batch) => {
    if (++appended !== 2) return append(batch);
    throw unavailable('the disk is full');
  };
  const { epoch } = engine;
  // It depends on the turns of the disk whether the end of it was among what was refused.
  await db.leases.delete(ns1, 'l').catch(async (error: unknown) => {
    assert.ok(isKind(error, 'Unavailable'), String(error));
    await db.leases.delete(ns1, 'l');
  });
  assert.ok(engine.epoch > epoch, 'something was lost');
  assert.deepEqual(await db.leases.list(ns1), []);
  assert.deepEqual([...engine.links(leaseKey('ns1', 'l'), Relation.holds)], []);
  await db.close();
  const again = await testDB(t, { engine: 'lmdb', root });
  assert.deepEqual(await again.leases.list(ns1), []);
});
