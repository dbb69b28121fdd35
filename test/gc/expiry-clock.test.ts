import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { why } from '../../src/gc/report/why.js';
import { ExpiryClock } from '../../src/gc/schedule/expiry-clock.js';
import { Label } from '../../src/model/labels.js';
import { formatTimestamp, type Instant, now, parseTimestamp } from '../../src/model/time.js';
import { withExpiration, withId } from '../../src/stores/leases.js';
import { testDB } from '../support/db.js';
import { gc, type World, world } from '../support/gc-world.js';
import { FakeHostClock, HOUR, MINUTE } from '../support/host-clock.js';

const SECOND = 1_000_000_000n;

function setup(graceMs?: number) {
  const clock = new FakeHostClock();
  const logged: string[] = [];
  const expiry = new ExpiryClock({ clock, graceMs, log: (_level, message) => logged.push(message) });
  /** How far the time of expiries lags the wall clock. */
  const behind = (): bigint => clock.wall() - expiry.now();
  return { clock, logged, expiry, behind };
}

describe('the time of expiries', () => {
  test('given a clock that is never set, when time passes, also by leaps, then it is the wall clock', () => {
    const { clock, behind, expiry, logged } = setup();
    for (const pass of [1n, SECOND, HOUR, 90n * 24n * HOUR]) {
      clock.pass(pass);
      assert.equal(behind(), 0n);
    }
    assert.deepEqual([expiry.steps, logged], [{ forward: 0, backward: 0 }, []]);
  });

  test('given a forward step, when there was no check for long, then it lags until the grace is over', () => {
    const { clock, behind, expiry, logged } = setup();
    clock.pass(5n * HOUR);
    clock.set(4n * HOUR);
    assert.ok(behind() <= 4n * HOUR && behind() > 4n * HOUR - 20n * SECOND);
    clock.pass(10n * MINUTE - 1n);
    assert.ok(behind() > 3n * HOUR, 'still');
    clock.pass(1n);
    assert.deepEqual([behind(), expiry.steps.forward, logged.length], [0n, 1, 1]);
  });

  test('given a backward step, then it follows at once, and a step forward before is taken back', () => {
    const { clock, behind, expiry } = setup();
    clock.set(-3n * HOUR);
    assert.equal(behind(), 0n);
    clock.set(9n * HOUR);
    assert.equal(behind(), 9n * HOUR);
    clock.set(-5n * HOUR);
    assert.equal(behind(), 4n * HOUR, 'what is left of the step');
    clock.set(-4n * HOUR);
    assert.deepEqual([behind(), expiry.steps], [0n, { forward: 1, backward: 3 }]);
  });

  test('given small steps in a row, when they are more than a minute, then they are one step', () => {
    const { clock, behind } = setup();
    clock.set(50n * SECOND);
    assert.equal(behind(), 0n, 'not over a minute');
    clock.pass(SECOND);
    clock.set(50n * SECOND);
    assert.ok(behind() > 99n * SECOND);
  });

  test('given a clock that is adjusted by half a thousandth, when weeks pass, then nothing is a step', () => {
    const { clock, behind, expiry } = setup();
    for (let i = 0; i < 500; i++) {
      clock.pass(HOUR);
      clock.set(HOUR / 2000n);
      assert.equal(behind(), 0n);
    }
    assert.equal(expiry.steps.forward, 0);
  });

  test('given two steps in their graces, when asked how long until an expiry, then it is then', () => {
    for (const lifetime of [1n, 3n, 8n, 12n, 61n, 119n, 121n, 200n]) {
      const { clock, expiry } = setup();
      clock.set(HOUR);
      expiry.now();
      clock.pass(4n * MINUTE);
      clock.set(HOUR);
      const at = expiry.now() + lifetime * MINUTE;
      const left = BigInt(expiry.msUntil(at)) * 1_000_000n;
      clock.pass(left - 2_000_000n);
      assert.ok(expiry.now() <= at, `${lifetime} minutes: not yet`);
      clock.pass(2_000_000n);
      assert.ok(expiry.now() > at, `${lifetime} minutes: passed`);
      assert.equal(expiry.msUntil(at), 0);
    }
  });

  test('given a change while the clock is back for a moment, when it goes on again, then that is a step', () => {
    const { clock, behind, expiry } = setup();
    clock.set(-4n * HOUR);
    clock.set(4n * HOUR);
    expiry.glance();
    assert.equal(behind(), 0n, 'nothing was made meanwhile');
    clock.set(-4n * HOUR);
    expiry.glance();
    clock.set(4n * HOUR);
    assert.equal(behind(), 4n * HOUR);
    clock.set(-4n * HOUR);
    expiry.glance();
    assert.equal(expiry.steps.backward, 2, 'as it was at the glance before');
  });

  test('given no grace, when the clock is set, then it is the wall clock, and the step is counted', () => {
    const { clock, behind, expiry } = setup(0);
    clock.set(4n * HOUR);
    assert.deepEqual([behind(), expiry.steps.forward], [0n, 1]);
  });

  test('given a grace that is none, then it is refused', () => {
    for (const graceMs of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
      assert.throws(() => setup(graceMs), { kind: 'InvalidArgument' });
    }
  });
});

/** A store whose process is started again. */
async function restarting(t: TestContext) {
  const clock = new FakeHostClock();
  const w = await world(t);
  const start = (): ExpiryClock => {
    const expiry = new ExpiryClock({ clock, log: () => {} });
    expiry.load(w.engine);
    return expiry;
  };
  return { clock, w, start, behind: (expiry: ExpiryClock) => clock.wall() - expiry.now() };
}

describe('the time of expiries over a restart', () => {
  test('given a step while no process ran, when one starts, then the grace runs from there', async (t) => {
    const { clock, w, start, behind } = await restarting(t);
    await start().save(w.engine);
    clock.pass(HOUR);
    clock.set(4n * HOUR);
    const second = start();
    assert.ok(behind(second) > 3n * HOUR);
    await second.save(w.engine);
    clock.pass(6n * MINUTE);
    const third = start();
    assert.ok(behind(third) > 3n * HOUR, 'still in its grace');
    assert.equal(third.steps.forward, 0, 'no other step');
    clock.pass(4n * MINUTE);
    assert.equal(behind(third), 0n);
  });

  test('given a host that was off, when it is up, then what expired meanwhile is kept for the grace', async (t) => {
    const { clock, w, start, behind } = await restarting(t);
    await start().save(w.engine);
    clock.reboot(48n * HOUR, MINUTE);
    const second = start();
    assert.equal(behind(second), 48n * HOUR + MINUTE);
    assert.equal(second.steps.forward, 0, 'it was not set');
    clock.pass(9n * MINUTE);
    assert.equal(behind(second), 0n);
    clock.reboot(48n * HOUR, 11n * MINUTE);
    assert.equal(behind(start()), 0n, 'up for long when the store is opened');
  });

  test('given a clock that a boot has set back, when a store is opened, then that is a step', async (t) => {
    const { clock, w, start, behind } = await restarting(t);
    await start().save(w.engine);
    clock.reboot(HOUR, MINUTE);
    clock.set(-9_000n * HOUR);
    const second = start();
    assert.deepEqual([behind(second), second.steps.backward], [0n, 1]);
  });

  test('given a new store, or a damaged state, when opened, then it is the wall clock', async (t) => {
    const { w, start, behind } = await restarting(t);
    assert.equal(behind(start()), 0n);
    for (const text of ['', '{}', '{"boot":"first","offset":"x"}', 'null']) {
      await w.engine.update((tx) => tx.put('meta\0clock', text));
      assert.equal(behind(start()), 0n, text);
    }
  });

  test('given nothing new, when a collection saves it again, then nothing is written', async (t) => {
    const { w, start } = await restarting(t);
    const expiry = start();
    await expiry.save(w.engine);
    const { revision } = w.engine;
    await expiry.save(w.engine);
    await start().save(w.engine);
    assert.equal(w.engine.revision, revision);
  });
});

/** A lease of so long by the clock of a world, with a blob that only it keeps. */
async function leased(w: World, clock: FakeHostClock, lifetime: bigint): Promise<string> {
  const blob = await w.blob('x');
  await w.lease('l', { [gc('expire')]: formatTimestamp(clock.wall() + lifetime) }, w.blobKey('x'));
  return blob;
}

describe('collections and a clock that is set', () => {
  test('given a lease of an hour, when the clock is set four hours on, then it stays for the grace', async (t) => {
    const clock = new FakeHostClock();
    const w = await world(t, { clock });
    const blob = await leased(w, clock, HOUR);
    clock.set(4n * HOUR);
    const { keptUntil } = await why(w, (run) => run(), { namespace: 'ns1' }, { name: blob }, { all: true });
    assert.equal((keptUntil ?? 0n) / MINUTE, (clock.wall() + 10n * MINUTE) / MINUTE);
    const stats = await w.collect();
    assert.deepEqual([stats.removed, w.content.blobs.has(blob)], [{}, true]);
    assert.ok(stats.expiryHeldBackMs > 3 * 3_600_000);
    clock.pass(10n * MINUTE);
    const later = await w.collect();
    assert.deepEqual(later.removed, { lease: 1, content: 1 });
    assert.equal(later.expiryHeldBackMs, 0);
  });

  test('given a clock that was hours ahead, when it is set back and a lease made, then it stays', async (t) => {
    const clock = new FakeHostClock();
    const w = await world(t, { clock });
    clock.set(9n * HOUR);
    await w.collect();
    clock.set(-9n * HOUR);
    const blob = await leased(w, clock, 4n * HOUR);
    await w.collect();
    assert.ok(w.content.blobs.has(blob));
    clock.pass(5n * HOUR);
    await w.collect();
    assert.ok(!w.content.blobs.has(blob));
  });

  test('given a run under way, when the clock is set back and a lease made, then the run removes nothing', async (t) => {
    const clock = new FakeHostClock();
    const w = await world(t, { clock });
    clock.set(9n * HOUR);
    clock.pass(HOUR);
    await w.blob('garbage');
    const blob = await w.blob('x');
    const mark = w.engine.graph.mark.bind(w.engine.graph);
    w.engine.graph.mark = async (at, options) => {
      const result = await mark(at, options);
      clock.set(-9n * HOUR);
      await leased(w, clock, 4n * HOUR);
      return result;
    };
    await assert.rejects(w.collect(), { kind: 'Unavailable', message: /set back/ });
    assert.ok(w.content.blobs.has(blob));
    w.engine.graph.mark = mark;
    assert.deepEqual((await w.collect()).removed, { content: 1 });
  });

  test('given a real store, when the process clock goes back, then stamps and leases follow it', async (t) => {
    const db = await testDB(t, { log: () => {} });
    const ctx = { namespace: 'ns' };
    const wall = Date.now;
    let set = 9 * 3_600_000;
    t.mock.method(Date, 'now', () => wall() + set);
    const image = { name: 'i', target: { digest: DIGEST, mediaType: 'x', size: 1 } };
    const ahead = await db.images.create(ctx, image);
    set = 0;
    const lease = await db.leases.create(ctx, withId('l'), withExpiration(4 * 3_600_000));
    const expiry = parseTimestamp(lease.labels[Label.gcExpire] ?? '') as Instant;
    const real = BigInt(wall()) * 1_000_000n;
    assert.ok(expiry - real < 4n * HOUR + MINUTE, 'four hours by the wall clock');
    assert.ok(lease.createdAt - real < MINUTE && now() - real < MINUTE);
    const updated = await db.images.update(ctx, { ...image, labels: { a: 'b' } });
    assert.ok(updated.updatedAt > ahead.updatedAt, 'stamps of one record never go back');
    await db.garbageCollect();
    assert.deepEqual((await db.leases.list(ctx)).length, 1);
    const stamps = [now(), now(), now()];
    assert.ok(stamps[0]! < stamps[1]! && stamps[1]! < stamps[2]!);
  });
});

test('given a grace of ten seconds, or none, when the process clock goes on, then it is kept to', async (t) => {
  const wall = Date.now;
  for (const [expiryGraceMs, kept] of [
    [10_000, 1],
    [0, 0],
  ] as const) {
    const db = await testDB(t, { expiryGraceMs, log: () => {} });
    await db.leases.create({ namespace: 'ns' }, withId('l'), withExpiration(3_600_000));
    const mocked = t.mock.method(Date, 'now', () => wall() + 4 * 3_600_000);
    await db.garbageCollect();
    assert.equal((await db.leases.list({ namespace: 'ns' })).length, kept);
    assert.equal(db.expiryTime.steps.forward, 1);
    mocked.mock.restore();
  }
  await assert.rejects(testDB(t, { expiryGraceMs: -1 }), { kind: 'InvalidArgument' });
});

const DIGEST = `sha256:${'a'.repeat(64)}`;
