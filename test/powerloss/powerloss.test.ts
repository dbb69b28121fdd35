/**
 * Power loss: everything a busy store does to its disk is recorded; then, for many moments, the disk is rebuilt as a
 * power loss at that moment may have left it (unflushed writes dropped, torn or out of order, names not synced lost),
 * and the store in it is opened.
 *
 * Moments: EBBTIDE_POWERLOSS_POINTS (default 200; 0 is all of them); seed: EBBTIDE_POWERLOSS_SEED (default: the
 * clock, printed).
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Random } from '../support/random.js';
import { Checker } from './check.js';
import { Disk, type Flush } from './disk.js';
import { type Mark, Promised } from './plan.js';
import { buildRecorder, type Recording, record } from './record.js';

const points = Number(process.env.EBBTIDE_POWERLOSS_POINTS ?? 200);
const seed = Number(process.env.EBBTIDE_POWERLOSS_SEED ?? Date.now() % 1_000_000);
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

function pickMoments(recording: Recording, wanted: number, random: Random): Set<number> {
  const all = recording.events.map((_, i) => i);
  if (wanted === 0 || wanted >= all.length) return new Set(all);
  const picked = new Set<number>();
  // Half around flushes and acknowledgements, where it is decided what must be there.
  const near = all.filter((i) => ['syncBegin', 'syncEnd', 'mark'].includes(recording.events[i]!.kind));
  while (picked.size < wanted) picked.add(random.chance(0.5) ? random.pick(near) : random.pick(all));
  return picked;
}

async function replay(
  recording: Recording,
  dir: string,
  options: { points: number; ignored?: readonly Flush[]; stopAt?: number },
): Promise<Outcome> {
  const random = new Random(seed);
  const moments = pickMoments(recording, options.points, random);
  const disk = new Disk(recording.root, options);
  const promised = new Promised();
  const outcome: Outcome = {
    points: 0,
    dropped: 0,
    torn: 0,
    objects: 0,
    acks: 0,
    collections: 0,
    troubles: [],
  };
  await using checker = new Checker(recording.recorder);
  for (const [i, event] of recording.events.entries()) {
    disk.apply(event);
    if (event.kind === 'mark') promised.take(JSON.parse(event.text) as Mark);
    if (!moments.has(i)) continue;
    const store = join(dir, `point-${i}`);
    const lost = disk.restore(store, new Random(seed + i));
    const answer = await checker.check({ dir: store, expected: promised.expected() });
    outcome.points++;
    outcome.dropped += lost.dropped;
    outcome.torn += lost.torn;
    outcome.objects += answer.objects;
    if (answer.trouble !== undefined) {
      const where = `after event ${i} of ${recording.events.length} (${event.kind})`;
      outcome.troubles.push(`${where}, ${promised.acks} acknowledged: ${answer.trouble}`);
    }
    if (process.env.EBBTIDE_POWERLOSS_KEEP === undefined || answer.trouble === undefined) {
      await rm(store, { recursive: true, force: true });
    }
    if (outcome.troubles.length >= (options.stopAt ?? Number.POSITIVE_INFINITY)) break;
  }
  outcome.acks = promised.acks;
  outcome.collections = promised.collections;
  return outcome;
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
    recording = await record(dir, recorder.path, seed, OPERATIONS);
  });
  after(() => rm(dir, { recursive: true, force: true }));

  test('given a busy store, when the power goes at any moment, then it opens, complete as acknowledged', async (t) => {
    t.diagnostic(`seed ${seed}, ${recording.events.length} recorded events`);
    const outcome = await replay(recording, dir, { points });
    const { troubles, ...counts } = outcome;
    t.diagnostic(JSON.stringify(counts));
    assert.deepEqual(
      troubles.slice(0, 3),
      [],
      `${troubles.length} of ${outcome.points} states (EBBTIDE_POWERLOSS_SEED=${seed})`,
    );
    assert.ok(counts.acks > OPERATIONS && counts.collections > 0, 'the workload did something');
    assert.ok(counts.dropped > 0 && counts.torn > 0, 'something was lost');
  });

  for (const kind of ['file', 'directory', 'through'] as const) {
    test(`given a disk that only pretends to flush (${kind}), when the power goes, then this test notices`, async (t) => {
      const outcome = await replay(recording, dir, { points: 60, ignored: [kind], stopAt: 1 });
      t.diagnostic(`noticed at the ${outcome.points}. state`);
      assert.equal(outcome.troubles.length, 1);
    });
  }
});
after(() => rm(tools, { recursive: true, force: true }));
