import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withId } from '../../src/stores/leases.js';
import { ns1, rejects } from './fixtures.js';
import { storeWorld } from './store-world.js';

test('given an update of one DB, when its body uses another DB, then that one works as ever', async (t) => {
  const [outer, inner] = [await storeWorld(t), await storeWorld(t)];
  await outer.host.update({}, async () => {
    await inner.leases.create(ns1, withId('a'));
  });
  assert.equal((await inner.leases.list(ns1)).length, 1);
});

test('given updates of two DBs in one another, when the inner one calls the outer without its transaction, then FailedPrecondition', async (t) => {
  const [outer, inner] = [await storeWorld(t), await storeWorld(t)];
  await outer.host.update({}, () =>
    inner.host.update({}, () =>
      rejects(outer.leases.create(ns1, withId('a')), 'FailedPrecondition', 'without its transaction'),
    ),
  );
});

test('given work that an update has started, when it goes on after the update, then it may call the store', async (t) => {
  const w = await storeWorld(t);
  let later: Promise<unknown> = Promise.resolve();
  let goOn = (): void => {};
  const over = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  await w.host.update({}, () => {
    later = over.then(() => w.leases.create(ns1, withId('a')));
  });
  goOn();
  await later;
  assert.equal((await w.leases.list(ns1)).length, 1);
});
