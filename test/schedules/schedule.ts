/** Runs one schedule from its seed: writers and collections over one world, then a rest in which all is checked. */
import type { GraphCore } from '../../src/engine/graph.js';
import { isKind } from '../../src/errors.js';
import { Random } from '../support/random.js';
import { Scheduler } from './scheduler.js';
import { type Mutation, ScheduledWorld } from './world.js';
import { write } from './writers.js';

export interface ScheduleOptions {
  readonly core: GraphCore['kind'];
  readonly mutation?: Mutation | undefined;
}

export interface Outcome {
  readonly seed: number;
  /** What went wrong; undefined when nothing did. */
  readonly violation: string | undefined;
  readonly trace: readonly string[];
  readonly steps: number;
  readonly seen: Readonly<Record<string, number>>;
}

export async function schedule(seed: number, options: ScheduleOptions): Promise<Outcome> {
  const random = new Random(seed);
  const scheduler = new Scheduler(random);
  return scheduler.underControl(async () => {
    const world = new ScheduledWorld(random, scheduler, options);
    await world.fill();
    world.faults.rate = random.pick([0, 0, 0, 0.05]);
    world.disk.lossRate = random.pick([0, 0, 0, 0.1]);
    for (let i = 1 + random.int(3); i > 0; i--) {
      const length = 2 + random.int(8);
      scheduler.spawn('writer', () => write(world, length));
    }
    scheduler.spawn('collector', () => collections(world, 1 + random.int(2)));
    await scheduler.run();
    if (scheduler.stopped === undefined) {
      scheduler.note('at rest');
      scheduler.spawn('rest', () => world.settle());
      await scheduler.run();
    }
    const { stopped, trace, count } = scheduler;
    return { seed, violation: stopped, trace, steps: count, seen: world.judge.seen };
  });
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
      if (!ending.signal.aborted && !isKind(error, 'Unavailable')) throw error;
    }
  }
}
