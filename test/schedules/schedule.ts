/** Runs one schedule from its seed: processes over one world, one after the other, then a rest in which all is checked. */
import { Random } from '../support/random.js';
import { deathInOpening, environment, life } from './environment.js';
import { Scheduler } from './scheduler.js';
import { ScheduledWorld, type WorldOptions } from './world.js';

export interface Outcome {
  readonly seed: number;
  /** What went wrong; undefined when nothing did. */
  readonly violation: string | undefined;
  readonly trace: readonly string[];
  readonly steps: number;
  /** Backend calls before the rest. */
  readonly calls: number;
  readonly seen: Readonly<Record<string, number>>;
  readonly marks: Readonly<Record<string, number>>;
}

export async function schedule(seed: number, options: WorldOptions): Promise<Outcome> {
  const random = new Random(seed);
  const scheduler = new Scheduler(random);
  return scheduler.underControl(async () => {
    const world = new ScheduledWorld(random, scheduler, options);
    await world.fill();
    await lives(world);
    const { calls } = world;
    if (scheduler.stopped === undefined) {
      scheduler.log('at rest');
      scheduler.spawn('rest', () => world.rest());
      await scheduler.run();
    }
    const { stopped, trace, count } = scheduler;
    const { judge, marks } = world;
    marks.add('left to the next run', judge.seen.waiting);
    return { seed, violation: stopped, trace, steps: count, calls, seen: judge.seen, marks: marks.counts };
  });
}

async function lives(world: ScheduledWorld): Promise<void> {
  const { random, scheduler, marks } = world;
  const env = environment(world);
  let before: string | undefined;
  for (const end of env.ends) {
    await life(world, env, end !== 'closed' ? 10 + random.int(150) : undefined);
    if (scheduler.stopped !== undefined) return;
    await world.reopen(end);
    if (before === 'died' && end === 'died') marks.add('opened twice in a row after deaths');
    before = end;
    if (random.chance(0.4)) await deathInOpening(world);
  }
  // After a death, and with removals alone since then, collections find all without being asked to walk.
  world.mayHaveOrphans = env.ends.at(-1) !== 'died' || random.chance(0.3);
  await life(world, env, undefined, world.mayHaveOrphans ? 'writers' : 'removers');
}
