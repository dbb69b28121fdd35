/**
 * Power loss: everything a busy store does to its disk is recorded; then, for many moments, the disk is rebuilt as a
 * power loss at that moment may have left it (unflushed writes dropped, torn or out of order, names not synced lost),
 * and the store in it is opened.
 *
 * Moments: EBBTIDE_POWERLOSS_POINTS (default 24; 0 is all of them); seed: EBBTIDE_POWERLOSS_SEED (default: the
 * clock, printed). The threads' own order is not in the seed: EBBTIDE_POWERLOSS_KEEP=1 keeps the recording and the
 * states that were not in order, and prints where.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { Random } from '../support/random.js';
import { Checker } from './check.js';
import { Disk, type Flush } from './disk.js';
import { type Expected, type Mark, Promised } from './plan.js';
import { buildRecorder, type Recording, record } from './record.js';

const points = Number(process.env.EBBTIDE_POWERLOSS_POINTS ?? 24);
const seed = Number(process.env.EBBTIDE_POWERLOSS_SEED ?? Date.now() % 1_000_000);
const keep = process.env.EBBTIDE_POWERLOSS_KEEP !== undefined;
const OPERATIONS = 12;

interface Outcome {
  points: number;
  dropped: number;
  torn: number;
  objects: number;
  acks: number;
  collections: number;
  /** One line per state that was not in order. */
  troubles: string[];
}

const noOutcome = (): Outcome => ({
  points: 0,
  dropped: 0,
  torn: 0,
  objects: 0,
  acks: 0,
  collections: 0,
  troubles: [],
});

function pickMoments({ events }: Recording, wanted: number, random: Random, acks: boolean): Set<number> {
  const all = events.map((_, i) => i);
  // Right at an acknowledgement is where a missing flush shows soonest.
  if (acks) {
    const marks = all.filter((i) => events[i]!.kind === 'mark');
    return new Set(marks.filter(() => random.chance(wanted / marks.length)));
  }
  if (wanted === 0 || wanted >= all.length) return new Set(all);
  const picked = new Set<number>();
  // A first opening is short, and has every way to go wrong of its own.
  const opening = all.slice(0, events.findIndex(({ kind }) => kind === 'mark') + 1);
  if (opening.length > 0) for (let n = wanted / 8; n > 0; n--) picked.add(random.pick(opening));
  // Half around flushes and acknowledgements, where it is decided what must be there.
  const near = all.filter((i) => ['syncBegin', 'syncEnd', 'mark'].includes(events[i]!.kind));
  while (picked.size < wanted) picked.add(random.chance(0.5) ? random.pick(near) : random.pick(all));
  return picked;
}

/** Takes a disk through the events and stops at some of them. */
async function* moments(
  recording: Recording,
  disk: Disk,
  wanted: number,
  acks = false,
): AsyncGenerator<[number, Promised]> {
  const picked = pickMoments(recording, wanted, new Random(seed), acks);
  const promised = new Promised();
  for (const [i, event] of recording.events.entries()) {
    disk.apply(event);
    if (event.kind === 'mark') promised.take(JSON.parse(event.text) as Mark);
    if (picked.has(i)) yield [i, promised];
  }
}

async function replay(
  recording: Recording,
  dir: string,
  options: { points: number; ignored?: readonly Flush[]; stopAt?: number },
): Promise<Outcome> {
  const { events, recorder } = recording;
  const disk = new Disk(recording.root, options);
  const outcome = noOutcome();
  await using checker = new Checker(recorder);
  for await (const [i, promised] of moments(recording, disk, options.points, options.ignored !== undefined)) {
    const where = `after event ${i} of ${events.length} (${events[i]!.kind})`;
    await checkState(disk, i, promised.expected(), dir, checker, where, outcome);
    outcome.acks = promised.acks;
    outcome.collections = promised.collections;
    if (outcome.troubles.length >= (options.stopAt ?? Number.POSITIVE_INFINITY)) break;
  }
  return outcome;
}

/** One state the disk may be found in at event `i`, opened and looked through. */
async function checkState(
  disk: Disk,
  i: number,
  expected: Expected,
  dir: string,
  checker: Checker,
  where: string,
  outcome: Outcome,
): Promise<void> {
  const store = join(dir, `point-${i}`);
  const lost = disk.restore(store, new Random(seed + i));
  const { objects, trouble } = await checker.check({ dir: store, expected });
  outcome.points++;
  outcome.dropped += lost.dropped;
  outcome.torn += lost.torn;
  outcome.objects += objects;
  if (trouble !== undefined) outcome.troubles.push(`${where}, ${expected.acks} acknowledged: ${trouble}`);
  if (trouble === undefined || !keep) await rm(store, { recursive: true, force: true });
}

/** The power goes at `first` moments, and at some of each recovery. */
async function replayTwice(
  recording: Recording,
  dir: string,
  first: number,
  second: number,
): Promise<Outcome> {
  const { recorder } = recording;
  const disk = new Disk(recording.root);
  const outcome = noOutcome();
  await using checker = new Checker(recorder);
  for await (const [i, promised] of moments(recording, disk, first)) {
    const home = await mkdtemp(join(dir, 'again-'));
    disk.restore(join(home, 'root'), new Random(seed + i));
    const again = new Disk(join(home, 'root'));
    again.load();
    const recovery = await record(home, recorder, 'recovery');
    for await (const [k] of moments(recovery, again, second)) {
      const where = `after event ${i}, then ${k} of ${recovery.events.length} (${recovery.events[k]!.kind})`;
      await checkState(again, k, promised.expected(), home, checker, where, outcome);
    }
    if (!keep) await rm(home, { recursive: true, force: true });
  }
  return outcome;
}

function assertInOrder(t: TestContext, { troubles, ...counts }: Outcome): void {
  t.diagnostic(JSON.stringify(counts));
  const text = `${troubles.length} of ${counts.points} states (EBBTIDE_POWERLOSS_SEED=${seed})`;
  assert.deepEqual(troubles.slice(0, 3), [], text);
  assert.ok(counts.dropped > 0, 'something was lost');
}

const tools = await mkdtemp(join(tmpdir(), 'ebbtide-powerloss-tools-'));
const recorder = buildRecorder(tools);
if ('missing' in recorder) console.log(`power loss is not tested: ${recorder.missing}`);

describe('power loss', { skip: 'missing' in recorder ? recorder.missing : false }, () => {
  let dir: string;
  let recording: Recording;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'ebbtide-powerloss-'));
    assert.ok('path' in recorder);
    recording = await record(dir, recorder.path, 'workload', seed, OPERATIONS);
  });
  after(async () => {
    if (keep) console.log(`kept: ${dir}`);
    else await rm(dir, { recursive: true, force: true });
  });

  test('given a busy store, when the power goes at any moment, then it opens, complete as acknowledged', async (t) => {
    t.diagnostic(`seed ${seed}, ${recording.events.length} recorded events`);
    const outcome = await replay(recording, dir, { points });
    assertInOrder(t, outcome);
    assert.ok(outcome.torn > 0 && outcome.collections > 0 && outcome.acks > OPERATIONS, 'a busy store');
  });

  test('given a store that lost its power, when the power goes during recovery too, then the same', async (t) => {
    assertInOrder(t, await replayTwice(recording, dir, Math.ceil((points || 1000) / 50), 8));
  });

  for (const kind of ['file', 'directory', 'through'] as const) {
    test(`given a disk that only pretends to flush (${kind}), when the power goes, then this test notices`, async (t) => {
      const outcome = await replay(recording, dir, { points: 400, ignored: [kind], stopAt: 1 });
      t.diagnostic(`noticed at the ${outcome.points}. state`);
      assert.equal(outcome.troubles.length, 1);
    });
  }
});
after(() => rm(tools, { recursive: true, force: true }));
