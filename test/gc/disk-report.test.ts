import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { isKind } from '../../src/errors.js';
import { importImage } from '../../src/images/import.js';
import { unpackImage } from '../../src/images/unpack.js';
import { openDB } from '../../src/open.js';
import { withId } from '../../src/stores/leases.js';
import { layout } from '../cli/support.js';
import { tempDir } from '../support/db.js';

const ctx = { namespace: 'test' };
const ONE = 'example.com/one:1';
const TWO = 'example.com/two:1';

const duOf = (path: string): number =>
  Number(execFileSync('du', ['-s', '-B1', path], { encoding: 'utf8' }).split('\t')[0]);

/** Two images, one unpacked, a container, a lease, a labelled blob, an unfinished ingest, an orphan, a second namespace. */
async function filled(t: TestContext): Promise<{ db: DB; root: string; base: string }> {
  const root = join(await tempDir(t), 'store');
  const db = await openDB({ root, snapshotters: ['native'] });
  t.after(() => db.close());
  const { path, base } = await layout(t);
  const [one] = await importImage(db, ctx, path);
  await importImage(db, { namespace: 'second' }, path);
  const { chainId } = await unpackImage(db, ctx, one!, 'native');
  await db.leases.create(ctx, withId('held'));
  await db.leases.addResource(ctx, { id: 'held' }, { type: 'content', id: base });
  await db.snapshotter('native')!.prepare({ ...ctx, lease: 'held' }, 'web', chainId);
  await db.containers.create(ctx, {
    id: 'web',
    image: ONE,
    runtime: { name: 'runc' },
    spec: { typeUrl: '', value: new Uint8Array() },
    snapshotter: 'native',
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
  assert.equal(
    Object.values(disk!.lines).reduce((sum, n) => sum + n, 0),
    disk!.total,
  );
  assert.ok(disk!.lines.unfinished >= 50_000 && disk!.lines.trash >= 70_000);
  assert.equal(disk!.orphans, 30_000);
  const { blocks, bsize } = statfsSync(root);
  assert.equal(disk!.fileSystem.size, blocks * bsize);
  for (const by of ['container', 'lease', 'ingest', 'label', 'image', 'sandbox', 'collector'] as const) {
    const kinds = new Set((await db.du(ctx, { by })).rows.map(({ kind }) => kind));
    const expected = by === 'sandbox' || by === 'collector' ? [] : [by === 'label' ? 'content' : by];
    assert.deepEqual([...kinds], expected, by);
  }
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
