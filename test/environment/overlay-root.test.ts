/**
 * A root that comes in a container's image, on overlayfs: what a lower layer has is copied up when it is opened to write, and its
 * directories cannot be renamed (EXDEV).
 */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { canMount } from '../../src/backends/mounts.js';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import type { DB } from '../../src/db.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { tempDir } from '../support/temp.js';

const ctx = { namespace: 'test' };
const rooted = { labels: { 'containerd.io/gc.root': 'yes' } };

function open(root: string, logged: string[]): Promise<DB> {
  const log = (level: string, message: string): void => {
    if (level !== 'info') logged.push(`${level}: ${message}`);
  };
  return openDB({ root, snapshotters: ['native'], log });
}

async function write(db: DB, text: string): Promise<string> {
  const digest = digestOf(Buffer.from(text));
  const target = { mediaType: 'x/y', digest, size: text.length };
  await writeBlob(db.content, ctx, text, Buffer.from(text), target, rooted);
  return digest;
}

/** Overlayfs over a store with a blob, two ingests and two snapshots. */
async function stage(t: TestContext): Promise<{ root: string; blob: string } | undefined> {
  const { ok, reason } = await canMount();
  if (!ok) {
    t.skip(`cannot mount: ${reason}`);
    return undefined;
  }
  const dir = await tempDir(t);
  for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(join(dir, name));
  const db = await open(join(dir, 'lower/root'), []);
  const blob = await write(db, 'below');
  for (const ref of ['begun', 'resumed']) {
    const writer = await db.content.writer(ctx, ref);
    await writer.write(Buffer.from('half'));
    await writer.close();
  }
  await db.snapshotter('native')!.prepare(ctx, 'one', '');
  await db.snapshotter('native')!.prepare(ctx, 'two', '', rooted);
  await db.close();
  const options = `lowerdir=${join(dir, 'lower')},upperdir=${join(dir, 'upper')},workdir=${join(dir, 'work')}`;
  sys.mount('overlay', join(dir, 'merged'), 'overlay', 0, options);
  t.after(() => sys.umount(join(dir, 'merged'), UmountFlag.detach));
  return { root: join(dir, 'merged/root'), blob };
}

test('given a root of a lower layer, then it is read and written, and all of it can be removed', async (t) => {
  const place = await stage(t);
  if (place === undefined) return;
  const { root, blob } = place;
  const logged: string[] = [];
  const db = await open(root, logged);
  assert.equal((await db.content.info(ctx, blob)).size, 5);
  const above = await write(db, 'above');
  await db.content.abort(ctx, 'begun');
  const writer = await db.content.writer(ctx, 'resumed');
  await writer.write(Buffer.from(' and half'));
  const whole = digestOf(Buffer.from('half and half'));
  await writer.commit(13, whole, rooted);
  await writer.close();
  const native = db.snapshotter('native')!;
  await native.prepare(ctx, 'three', '');
  for (const name of ['one', 'three']) await native.remove(ctx, name);
  await db.content.delete(ctx, blob);
  const { backendErrors } = await db.garbageCollect();
  assert.equal(backendErrors, 0);
  await db.close();

  const again = await open(root, logged);
  const { content, snapshotter } = layout;
  assert.deepEqual(readdirSync(join(content(root), 'ingest')), []);
  assert.deepEqual(
    readdirSync(join(content(root), 'blobs/sha256')).sort(),
    [above, whole].map((digest) => digest.slice('sha256:'.length)).sort(),
  );
  assert.deepEqual(readdirSync(join(snapshotter(root, 'native'), 'snapshots')), ['2']);
  assert.equal((await again.check()).sound, true);
  await again.close();
  assert.deepEqual(logged, []);
});
