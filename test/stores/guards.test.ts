import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Guards } from '../../src/stores/guards.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Records when a promise is through. */
function watch<T>(promise: Promise<T>): { done: boolean; promise: Promise<T> } {
  const watched = { done: false, promise };
  void promise.then(() => {
    watched.done = true;
  });
  return watched;
}

describe('guards', () => {
  it('given a holder, then other holders and sharers wait, and names apart do not', async () => {
    const guards = new Guards();
    const release = await guards.acquire('a');
    const second = watch(guards.acquire('a'));
    const share = watch(guards.share('a'));
    (await guards.acquire('b'))();
    await turn();
    assert.deepEqual([second.done, share.done], [false, false]);
    assert.equal(guards.tryAcquire('a'), undefined);
    release();
    release();
    (await share.promise)();
    (await second.promise)();
    guards.tryAcquire('a')?.();
    assert.ok(guards.tryAcquire('a'));
  });

  it('given sharers, then a holder waits for all of them, and further sharers do not wait for it', async () => {
    const guards = new Guards();
    const first = await guards.share('a');
    const holder = watch(guards.acquire('a'));
    const second = await guards.share('a');
    first();
    first();
    await turn();
    assert.equal(holder.done, false);
    assert.equal(guards.tryAcquire('a'), undefined);
    second();
    const release = await holder.promise;
    const third = watch(guards.share('a'));
    await turn();
    assert.equal(third.done, false);
    release();
    (await third.promise)();
  });

  it('given many names, then those that are free are taken at once and until they are let go together', async () => {
    const guards = new Guards();
    const held = await guards.acquire('held');
    const shared = await guards.share('shared');
    const { taken, release } = guards.tryAcquireMany(['a', 'held', 'b', 'shared', 'a']);
    assert.deepEqual(taken, [true, false, true, false, false]);
    const [holder, share] = [watch(guards.acquire('a')), watch(guards.share('b'))];
    await turn();
    assert.deepEqual([holder.done, share.done], [false, false]);
    held();
    shared();
    guards.tryAcquire('held')?.();
    release();
    release();
    (await share.promise)();
    const free = await holder.promise;
    assert.equal(guards.tryAcquire('a'), undefined);
    free();
    assert.deepEqual(guards.tryAcquireMany(['a', 'b', 'held', 'shared']).taken, [true, true, true, true]);
  });

  it('given holders, then they come in order and one at a time', async () => {
    const guards = new Guards();
    const order: number[] = [];
    let inside = 0;
    const work = (n: number): Promise<void> =>
      guards.with('a', async () => {
        assert.equal(++inside, 1);
        await turn();
        order.push(n);
        inside--;
      });
    await Promise.all([0, 1, 2, 3, 4].map(work));
    assert.deepEqual(order, [0, 1, 2, 3, 4]);
  });

  it('given a failing body, then the guard is free again', async () => {
    const guards = new Guards();
    const failure = new Error('no');
    await assert.rejects(
      guards.with('a', async () => {
        throw failure;
      }),
      failure,
    );
    assert.ok(guards.tryAcquire('a'));
  });

  it('given several names taken in different orders, then no caller waits for ever', async () => {
    const guards = new Guards();
    const sets = [
      ['a', 'b', 'c'],
      ['c', 'b', 'a'],
      ['b', 'a', 'b'],
    ];
    const work = async (names: string[]): Promise<void> => {
      const release = await guards.acquireAll(names);
      await turn();
      release();
    };
    await Promise.all([...sets, ...sets].map(work));
    assert.ok(guards.tryAcquire('a'));
  });
});
