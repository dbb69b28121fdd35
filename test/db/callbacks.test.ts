/** Mutation callbacks of a DB, and its end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DB } from '../../src/db.js';
import { gate } from '../../src/engine/suite/support.js';
import { invalidArgument, isKind } from '../../src/errors.js';
import { Streams } from '../../src/gc/streams.js';
import { ResourceStream } from '../../src/gc/types.js';
import { testDB } from '../support/db.js';

const ctx = { namespace: 'ns1' };
const image = (name: string) => ({
  name,
  target: {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: `sha256:${'a'.repeat(64)}`,
    size: 1,
    annotations: {},
  },
});

/** What the callback of a DB was called with, in order. */
function heard(db: DB): boolean[] {
  const calls: boolean[] = [];
  db.registerMutationCallback((deletion) => calls.push(deletion));
  return calls;
}

test('[#227] given a callback, when records come and go, then it is called with deletions until a collection', async (t) => {
  const db = await testDB(t);
  const calls = heard(db);
  await db.images.create(ctx, image('a'));
  assert.deepEqual(calls, [false]);
  await db.images.delete(ctx, 'a');
  await db.images.create(ctx, image('b'));
  assert.deepEqual(calls, [false, true, true]);
  await db.garbageCollect();
  assert.deepEqual(calls, [false, true, true], 'a collection and its removals are not mutations');
  await db.images.create(ctx, image('c'));
  assert.deepEqual(calls, [false, true, true, false]);
});

test('[#227] [#253] given a callback, when raw keys are updated in one transaction, then it is called', async (t) => {
  const db = await testDB(t);
  const calls = heard(db);
  await db.eUpdate((transactor) => transactor.put('k', 'v'));
  assert.deepEqual(calls, [false]);
  await db.view(() => undefined);
  await db.init();
  assert.deepEqual(calls, [false], 'neither a view nor another init is a mutation');
});

test('[#228] given an update that fails, when it has ended, then no callback and nothing stored', async (t) => {
  const db = await testDB(t);
  const calls = heard(db);
  const failure = invalidArgument('on purpose');
  await assert.rejects(
    db.update(async (tx) => {
      const inTx = db.withTransactionContext(ctx, tx);
      await db.images.create(inTx, image('a'));
      await db.images.delete(inTx, 'a');
      await db.images.create(inTx, image('b'));
      throw failure;
    }),
    (error) => error === failure,
  );
  assert.deepEqual(calls, []);
  assert.deepEqual(await db.images.list(ctx), []);
  await db.images.create(ctx, image('c'));
  assert.deepEqual(calls, [false], 'the deletion was undone with the rest');
});

test('[#229] given two operations in one update, when it commits, then both show at once and one callback runs', async (t) => {
  const db = await testDB(t);
  const calls = heard(db);
  const halfway = gate();
  // Begun outside, so that it is not a call of the update's body.
  const seen = halfway.opened.then(() => db.images.list(ctx));
  await db.update(async (tx) => {
    const inTx = db.withTransactionContext(ctx, tx);
    await db.images.create(inTx, image('a'));
    await db.images.create(inTx, image('b'));
    halfway.open();
    assert.deepEqual(await seen, [], 'no other caller sees the half of it');
    assert.deepEqual(calls, []);
  });
  assert.deepEqual(calls, [false]);
  const names = (await db.images.list(ctx)).map((found) => found.name);
  assert.deepEqual(names, ['a', 'b']);
});

test('[#234] given several callbacks, when one update commits, then they run in the order of registration', async (t) => {
  const db = await testDB(t);
  const order: string[] = [];
  for (const name of ['first', 'second', 'third']) db.registerMutationCallback(() => order.push(name));
  await db.images.create(ctx, image('a'));
  assert.deepEqual(order, ['first', 'second', 'third']);
});

test('[#241] given a closed DB, when anything is asked of it, then FailedPrecondition', async (t) => {
  const db = await testDB(t);
  await db.images.create(ctx, image('a'));
  await db.close();
  await db.close();
  const calls: Record<string, () => unknown> = {
    get: () => db.images.get(ctx, 'a'),
    create: () => db.images.create(ctx, image('b')),
    update: () => db.update(() => undefined),
    view: () => db.view(() => undefined),
    collect: () => db.garbageCollect(),
    raw: () => db.get('k'),
    put: () => db.put('k', 'v'),
    lock: () => db.lock('k'),
  };
  for (const [name, call] of Object.entries(calls)) {
    await assert.rejects(
      async () => call(),
      (error) => isKind(error, 'FailedPrecondition'),
      name,
    );
  }
});

test('[#241] given a collection under way, when the DB is closed, then closing waits for it', async (t) => {
  const db = await testDB(t);
  await db.images.create(ctx, image('a'));
  await db.images.delete(ctx, 'a');
  const order: string[] = [];
  // Under way, and not only asked for.
  const begun = new Promise<void>((resolve) => {
    const streams = new Streams();
    db.registerCollectibleResource(ResourceStream, {
      referenceLabel: () => streams.referenceLabel(),
      startCollection: () => {
        resolve();
        return streams.startCollection();
      },
    });
  });
  const run = db.garbageCollect().then(() => order.push('collected'));
  await begun;
  await db.close().then(() => order.push('closed'));
  await run;
  assert.deepEqual(order, ['collected', 'closed']);
});
