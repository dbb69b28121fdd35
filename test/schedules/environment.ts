/**
 * What is outside of the store and does as it likes in a schedule: the clock is set, the disk fails for a while or now and
 * then, the process dies. One part of the schedules has none of it, and finds the faults that need many writers instead.
 */
import { isKind } from '../../src/errors.js';
import { MINUTE } from '../support/host-clock.js';
import type { ScheduledWorld } from './world.js';
import { removeThings, write } from './writers.js';

/** Steps of a minute and more, so that no expiry of a schedule is on their edge. */
const HOUR = 60n * MINUTE;
const sets = [HOUR + 20n * MINUTE, 9n * HOUR + 20n * MINUTE, -HOUR - 20n * MINUTE, -9n * HOUR - 20n * MINUTE];
const passes = [MINUTE, 7n * MINUTE, 13n * MINUTE];

export interface Environment {
  /** How often each process sees the clock set, or time pass. */
  readonly clocks: number;
  readonly outages: number;
  readonly cancels: boolean;
  /** How each process but the last ends. */
  readonly ends: readonly ('closed' | 'died' | 'lost')[];
}

/** Draws an environment, and sets how often single calls fail. */
export function environment(world: ScheduledWorld): Environment {
  const { random, faults, disk } = world;
  const calm = !world.isStormy && random.chance(0.4);
  if (calm || faults.only) return { clocks: 0, outages: 0, cancels: false, ends: [] };
  const failing = random.chance(0.4);
  if (failing) {
    faults.before = random.pick([0, 0.05]);
    faults.after = random.pick([0, 0.05]);
    faults.look = random.pick([0, 0, 0.03]);
    disk.lossRate = random.pick([0, 0, 0.1]);
  }
  return {
    clocks: random.pick([0, 0, 2, 5]),
    outages: failing && random.chance(0.3) ? 1 : 0,
    cancels: random.chance(0.3),
    ends: random.pick([
      [],
      [],
      [],
      ['died'],
      ['died'],
      ['closed'],
      ['closed'],
      ['died', 'died'],
      ['died', 'died'],
      ['lost'],
    ] as const),
  };
}

/** One process: writers, collections and what disturbs them. Resolves with whether all ended within the steps. */
export async function life(
  world: ScheduledWorld,
  env: Environment,
  most: number | undefined,
  who: 'writers' | 'removers' = 'writers',
): Promise<boolean> {
  const { random, scheduler } = world;
  for (let i = 1 + random.int(env.ends.length > 0 ? 2 : 3); i > 0; i--) {
    const length = 2 + random.int(env.ends.length > 0 ? 5 : 8);
    if (who === 'removers') scheduler.spawn('writer', () => removeThings(world, length));
    else scheduler.spawn('writer', () => write(world, length, env.cancels));
  }
  scheduler.spawn('collector', () => collections(world, 1 + random.int(2)));
  if (env.clocks > 0) scheduler.spawn('clock', () => clock(world, env.clocks));
  if (env.outages > 0) scheduler.spawn('outage', () => outage(world));
  return scheduler.run(most);
}

/** A process dies in the first collection of the next one, which may have just begun. */
export async function deathInOpening(world: ScheduledWorld): Promise<void> {
  const { random, scheduler, marks } = world;
  scheduler.spawn('collector', () => collections(world, 1));
  if (await scheduler.run(random.int(40))) return;
  marks.add('death in an opening');
  await world.reopen('died');
}

async function clock(world: ScheduledWorld, times: number): Promise<void> {
  const { random, scheduler, marks } = world;
  for (let i = 0; i < times; i++) {
    await scheduler.step('clock goes on');
    if (random.chance(0.3)) {
      scheduler.time.clock.pass(random.pick(passes));
      continue;
    }
    const by = random.pick(sets);
    scheduler.log(`set by ${by / MINUTE} minutes`);
    scheduler.time.set(by);
    marks.add(by > 0n ? 'clock set forward' : 'clock set back');
  }
}

/** The disk is full, gone, or another one for a while: no call succeeds, and no commit. */
async function outage({ scheduler, faults, disk }: ScheduledWorld): Promise<void> {
  await scheduler.step('disk fails');
  const { lossRate } = disk;
  faults.outage = true;
  disk.lossRate = 1;
  for (let i = 0; i < 12; i++) await scheduler.step('disk is gone');
  faults.outage = false;
  disk.lossRate = lossRate;
}

async function collections(world: ScheduledWorld, count: number): Promise<void> {
  const { random, scheduler } = world;
  for (let i = 0; i < count; i++) {
    await scheduler.step('collector begins');
    const ending = new AbortController();
    if (random.chance(0.05))
      void scheduler.step('collection is ended by its caller').then(() => ending.abort());
    const fullSweep = random.chance(0.2);
    try {
      await world.collect({ sliceBudgetMs: 2, fullSweep, signal: ending.signal });
    } catch (error) {
      const refused = world.metadataLost && isKind(error, 'FailedPrecondition');
      if (!ending.signal.aborted && !refused && !isKind(error, 'Unavailable')) throw error;
    }
  }
}
