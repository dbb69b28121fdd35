/** Backups of a store while it is written to and collected: each is restored and must be what was acknowledged. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { restoreBackup } from '../../src/backup/restore.js';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { isNotFound } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { readBlob } from '../../src/stores/content/content-helpers.js';
import { createImage, deleteImage, type ImagePlan, planImage, WRITERS } from '../crash/workload.js';
import { Random } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { assertSound, open } from './support.js';

const BACKUPS = 4;
const seed = Number(process.env.EBBTIDE_CRASH_SEED ?? Date.now() % 1_000_000);

const namespaceOf = (writer: number): CallContext => ({ namespace: writer % 2 === 0 ? 'even' : 'odd' });

/** Images as their writers know them. */
interface Known {
  plan: ImagePlan;
  ctx: CallContext;
  state: 'creating' | 'live' | 'deleting' | 'gone';
}

class Writers {
  readonly images: Known[] = [];
  readonly #db: DB;
  #stopped = false;

  constructor(db: DB) {
    this.#db = db;
  }

  async run(): Promise<void> {
    const writers = Array.from({ length: WRITERS }, (_, id) => this.#write(id));
    await Promise.all([this.#collect(), ...writers]);
  }

  stop(): void {
    this.#stopped = true;
  }

  async #collect(): Promise<void> {
    while (!this.#stopped) {
      await this.#db.garbageCollect();
      await setImmediate();
    }
  }

  async #write(id: number): Promise<void> {
    const random = new Random(seed * 31 + id);
    const ctx = namespaceOf(id);
    const live: Known[] = [];
    for (let n = 0; !this.#stopped; n++) {
      const [old] = live.length > 0 && random.chance(0.45) ? live.splice(random.int(live.length), 1) : [];
      if (old !== undefined) {
        old.state = 'deleting';
        await deleteImage(this.#db, ctx, old.plan);
        old.state = 'gone';
        continue;
      }
      const known: Known = { plan: planImage(id, 0, n, random), ctx, state: 'creating' };
      this.images.push(known);
      await createImage(this.#db, ctx, known.plan);
      known.state = 'live';
      live.push(known);
    }
  }
}

/** What a backup has to have, and must not have. */
interface Moment {
  directory: string;
  before: ReadonlyMap<Known, Known['state']>;
  after: ReadonlyMap<Known, Known['state']>;
}

async function assertRestored(moment: Moment, root: string): Promise<number> {
  await restoreBackup(moment.directory, root, { hash: true });
  await using db = await open(root);
  await assertSound(db);
  assert.deepEqual(db.engine.verifyGraph(), []);
  let live = 0;
  for (const [known, state] of moment.before) {
    const { plan, ctx } = known;
    if (state === 'gone') await assert.rejects(db.images.get(ctx, plan.name), isNotFound);
    if (state !== 'live' || moment.after.get(known) !== 'live') continue;
    live++;
    await assertLive(db, ctx, plan);
  }
  await db.garbageCollect({}, { fullSweep: true });
  await assertSound(db);
  return live;
}

async function assertLive(db: DB, ctx: CallContext, plan: ImagePlan): Promise<void> {
  assert.equal((await db.images.get(ctx, plan.name)).target.digest, plan.manifest);
  for (const digest of [plan.manifest, ...plan.layers]) {
    assert.equal(digestOf(await readBlob(db.content, ctx, { digest })), digest);
  }
  const snapshots = db.snapshotter('native')!;
  assert.equal((await snapshots.stat(ctx, plan.snapshot)).kind, 'committed');
  if (plan.container === undefined) return;
  await db.containers.get(ctx, plan.container);
  const [mount] = await snapshots.mounts(ctx, plan.container);
  await readdir(mount!.source);
}

test('given 4 writers and collections, when the store is backed up, then each backup has all that was acknowledged, and nothing dangles', async (t) => {
  t.diagnostic(`seed ${seed}`);
  const place = await tempDir(t);
  const db = await open(join(place, 'store'));
  const writers = new Writers(db);
  const kept: Known = { plan: planImage(0, 1, 0, new Random(seed)), ctx: namespaceOf(0), state: 'live' };
  await createImage(db, kept.ctx, kept.plan);
  writers.images.push(kept);
  const running = writers.run();
  const states = (): Moment['before'] => new Map(writers.images.map((known) => [known, known.state]));
  const moments: Moment[] = [];
  try {
    for (let n = 0; n < BACKUPS; n++) {
      const directory = join(place, `backup-${n}`);
      const before = states();
      const base = moments.at(-1)?.directory;
      const { problems, problemList } = await db.backup(directory, base === undefined ? {} : { base });
      assert.deepEqual({ problems, problemList }, { problems: 0, problemList: [] });
      moments.push({ directory, before, after: states() });
    }
  } finally {
    writers.stop();
    await running;
  }
  await db.garbageCollect();
  await db.garbageCollect({}, { fullSweep: true });
  await assertSound(db);
  await db.close();
  let live = 0;
  for (const [n, moment] of moments.entries())
    live += await assertRestored(moment, join(place, `restored-${n}`));
  t.diagnostic(`${writers.images.length} images made, ${live} expected in ${BACKUPS} backups`);
  assert.ok(live >= BACKUPS, 'there was something to lose');
});
