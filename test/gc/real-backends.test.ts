import assert from 'node:assert/strict';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { DB } from '../../src/db.js';
import { Scheduler } from '../../src/gc/schedule/scheduler.js';
import type { GCStats } from '../../src/gc/stats.js';
import { layout, openDB } from '../../src/open.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { tempDir, testDB } from '../support/db.js';
import { digest, gc } from '../support/gc-world.js';

const ctx = { namespace: 'ns1' };

/** A committed snapshot with a file of 1 MiB in it. */
async function layer(db: DB, name: string, parent = '', labels: Record<string, string> = {}): Promise<void> {
  const native = db.snapshotter('native');
  assert.ok(native);
  const [mount] = await native.prepare(ctx, `${name}-active`, parent);
  await writeFile(join(mount?.source ?? '', name), Buffer.alloc(1024 * 1024, 1));
  await native.commit(ctx, name, `${name}-active`, { labels });
}

async function blob(db: DB, name: string, labels: Record<string, string> = {}): Promise<void> {
  const bytes = Buffer.from(name);
  await writeBlob(
    db.content,
    ctx,
    `ref-${name}`,
    bytes,
    { digest: digest(name), size: bytes.length },
    { labels },
  );
}

const directories = async (root: string): Promise<string[]> =>
  (await readdir(join(layout.snapshotter(root, 'native'), 'snapshots'))).sort();

for (const engine of ['memory', 'lmdb'] as const) {
  test(`given an unpacked image on ${engine}, when it is deleted, then one run frees its blobs and directories`, async (t) => {
    const root = await tempDir(t);
    const db = await testDB(t, { root, engine });
    await layer(db, 'base');
    await layer(db, 'top', 'base');
    await layer(db, 'kept', '', { [gc('root')]: 'x' });
    await blob(db, 'config', { [gc('ref.snapshot.native')]: 'top' });
    await blob(db, 'manifest', { [gc('ref.content.config')]: digest('config') });
    const target = { digest: digest('manifest'), mediaType: 'm', size: 8 };
    await db.images.create(ctx, { name: 'app', target });
    const idle = await db.garbageCollect();
    assert.deepEqual(idle.removed, {});
    assert.equal((await directories(root)).length, 3);
    await db.images.delete(ctx, 'app');
    const stats = await db.garbageCollect();
    assert.deepEqual(stats.removed, { content: 2, snapshot: 2 });
    assert.equal((await directories(root)).length, 1);
    await assert.rejects(db.host.content.info(digest('config')));
    // Two layers of 1 MiB each.
    assert.ok(stats.bytesFreed >= 2 * 1024 * 1024, `${stats.bytesFreed} bytes`);
    assert.equal(stats.backendErrors, 0);
  });
}

test('given a scheduler on a store, when something is deleted, then it is collected without being asked', async (t) => {
  const db = await testDB(t);
  const runs: GCStats[] = [];
  await using scheduler = new Scheduler<GCStats>(
    db,
    { startupDelay: 0, pauseThreshold: 0.5 },
    { onRun: (outcome) => 'stats' in outcome && runs.push(outcome.stats) },
  );
  await blob(db, 'a');
  assert.deepEqual((await scheduler.scheduleAndWait()).removed, { content: 1 });
  await db.images.create(ctx, { name: 'app', target: { digest: digest('b'), mediaType: 'm', size: 1 } });
  await blob(db, 'b');
  const next = scheduler.waitForNext(AbortSignal.timeout(20_000));
  await db.images.delete(ctx, 'app');
  assert.deepEqual((await next).removed, { content: 1 });
  assert.equal(runs.length, 2);
});

test('given deletions before a restart, when collected after it, then the backends are swept', async (t) => {
  const root = await tempDir(t);
  const options = { root, engine: 'lmdb', snapshotters: ['native'], log: () => {} } as const;
  const first = await openDB(options);
  await layer(first, 'gone');
  await blob(first, 'gone');
  await first.snapshotter('native')?.remove(ctx, 'gone');
  await first.content.delete(ctx, digest('gone'));
  assert.equal((await directories(root)).length, 1);
  await first.close();
  const second = await openDB(options);
  t.after(() => second.close());
  const stats = await second.garbageCollect();
  assert.deepEqual(stats.removed, {});
  assert.deepEqual(await directories(root), []);
  await assert.rejects(second.host.content.info(digest('gone')));
  const again = await second.garbageCollect();
  assert.deepEqual([again.contentD, again.snapshotD], [0, {}]);
});
