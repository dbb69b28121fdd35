import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { Scheduler } from '../../src/gc/schedule/scheduler.js';
import { type SchedulerOptions, schedulerParams } from '../../src/gc/schedule/scheduler-params.js';
import { FakeClock } from '../support/fake-clock.js';

interface Stats {
  run: number;
  elapsed(): number;
}

/** A collector that records when it ran; each run takes `duration` of clock time. */
class Target {
  readonly runs: number[] = [];
  readonly #clock: FakeClock;
  #callback: (dirty: boolean) => void = () => {};
  duration = 0.1;
  failures = 0;
  /** While set, a run waits for it. */
  gate: Promise<void> | undefined;

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  registerMutationCallback(fn: (dirty: boolean) => void): void {
    this.#callback = fn;
  }

  mutate(n: number, dirty = false): void {
    for (let i = 0; i < n; i++) this.#callback(dirty);
  }

  async garbageCollect(): Promise<Stats> {
    this.runs.push(this.#clock.now());
    const run = this.runs.length;
    await this.gate;
    if (this.failures > 0) {
      this.failures--;
      throw new Error('disk on fire');
    }
    const { duration } = this;
    return { run, elapsed: () => duration };
  }
}

function setup(
  t: TestContext,
  options: SchedulerOptions,
): { clock: FakeClock; target: Target; scheduler: Scheduler<Stats> } {
  const clock = new FakeClock();
  const target = new Target(clock);
  const scheduler = new Scheduler<Stats>(target, options, { clock });
  t.after(() => scheduler.close());
  return { clock, target, scheduler };
}

describe('scheduler', () => {
  test('[#242] given a startup delay of 20 ms, when time passes, then the first run is not earlier', async (t) => {
    const { clock, target } = setup(t, { startupDelay: '20ms' });
    await clock.advance(19);
    assert.equal(target.runs.length, 0);
    await clock.advance(1);
    assert.deepEqual(target.runs, [1020]);
  });

  test('[#242] given no startup delay, when nothing happens, then nothing runs; a deletion makes one', async (t) => {
    const { clock, target } = setup(t, { startupDelay: 0 });
    await clock.advance(60_000);
    assert.equal(target.runs.length, 0);
    target.mutate(1, true);
    await clock.advance(1);
    assert.equal(target.runs.length, 1);
  });

  test('[#243] given a deletion threshold of 5, when 4 deletions happen, then none runs; the fifth makes it', async (t) => {
    const { clock, target } = setup(t, { startupDelay: 0, deletionThreshold: 5 });
    target.mutate(4, true);
    await clock.advance(60_000);
    assert.equal(target.runs.length, 0);
    target.mutate(1, true);
    await clock.advance(0);
    assert.equal(target.runs.length, 1);
  });

  test('[#244] given defaults without startup run, when triggered, then it runs at once with its stats', async (t) => {
    const { clock, target, scheduler } = setup(t, { startupDelay: 0 });
    const waiting = scheduler.scheduleAndWait();
    await clock.advance(0);
    assert.deepEqual(target.runs, [1000]);
    const stats = await waiting;
    assert.equal(stats.run, 1);
    assert.equal(stats.elapsed(), 0.1);
  });

  test('[#244] given a schedule delay, when triggered twice, then one run comes after the delay', async (t) => {
    const { clock, target, scheduler } = setup(t, { startupDelay: 0, scheduleDelay: '50ms' });
    const waiting = [scheduler.scheduleAndWait(), scheduler.scheduleAndWait()];
    await clock.advance(49);
    assert.equal(target.runs.length, 0);
    await clock.advance(1);
    assert.deepEqual(
      (await Promise.all(waiting)).map(({ run }) => run),
      [1, 1],
    );
  });

  test('[#245] given runs of 0.1 ms and a threshold of 0.02, when mutating for 15 ms, then at most 4 runs', async (t) => {
    for (const pauseThreshold of [0.02, 0.5]) {
      const { clock, target } = setup(t, { startupDelay: 0, pauseThreshold });
      for (let ms = 0; ms < 15; ms++) {
        target.mutate(1, true);
        await clock.advance(1);
      }
      assert.ok(target.runs.length >= 1 && target.runs.length <= 4, `${target.runs.length} runs`);
    }
  });

  test('[#245] given the minimum of 5 ms, when a run ends, then the next is 245 ms away at 0.02', async (t) => {
    const { clock, target } = setup(t, { startupDelay: 0 });
    target.mutate(1, true);
    await clock.advance(0);
    assert.ok(Math.abs((clock.due ?? 0) - 245) < 1e-6);
    target.duration = 20;
    target.mutate(1, true);
    await clock.advance(245);
    // Average of 0.1 and 20 ms.
    assert.ok(Math.abs((clock.due ?? 0) - (10.05 / 0.02 - 10.05)) < 1e-6);
  });

  test('[#246] given parameters out of range, when read, then they are clamped', () => {
    const defaults = {
      pauseThreshold: 0.02,
      deletionThreshold: 0,
      mutationThreshold: 100,
      scheduleDelay: 0,
      startupDelay: 100,
    };
    assert.deepEqual(schedulerParams(), defaults);
    assert.equal(schedulerParams({ pauseThreshold: -1 }).pauseThreshold, 0);
    assert.equal(schedulerParams({ pauseThreshold: 2 }).pauseThreshold, 0.5);
    const { scheduleDelay, startupDelay } = schedulerParams({ scheduleDelay: -5, startupDelay: '-1s' });
    assert.deepEqual([scheduleDelay, startupDelay], [0, 0]);
    assert.equal(schedulerParams({ mutationThreshold: -3 }).mutationThreshold, 0);
    assert.equal(schedulerParams({ startupDelay: '1m30s' }).startupDelay, 90_000);
    assert.throws(
      () => schedulerParams({ startupDelay: 'soon' }),
      (e) => isKind(e, 'InvalidArgument'),
    );
    assert.throws(
      () => schedulerParams({ pauseThreshold: Number.NaN }),
      (e) => isKind(e, 'InvalidArgument'),
    );
  });

  test('[#247] given a mutation threshold of 100, when 99 clean mutations happened, then the tick is skipped', async (t) => {
    const { clock, target } = setup(t, {});
    await clock.advance(100);
    assert.equal(target.runs.length, 1);
    target.mutate(99);
    await clock.advance(250);
    assert.equal(target.runs.length, 1);
    target.mutate(1);
    await clock.advance(250);
    assert.equal(target.runs.length, 2);
  });

  test('[#247] given a mutation threshold of 0, when many mutations happen, then they never make a run', async (t) => {
    const { clock, target } = setup(t, { mutationThreshold: 0 });
    await clock.advance(100);
    target.mutate(1000);
    await clock.advance(5000);
    assert.equal(target.runs.length, 1);
  });

  test('[#248] given nothing happens, when ticks come, then they plan again without collecting', async (t) => {
    const { clock, target } = setup(t, {});
    await clock.advance(10_000);
    assert.equal(target.runs.length, 1);
    assert.notEqual(clock.due, undefined);
  });

  test('[#249] given a failing first run, when it failed, then waiters reject and a retry comes', async (t) => {
    const { clock, target, scheduler } = setup(t, { startupDelay: 0 });
    target.failures = 1;
    const waiting = assert.rejects(scheduler.scheduleAndWait(), /gc failed: disk on fire/);
    await clock.advance(0);
    await waiting;
    assert.equal(target.runs.length, 2, 'the first retry comes after the schedule delay');
  });

  test('[#249] given a failing later run, when it failed, then the retry keeps the interval and adds a second', async (t) => {
    const { clock, target } = setup(t, { startupDelay: 0 });
    target.mutate(1, true);
    await clock.advance(0);
    target.mutate(1, true);
    target.failures = 1;
    await clock.advance(245);
    assert.equal(target.runs.length, 2);
    assert.ok(Math.abs((clock.due ?? 0) - 1245) < 1e-6);
    await clock.advance(1245);
    assert.equal(target.runs.length, 3, 'the deletion that made the failed run is not forgotten');
  });

  test('[#250] given a caller with a short deadline, when it ends, then it rejects and the run goes on for others', async (t) => {
    const { clock, target, scheduler } = setup(t, { startupDelay: 0 });
    let open = (): void => {};
    target.gate = new Promise((resolve) => {
      open = resolve;
    });
    const controller = new AbortController();
    const impatient = assert.rejects(scheduler.scheduleAndWait(controller.signal), (e) =>
      isKind(e, 'DeadlineExceeded'),
    );
    const patient = scheduler.scheduleAndWait();
    await clock.advance(0);
    controller.abort(new DOMException('late', 'TimeoutError'));
    await impatient;
    open();
    assert.equal((await patient).run, 1);
  });

  test('given a caller that arrives during a run, when it waits, then the next run resolves it', async (t) => {
    const { clock, target, scheduler } = setup(t, { startupDelay: 0 });
    let open = (): void => {};
    target.gate = new Promise((resolve) => {
      open = resolve;
    });
    const first = scheduler.scheduleAndWait();
    await clock.advance(0);
    const second = scheduler.scheduleAndWait();
    const next = scheduler.waitForNext();
    open();
    assert.equal((await first).run, 1);
    await clock.advance(1);
    assert.deepEqual([(await second).run, (await next).run], [2, 2]);
  });

  test('given deletions during a run, when it ends, then they are counted for the next', async (t) => {
    const { clock, target } = setup(t, { startupDelay: 0 });
    let open = (): void => {};
    target.gate = new Promise((resolve) => {
      open = resolve;
    });
    target.mutate(1, true);
    await clock.advance(0);
    target.mutate(1, true);
    target.gate = undefined;
    open();
    await clock.advance(250);
    assert.equal(target.runs.length, 2);
  });

  test('given waiters, when the scheduler closes, then they reject and nothing is planned', async (t) => {
    const { clock, target, scheduler } = setup(t, {});
    const waiting = assert.rejects(scheduler.waitForNext(), (e) => isKind(e, 'Canceled'));
    await clock.settle();
    await scheduler.close();
    await waiting;
    target.mutate(500, true);
    await clock.advance(10_000);
    assert.equal(target.runs.length, 0);
    await assert.rejects(scheduler.scheduleAndWait(), (e) => isKind(e, 'Canceled'));
  });
});
