/**
 * kill -9 of a process that writes and collects, at random moments, on one store that goes on living.
 * Rounds: EBBTIDE_CRASH_ROUNDS (default 12); seed: EBBTIDE_CRASH_SEED (default: the clock, printed).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { DB } from '../../src/db.js';
import { isNotFound } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { readBlob } from '../../src/stores/content/content-helpers.js';
import { orphanBlobs } from '../support/blobs.js';
import { Random } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import type { ImagePlan, Message } from './workload.js';

const rounds = Number(process.env.EBBTIDE_CRASH_ROUNDS ?? 12);
const seed = Number(process.env.EBBTIDE_CRASH_SEED ?? Date.now() % 1_000_000);
const workload = fileURLToPath(new URL('./workload.js', import.meta.url));

/** What the writers were promised. */
class Promises {
  readonly live = new Map<string, ImagePlan>();
  readonly gone = new Map<string, ImagePlan>();
  /** Begun but not acknowledged: may be either way, or half-way for a create. */
  readonly open = new Map<string, ImagePlan>();
  acks = 0;
  collections = 0;

  take(message: Message): void {
    if (message.event === 'collected') this.collections++;
    if (message.event !== 'begin' && message.event !== 'ack') return;
    const { plan, op } = message;
    if (message.event === 'begin') {
      this.live.delete(plan.name);
      this.open.set(plan.name, plan);
      return;
    }
    this.acks++;
    this.open.delete(plan.name);
    (op === 'create' ? this.live : this.gone).set(plan.name, plan);
  }
}

const namespaceOfPlan = (plan: ImagePlan): string =>
  Number(plan.name.split('-')[1]) % 2 === 0 ? 'even' : 'odd';

async function runAndKill(root: string, round: number, random: Random, promises: Promises): Promise<void> {
  const child = spawn(process.execPath, [workload, root, String(seed), String(round)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const exited = new Promise<NodeJS.Signals | null>((resolve) =>
    child.on('exit', (_code, signal) => resolve(signal)),
  );
  // After a number of steps and a moment more, so that a slow machine is killed in the middle of things as well.
  let stepsLeft = 1 + random.int(24);
  const momentMs = random.next() * 25;
  let timer: NodeJS.Timeout | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    let message: Message;
    try {
      message = JSON.parse(line) as Message;
    } catch {
      continue; // the line that the kill cut
    }
    if ((message.event === 'begin' || message.event === 'ack') && --stepsLeft === 0) {
      timer = setTimeout(() => child.kill('SIGKILL'), momentMs);
    }
    promises.take(message);
  }
  clearTimeout(timer);
  assert.equal(
    await exited,
    'SIGKILL',
    `the writer ended by itself (seed ${seed}, round ${round}):\n${stderr}`,
  );
}

async function checkLive(db: DB, plan: ImagePlan): Promise<void> {
  const ctx = { namespace: namespaceOfPlan(plan) };
  const image = await db.images.get(ctx, plan.name);
  assert.equal(image.target.digest, plan.manifest);
  for (const digest of [plan.manifest, ...plan.layers]) {
    await db.content.info(ctx, digest);
    assert.equal(digestOf(await readBlob(db.content, ctx, { digest })), digest);
  }
  const snapshots = db.snapshotter('native')!;
  assert.equal((await snapshots.stat(ctx, plan.snapshot)).kind, 'committed');
  if (plan.container !== undefined) {
    await db.containers.get(ctx, plan.container);
    const [mount] = await snapshots.mounts(ctx, plan.container);
    await readdir(mount!.source);
  }
}

async function verify(root: string, promises: Promises): Promise<void> {
  await using db = await openDB({ root, snapshotters: ['native'], log: () => {} });
  assert.deepEqual(db.engine.verifyGraph(), [], 'the graph equals the one derived from the labels');
  const all = async (): Promise<void> => {
    for (const plan of promises.live.values()) await checkLive(db, plan);
    for (const plan of promises.gone.values()) {
      await assert.rejects(db.images.get({ namespace: namespaceOfPlan(plan) }, plan.name), isNotFound);
    }
  };
  await all();
  await db.garbageCollect({}, { fullSweep: true });
  await all();
  // What a kill left open is decided now, for later rounds too.
  for (const plan of promises.open.values()) {
    const there = await db.images.get({ namespace: namespaceOfPlan(plan) }, plan.name).then(
      () => true,
      () => false,
    );
    if (!there) promises.gone.set(plan.name, plan);
  }
  promises.open.clear();
  await assertNoOrphans(db, root);
}

/** After a full sweep every blob file is some namespace's, or expected by an upload that a kill has cut short. */
async function assertNoOrphans(db: DB, root: string): Promise<void> {
  const directory = join(layout.content(root), 'blobs', 'sha256');
  assert.deepEqual(await orphanBlobs(db, ['even', 'odd'], directory), [], 'blob files without a record');
}

test(`kill -9 while writing and collecting, ${rounds} rounds: nothing acknowledged is lost, nothing live is missing`, async (t) => {
  const root = await tempDir(t);
  const random = new Random(seed);
  const promises = new Promises();
  t.diagnostic(`seed ${seed}`);
  for (let round = 0; round < rounds; round++) {
    await runAndKill(root, round, random, promises);
    await verify(root, promises).catch((error: unknown) => {
      throw new Error(`after round ${round} (EBBTIDE_CRASH_SEED=${seed})`, { cause: error });
    });
    // Keep the store small: only the newest images are followed on.
    for (const name of [...promises.gone.keys()].slice(0, -200)) promises.gone.delete(name);
  }
  t.diagnostic(
    `${promises.acks} acknowledged operations, ${promises.collections} collections, ${rounds} kills`,
  );
  assert.ok(promises.acks > rounds, 'the workload did something');
});
