import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { isKind } from '../../src/errors.js';
import { reclaimable } from '../../src/gc/report/disk-report.js';
import { importImage } from '../../src/images/import.js';
import { unpackImage } from '../../src/images/unpack.js';
import { openDB } from '../../src/open.js';
import { withId } from '../../src/stores/leases.js';
import { layout } from '../cli/support.js';
import { tempDir } from '../support/db.js';

const ctx = { namespace: 'test' };
/** What a collection adds to the store's own files at most. */
const GROWTH = 64 * 1024;

const ONE = 'example.com/one:1';
const TWO = 'example.com/two:1';

const duOf = (path: string): number =>
  Number(execFileSync('du', ['-s', '-B1', path], { encoding: 'utf8' }).split('\t')[0]);

const snapshotsOf = (root: string): string =>
  join(root, 'io.containerd.snapshotter.v1.overlayfs', 'snapshots');

/**
 * Two images, one unpacked, a container, a lease, a labelled blob that is cut short, an unfinished ingest, an orphan, a second
 * namespace.
 */
async function filled(t: TestContext): Promise<{ db: DB; root: string; base: string }> {
  const root = join(await tempDir(t), 'store');
  const db = await openDB({ root, snapshotters: ['overlayfs'] });
  t.after(() => db.close());
  const { path, base } = await layout(t);
  const [one] = await importImage(db, ctx, path);
  await importImage(db, { namespace: 'second' }, path);
  const { chainId } = await unpackImage(db, ctx, one!, 'overlayfs');
  await db.leases.create(ctx, withId('held'));
  await db.leases.addResource(ctx, { id: 'held' }, { type: 'content', id: base });
  await db.snapshotter('overlayfs')!.prepare({ ...ctx, lease: 'held' }, 'web', chainId);
  await db.containers.create(ctx, {
    id: 'web',
    image: ONE,
    runtime: { name: 'runc' },
    spec: { typeUrl: '', value: new Uint8Array() },
    snapshotter: 'overlayfs',
    snapshotKey: 'web',
  });
  await db.content.update(
    ctx,
    { digest: base, labels: { 'containerd.io/gc.root': 'yes' } },
    'labels.containerd.io/gc.root',
  );
  const writer = await db.content.writer(ctx, 'half');
  await writer.write(Buffer.alloc(50_000));
  await writer.close();
  const orphan = 'e'.repeat(64);
  writeFileSync(
    join(root, 'io.containerd.content.v1.content', 'blobs', 'sha256', orphan),
    Buffer.alloc(30_000),
  );
  // A blob that is shorter on disk than its record says.
  truncateSync(join(root, 'io.containerd.content.v1.content', 'blobs', base.replace(':', '/')), 10);
  mkdirSync(join(root, 'io.containerd.content.v1.content', '.trash', 'left'), { recursive: true });
  writeFileSync(
    join(root, 'io.containerd.content.v1.content', '.trash', 'left', 'data'),
    Buffer.alloc(70_000),
  );
  return { db, root, base };
}

test('given roots of every kind, when usage is asked for, then each has a row, and the lines add up to what du says', async (t) => {
  const { db, root, base } = await filled(t);
  const { rows, disk } = await db.du({}, { by: 'root', disk: true });
  assert.deepEqual(rows.map(({ kind, namespace, name }) => `${kind} ${namespace} ${name}`).sort(), [
    `container test web`,
    `content test ${base}`,
    `image second ${ONE}`,
    `image second ${TWO}`,
    `image test ${ONE}`,
    `image test ${TWO}`,
    'ingest test half',
    'lease test held',
  ]);
  assert.equal(disk?.total, duOf(root));
  const { kept, garbage, orphans, unfinished, trash, elsewhere } = disk!.lines;
  assert.equal(
    Object.values(disk!.lines).reduce((sum, n) => sum + n, 0),
    disk!.total,
  );
  assert.ok(unfinished >= 50_000 && trash >= 70_000);
  assert.deepEqual([orphans, elsewhere], [32_768, 0]);
  const objects = [`${root}/io.containerd.content.v1.content/blobs/sha256`, snapshotsOf(root)].flatMap(
    (dir) => readdirSync(dir).map((name) => duOf(join(dir, name))),
  );
  assert.equal(
    kept + garbage + orphans,
    objects.reduce((sum, n) => sum + n, 0),
  );
  const { blocks, bsize } = statfsSync(root);
  assert.equal(disk!.fileSystem.size, blocks * bsize);
  for (const by of ['container', 'lease', 'ingest', 'label', 'image', 'sandbox', 'collector'] as const) {
    const kinds = new Set((await db.du(ctx, { by })).rows.map(({ kind }) => kind));
    const expected = by === 'sandbox' || by === 'collector' ? [] : [by === 'label' ? 'content' : by];
    assert.deepEqual([...kinds], expected, by);
  }
});

test('given garbage, when usage is asked for, then the report says what goes, since when, and what only one row has', async (t) => {
  const { db, root } = await filled(t);
  await db.images.delete(ctx, TWO);
  for (const name of [ONE, TWO]) await db.images.delete({ namespace: 'second' }, name);
  const before = await db.du({}, { by: 'root', disk: true });
  const { all, rows, kept } = before;
  const half = rows.find(({ kind }) => kind === 'ingest')!.total;
  const ingests = join(root, 'io.containerd.content.v1.content', 'ingest');
  assert.deepEqual(
    readdirSync(ingests).map((name) => duOf(join(ingests, name))),
    [half],
  );
  assert.equal(all.total, kept + half);
  assert.equal(
    all.alone,
    rows.reduce((sum, row) => sum + row.retained, 0),
  );
  assert.deepEqual([all.shared, all.retained], [all.total - all.alone, all.total]);
  assert.ok(all.alone > 0 && all.shared > 0);
  assert.equal(before.oldestGarbage?.kind, 'content');
  assert.equal(before.oldestGarbage?.namespace, 'test');
  assert.equal(before.oldestLease?.key, 'held');
  await db.garbageCollect({}, { fullSweep: true });
  const after = await db.du({}, { by: 'none', disk: true });
  const { garbage, orphans } = after.disk!.lines;
  assert.deepEqual([after.rows, after.kept, garbage, orphans], [[], kept, 0, 0]);
  assert.equal(after.oldestGarbage, undefined);
  assert.ok(duOf(root) <= before.disk!.total - reclaimable(before.disk!) + GROWTH);
});

test('given images gone and a lease that keeps their bytes, when usage is asked for, then the lease has a row', async (t) => {
  const { db } = await filled(t);
  for (const namespace of ['test', 'second'])
    for (const name of [ONE, TWO]) await db.images.delete({ namespace }, name);
  const { rows, kept, garbage } = await db.du(ctx, { by: 'root' });
  assert.ok(rows.some(({ kind, total }) => kind === 'lease' && total > 0));
  assert.ok(kept > 0 && garbage > 0);
});

test('given a set, when it is asked what goes without it, then that is what a collection frees', async (t) => {
  const { db } = await filled(t);
  const names = [`image/${ONE}`, TWO, 'web', 'held', `half`];
  await db.garbageCollect({}, { fullSweep: true });
  const { without, kept } = await db.du(ctx, { by: 'root', without: names });
  const single = await db.du(ctx, { by: 'root' });
  assert.ok(
    without!.retained >
      single.rows.filter((r) => r.kind !== 'content').reduce((sum, r) => sum + r.retained, 0),
  );
  const ambiguous = db.du({}, { by: 'root', without: [`image/${ONE}`] });
  await assert.rejects(ambiguous, (error) => isKind(error, 'InvalidArgument'));
  for (const name of [ONE, TWO]) await db.images.delete(ctx, name);
  await db.containers.delete(ctx, 'web');
  await db.leases.delete(ctx, { id: 'held' });
  await db.content.abort(ctx, 'half');
  const after = await db.du(ctx, { by: 'root' });
  assert.equal(kept - after.kept, without!.retained);
  assert.equal(after.garbage, without!.retained);
  await assert.rejects(db.du(ctx, { without: ['nosuch'] }), (error) => isKind(error, 'NotFound'));
});
