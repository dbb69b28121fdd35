/**
 * A disk that takes no change, as after an error that made the kernel mount it read-only, seen by one directory at a time: what the
 * system refuses is told as such, never taken for what a backend or an archive is to blame for. Needs root, and chattr.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { EbbtideError } from '../../src/errors.js';
import { importImage } from '../../src/images/import.js';
import { layout } from '../../src/open.js';
import { errorOf, statusOf } from '../../src/server/status.js';
import { isOfSystem } from '../../src/system/system-errors.js';
import { streamOf } from '../archive/support.js';
import { Blobs, ctx, named, tarOfFiles } from '../images/fixtures.js';
import { tempDir, testDB } from '../support/db.js';

/** Nothing in the directory can be made, renamed or removed, also not by root; undefined when that is not possible here. */
function frozen(t: TestContext, dir: string): (() => void) | undefined {
  const set = (how: string): void => void execFileSync('chattr', [how, dir], { stdio: 'pipe' });
  try {
    set('+i');
  } catch (error) {
    t.skip(`cannot make a directory immutable: ${(error as Error).message.split('\n').join(' ')}`);
    return undefined;
  }
  let isFrozen = true;
  const thaw = (): void => {
    if (isFrozen) set('-i');
    isFrozen = false;
  };
  t.after(thaw);
  return thaw;
}

const archiveOf = async (name: string): Promise<Buffer> => {
  const blobs = new Blobs();
  const { manifest } = await blobs.image([[{ name, text: name }]]);
  return tarOfFiles(blobs.layout([named(manifest, name)]));
};

test('given a directory of blobs that takes no change, when an image is imported, then the system is to blame, not the archive', async (t) => {
  const root = await tempDir(t);
  const db = await testDB(t, { root, engine: 'lmdb' });
  await importImage(db, ctx, streamOf(await archiveOf('a')));
  const blobs = join(layout.content(root), 'blobs', 'sha256');
  const thaw = frozen(t, blobs);
  if (thaw === undefined) return;
  const archive = await archiveOf('b');
  const error = await importImage(db, ctx, streamOf(archive)).then(
    () => assert.fail('imported'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof EbbtideError, String(error));
  // As a client of the daemon gets it, too.
  for (const one of [error, errorOf(statusOf(error))]) {
    assert.equal(one.kind, 'FailedPrecondition', String(one));
    assert.ok(isOfSystem(one), String(one));
  }
  assert.ok(error.message.includes(blobs), error.message);
  assert.ok(error.remedy);
  thaw();
  assert.equal((await importImage(db, ctx, streamOf(archive))).length, 1);
});

test('given directories that take no change, when garbage is collected, then what stays is an error, and goes later', async (t) => {
  const root = await tempDir(t);
  const db = await testDB(t, { root, engine: 'lmdb', snapshotters: ['native'] });
  const [image] = await importImage(db, ctx, streamOf(await archiveOf('a')));
  const native = db.snapshotter('native')!;
  await native.prepare(ctx, 's', '');
  const thaws = [
    join(layout.content(root), 'blobs', 'sha256'),
    join(layout.snapshotter(root, 'native'), 'snapshots'),
  ].map((dir) => frozen(t, dir));
  if (thaws.some((thaw) => thaw === undefined)) return;
  await db.images.delete(ctx, image!.name);
  await native.remove(ctx, 's');
  const stats = await db.garbageCollect();
  assert.ok(stats.backendErrors >= 4, `${stats.backendErrors} errors`);
  for (const thaw of thaws) thaw?.();
  const later = await db.garbageCollect();
  assert.equal(later.backendErrors, 0);
  assert.deepEqual([...(await contents(db))], []);
});

async function contents(db: Awaited<ReturnType<typeof testDB>>): Promise<string[]> {
  const found: string[] = [];
  await db.host.content.walk(({ digest }) => void found.push(digest));
  await db.host.backends.get('native')!.walk(({ name }) => void found.push(name));
  return found;
}
