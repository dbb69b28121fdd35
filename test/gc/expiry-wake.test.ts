import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import type { Key } from '../../src/engine/contract.js';
import { ExpiryClock } from '../../src/gc/schedule/expiry-clock.js';
import { nextExpiry } from '../../src/gc/schedule/expiry-wake.js';
import { Scheduler } from '../../src/gc/schedule/scheduler.js';
import { formatTimestamp, type Instant } from '../../src/model/time.js';
import { FakeClock } from '../support/fake-clock.js';
import { gc, world } from '../support/gc-world.js';

const at = (ms: number): Instant => BigInt(Math.round(ms)) * 1_000_000n;
const seconds = (n: number): Instant => BigInt(n) * 1_000_000_000n;

describe('the next expiry', () => {
  test('given leases, images and ingests, when asked, then it is the earliest later than the given time', async (t) => {
    const w = await world(t);
    assert.equal(nextExpiry(w.engine, 0n), undefined);
    await w.lease('never', {});
    await w.lease('l', { [gc('expire')]: formatTimestamp(seconds(300)) });
    await w.image('i', 'x', { [gc('expire')]: formatTimestamp(seconds(200)) });
    const ingest: Key = w.ingestKey('u');
    await w.put(ingest, { ref: 'ns1/1/u', expireat: seconds(250) });
    const all: (Instant | undefined)[] = [];
    let after = 0n;
    for (let next = nextExpiry(w.engine, after); next !== undefined; next = nextExpiry(w.engine, after)) {
      all.push(next);
      after = next;
    }
    assert.deepEqual(all, [seconds(200), seconds(250), seconds(300)]);
  });
});

/** A store that only has expiries; a run takes what has expired. */
class Target {
  readonly clock: FakeClock;
  readonly runs: number[] = [];
  expiries: Instant[] = [];
  asked = 0;
  failures = 0;
  stats = { elapsed: () => 1, pauseTotal: 0 };
  mutate: () => void = () => {};
  /** Nanoseconds that the wall clock was set on, or back. */
  set = 0n;
  readonly expiryTime: ExpiryClock;

  constructor(clock: FakeClock) {
    this.clock = clock;
    const uptime = (): Instant => at(clock.now());
    this.expiryTime = new ExpiryClock({
      clock: { wall: () => uptime() + this.set, uptime, drift: () => 0, boot: '' },
      log: () => {},
    });
  }

  registerMutationCallback(fn: (dirty: boolean) => void): void {
    this.mutate = () => fn(false);
  }
  async garbageCollect(): Promise<{ elapsed(): number; pauseTotal: number }> {
    this.runs.push(this.clock.now());
    if (this.failures-- > 0) throw new Error('not now');
    return this.stats;
  }
  nextExpiry(after: Instant): Instant | undefined {
    this.asked++;
    return this.expiries.filter((expiry) => expiry > after).sort((a, b) => Number(a - b))[0];
  }
}

function setup(t: TestContext, expiries: number[], startupDelay = 0) {
  const clock = new FakeClock();
  const target = new Target(clock);
  target.expiries = expiries.map((ms) => at(clock.now() + ms));
  const scheduler = new Scheduler(target, { startupDelay }, { clock });
  t.after(() => scheduler.close());
  return { clock, target, scheduler, start: clock.now() };
}

describe('the scheduler and expiries', () => {
  test('given an idle host, when a lease expires, then a run follows at once and only one', async (t) => {
    const { clock, target, start } = setup(t, [60_000]);
    await clock.advance(60_000);
    assert.deepEqual(target.runs, [], 'not before');
    await clock.advance(10);
    assert.equal(target.runs.length, 1);
    assert.ok(target.runs[0]! - start <= 60_002);
    await clock.advance(3_600_000);
    assert.equal(target.runs.length, 1, 'what something else keeps does not wake again');
  });

  test('given several expiries, when time passes, then each wakes', async (t) => {
    const { clock, target } = setup(t, [1000, 50_000, 7_200_000]);
    await clock.advance(7_300_000);
    assert.equal(target.runs.length, 3);
  });

  test('given something that expired before the start, when idle, then it is collected', async (t) => {
    const { clock, target } = setup(t, [-500]);
    await clock.advance(100);
    assert.equal(target.runs.length, 1);
  });

  test('given a new lease, when it expires before the known ones, then it wakes in time', async (t) => {
    const { clock, target } = setup(t, [600_000]);
    await clock.advance(1000);
    target.expiries.push(at(clock.now() + 5000));
    target.mutate();
    await clock.advance(5010);
    assert.equal(target.runs.length, 1);
  });

  test('given many mutations, when expiries are looked for, then at most once a second', async (t) => {
    const { clock, target } = setup(t, [600_000]);
    await clock.advance(10);
    const before = target.asked;
    for (let i = 0; i < 50; i++) {
      target.mutate();
      await clock.advance(100);
    }
    assert.ok(target.asked - before <= 6, `asked ${target.asked - before} times`);
  });

  test('given a forward step, when a lease expires only through it, then it wakes once, after the grace', async (t) => {
    const { clock, target } = setup(t, [3_600_000]);
    await clock.advance(10);
    target.set = seconds(4 * 3600);
    await clock.advance(60_000);
    assert.equal(target.runs.length, 0, 'kept for the grace');
    await clock.advance(598_000);
    assert.equal(target.runs.length, 0, 'still, from when it was noticed');
    const asked = target.asked;
    await clock.advance(2100);
    assert.equal(target.runs.length, 1);
    await clock.advance(3_600_000);
    assert.equal(target.runs.length, 1);
    assert.ok(target.asked - asked < 70, `the store was searched ${target.asked - asked} times`);
  });

  test('given a backward step, when what was seen lies ahead, then a new lease wakes in time', async (t) => {
    const { clock, target } = setup(t, [8 * 3_600_000]);
    await clock.advance(10);
    target.set = seconds(9 * 3600);
    await clock.advance(700_000);
    assert.equal(target.runs.length, 1, 'the grace is over');
    target.set = 0n;
    target.expiries.push(at(clock.now() + 1_800_000));
    target.mutate();
    await clock.advance(1_799_000);
    assert.equal(target.runs.length, 1);
    await clock.advance(1100);
    assert.equal(target.runs.length, 2);
  });

  test('given a lease that is near, when the clock goes back, then it wakes when the lease expires', async (t) => {
    const { clock, target } = setup(t, [30_000]);
    await clock.advance(10);
    target.set = seconds(-600);
    await clock.advance(629_000);
    assert.equal(target.runs.length, 0);
    await clock.advance(1100);
    assert.equal(target.runs.length, 1);
  });

  test('given a failing run, when the lease stays expired, then it is tried again', async (t) => {
    const { clock, target } = setup(t, [1000]);
    target.failures = 2;
    await clock.advance(20_000);
    assert.equal(target.runs.length, 3);
  });

  test('given a closed scheduler, when a lease expires, then nothing runs and no timer is left', async (t) => {
    const { clock, target, scheduler } = setup(t, [1000]);
    await scheduler.close();
    await clock.advance(10_000);
    assert.deepEqual(target.runs, []);
    assert.equal(clock.due, undefined);
  });
});

describe('the scheduler and pauses', () => {
  test('given runs that delay no caller, when they take long, then the next may follow after as long again', async (t) => {
    const { clock, target } = setup(t, [], 10);
    target.stats = { elapsed: () => 2000, pauseTotal: 4 };
    await clock.advance(20);
    assert.equal(target.runs.length, 1);
    for (let i = 0; i < 200; i++) target.mutate();
    await clock.advance(1900);
    assert.equal(target.runs.length, 1);
    await clock.advance(200);
    assert.equal(target.runs.length, 2);
  });

  test('given pauses of 100 ms, when more is to do, then the share of time is kept to', async (t) => {
    const { clock, target } = setup(t, [], 10);
    target.stats = { elapsed: () => 300, pauseTotal: 100 };
    await clock.advance(20);
    for (let i = 0; i < 200; i++) target.mutate();
    // 100 ms in 5000 ms is 2 %.
    await clock.advance(4800);
    assert.equal(target.runs.length, 1);
    await clock.advance(200);
    assert.equal(target.runs.length, 2);
  });
});
