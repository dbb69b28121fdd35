/** A scheduler that collects at once: what wakes it, what does not, and how much time it may take. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Scheduler } from '../../src/gc/schedule/scheduler.js';
import { FakeClock } from '../support/fake-clock.js';

/** A store that tells when it has garbage. */
class Target {
  readonly runs: number[] = [];
  readonly listeners: (() => void)[] = [];
  readonly garbageWatch = {
    listen: (fn: () => void) => {
      this.listeners.push(fn);
      return () => {};
    },
  };
  readonly #clock: FakeClock;
  mutate: (dirty: boolean) => void = () => {};
  elapsedMs = 0.1;

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  registerMutationCallback(fn: (dirty: boolean) => void): void {
    this.mutate = fn;
  }

  garbage(): void {
    for (const fn of this.listeners) fn();
  }

  async garbageCollect(): Promise<{ elapsed(): number }> {
    this.runs.push(this.#clock.now());
    const { elapsedMs } = this;
    return { elapsed: () => elapsedMs };
  }
}

async function setup(t: TestContext): Promise<{ clock: FakeClock; target: Target }> {
  const clock = new FakeClock();
  const target = new Target(clock);
  const scheduler = new Scheduler(target, { immediate: true }, { clock });
  t.after(() => scheduler.close());
  await clock.advance(100);
  assert.equal(target.runs.length, 1, 'the first run');
  return { clock, target };
}

test('given no garbage, when time passes and the store changes, then nothing wakes and nothing is collected', async (t) => {
  const { clock, target } = await setup(t);
  assert.equal(clock.due, undefined);
  for (let i = 0; i < 1000; i++) target.mutate(i % 2 === 0);
  assert.equal(clock.due, undefined);
  await clock.advance(3_600_000);
  assert.equal(target.runs.length, 1);
});

test('given garbage, when a second has passed, then it was collected, and nothing wakes any more', async (t) => {
  const { clock, target } = await setup(t);
  await clock.advance(10_000);
  target.garbage();
  await clock.advance(0);
  assert.equal(target.runs.length, 2, 'at once, since the last run is long ago');
  target.garbage();
  await clock.advance(1000);
  assert.equal(target.runs.length, 3);
  assert.equal(clock.due, undefined);
});

test('given writers that make garbage all the time, then runs take no more than their share of it', async (t) => {
  const { clock, target } = await setup(t);
  target.elapsedMs = 20;
  const before = target.runs.length;
  for (let i = 0; i < 2000; i++) {
    target.garbage();
    await clock.advance(10);
  }
  const runs = target.runs.length - before;
  // Of 20 s, 2 % for runs of 20 ms.
  assert.ok(runs >= 10 && runs <= 25, `${runs} runs`);
});
