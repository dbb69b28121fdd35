/** Contract suite: the change feed and the named locks. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { ChangeSet, Unlock } from '../contract.js';
import { key } from '../schema/keys.js';
import { assertKind, type EngineUnderTest, putAll } from './support.js';

type Test = (subject: EngineUnderTest, t: TestContext) => Promise<void>;

const tick = () => new Promise((resolve) => setImmediate(resolve));

/** Whether a promise has settled after a few turns of the event loop. */
async function settled(promise: Promise<unknown>): Promise<boolean> {
  let done = false;
  promise.then(
    () => {
      done = true;
    },
    () => {
      done = true;
    },
  );
  for (let i = 0; i < 3; i++) await tick();
  return done;
}

export const services: Record<string, Test> = {
  'given a feed, when commits are made before and after it began, then it passes all on in order': async ({
    engine,
  }) => {
    await putAll(engine, [[key('images', 'ns', 'a'), 'one']]);
    const control = new AbortController();
    const sets: ChangeSet[] = [];
    const reading = (async () => {
      for await (const set of engine.feed(0, control.signal)) {
        sets.push(set);
        if (sets.length === 3) control.abort();
      }
    })();
    await putAll(engine, [[key('images', 'ns', 'b'), { size: 2 }]]);
    await engine.update((tx) => {
      tx.delete(key('images', 'ns', 'a'));
      tx.next(key('meta', 'n'));
    });
    await reading;
    assert.deepEqual(sets, [
      { revision: 1, changes: [{ key: key('images', 'ns', 'a'), value: 'one' }] },
      { revision: 2, changes: [{ key: key('images', 'ns', 'b'), value: { size: 2 } }] },
      { revision: 3, changes: [{ key: key('images', 'ns', 'a'), value: undefined }] },
    ]);
    assert.equal(engine.revision, 3);
  },

  'given a feed, when it is to begin before what is kept, then FailedPrecondition': async ({ engine }) => {
    for (let i = 0; i < 60; i++) {
      await engine.update(
        (tx) => {
          for (let j = 0; j < 10; j++) tx.put(key('images', 'ns', `${i}-${j}`), 'x'.repeat(65_536));
        },
        { durability: 'visible' },
      );
    }
    await engine.flush();
    const feed = engine.feed(0)[Symbol.asyncIterator]();
    await assert.rejects(feed.next(), assertKind('FailedPrecondition'));
    const recent = engine.feed(engine.revision - 1)[Symbol.asyncIterator]();
    assert.equal((await recent.next()).value?.revision, engine.revision);
    await recent.return?.();
  },

  'given a lock, when it is held, then others wait for it and readers for an earlier writer [#256]': async ({
    engine: { locks },
  }) => {
    const order: string[] = [];
    const first = await locks.rLock('a');
    const second = await locks.rLock('a');
    const enter = (name: string, lock: Promise<Unlock>) =>
      lock.then(async (unlock) => {
        order.push(name);
        await tick();
        await unlock();
      });
    const writer = enter('writer', locks.lock('a'));
    const reader = enter('reader', locks.rLock('a'));
    await first();
    assert.equal(await settled(writer), false);
    assert.equal(await settled(reader), false);
    await second();
    await Promise.all([writer, reader]);
    assert.deepEqual(order, ['writer', 'reader']);
  },

  'given a lock on a, when a/b is locked, then it does not wait [#257]': async ({ engine: { locks } }) => {
    const a = await locks.lock('a');
    const b = await locks.lock('a/b');
    await a();
    await b();
  },

  'given a held or awaited name, when tried, then Unavailable at once and nothing is left [#258]': async ({
    engine: { locks },
  }) => {
    const unlock = await locks.rLock('a');
    await assert.rejects(locks.tryLock('a'), assertKind('Unavailable'));
    await unlock();
    const again = await locks.tryLock('a');
    await again();
    await assert.rejects(again(), assertKind('FailedPrecondition'));
  },

  'given a cancelled wait, when the lock is freed, then those after it get it': async ({
    engine: { locks },
  }) => {
    const reader = await locks.rLock('a');
    const control = new AbortController();
    const writer = locks.lock('a', control.signal);
    const behind = locks.rLock('a');
    assert.equal(await settled(behind), false);
    control.abort();
    await assert.rejects(writer, assertKind('Canceled'));
    await (await behind)();
    await reader();
    await (await locks.tryLock('a'))();
  },

  'given waiting requests, when the engine closes, then they are Canceled': async ({ engine }) => {
    const unlock = await engine.locks.lock('a');
    const waiting = engine.locks.lock('a');
    const refused = assert.rejects(waiting, assertKind('Canceled'));
    await engine.close();
    await refused;
    await unlock();
  },
};
