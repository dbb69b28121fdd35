/**
 * Another program writes into the files of an open store, as a restore by `cp` or `rsync --inplace` does: nothing is written on top, so
 * what it wrote is whole.
 */
import assert from 'node:assert/strict';
import { copyFileSync, cpSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { isKind } from '../../src/errors.js';
import { layout, openDB } from '../../src/open.js';
import { tempDir } from '../support/temp.js';

const ctx = { namespace: 'test' };
const open = (root: string, logged: string[] = []): Promise<DB> =>
  openDB({ root, snapshotters: ['native'], log: (level, message) => logged.push(`${level}: ${message}`) });
const names = async (db: DB): Promise<string[]> => (await db.leases.list(ctx)).map(({ id }) => id).sort();
const refused = (error: unknown): boolean =>
  isKind(error, 'Unavailable') && /another program has written into/.test(String(error));

/** A closed store with the lease `old`, a copy of it, and the store open again, with `new` beside. */
async function stage(t: TestContext): Promise<{ root: string; copy: string; db: DB }> {
  const dir = await tempDir(t);
  const [root, copy] = [join(dir, 'root'), join(dir, 'copy')];
  const first = await open(root);
  await first.leases.create(ctx, { id: 'old' });
  await first.snapshotter('native')!.prepare(ctx, 'before', '');
  await first.close();
  cpSync(root, copy, { recursive: true });
  const db = await open(root);
  await db.leases.create(ctx, { id: 'new' });
  await db.leases.delete(ctx, 'old');
  await db.snapshotter('native')!.prepare(ctx, 'after', '');
  return { root, copy, db };
}

/** In place: the files stay the ones that are open. */
function overwrite(from: string, to: string, names = readdirSync(from)): void {
  for (const name of names) copyFileSync(join(from, name), join(to, name));
}

test('given the files of the records, then writes are refused, and what was written is there when it is opened again', async (t) => {
  const { root, copy, db } = await stage(t);
  overwrite(layout.database(copy), layout.database(root));
  for (let i = 0; i < 2; i++) await assert.rejects(db.leases.create(ctx, { id: 'late' }), refused);
  await assert.rejects(db.leases.delete(ctx, 'new'), refused);
  await db.garbageCollect().catch(() => undefined);
  await db.close();
  await using again = await open(root);
  assert.deepEqual(await names(again), ['old']);
  assert.equal((await again.check()).sound, true);
  await again.leases.create(ctx, { id: 'later' });
});

test('given the tree alone, then it is not written to, and nothing that was acknowledged is mixed into it', async (t) => {
  const { root, copy, db } = await stage(t);
  overwrite(layout.database(copy), layout.database(root), ['meta.mdb']);
  // The log takes it.
  await db.leases.create(ctx, { id: 'logged' });
  await db.close();
  await using again = await open(root);
  // It is the copy, and all that came after it.
  assert.deepEqual(await names(again), ['logged', 'new']);
  assert.deepEqual((await again.check()).findings, []);
});

test('given a tree that lacks what the log no longer has, then it is not written to, nor opened with the rest', async (t) => {
  const { root, copy, db } = await stage(t);
  await db.close();
  const later = await open(root);
  await later.leases.create(ctx, { id: 'later' });
  overwrite(layout.database(copy), layout.database(root), ['meta.mdb']);
  await later.leases.create(ctx, { id: 'logged' });
  await later.close();
  await assert.rejects(open(root), (error) => {
    t.diagnostic(String(error));
    return true;
  });
});

test('given the metadata of a snapshotter, then nothing is written to it', async (t) => {
  const { root, copy, db } = await stage(t);
  overwrite(layout.snapshotter(copy, 'native'), layout.snapshotter(root, 'native'), ['metadata.db']);
  await assert.rejects(db.snapshotter('native')!.prepare(ctx, 'late', ''), refused);
  await db.close();
  await using again = await open(root);
  assert.equal((await again.snapshotter('native')!.stat(ctx, 'before')).name, 'before');
});
