/**
 * Stores that earlier versions of this program wrote, in every layout there has been (UPGRADING.md): golden/*.tar.xz, made by
 * golden/make.mjs. Each is opened, has what was written, is brought to the present layout, and works.
 *
 *   layout-1            before there was a log; -log: with the first form of it
 *   layout-2            its log without marks; -marks: with them, without a salt; -salt: with both
 *   layout-3            the present one; -packed: its log with removals by ids
 *   …-closed, …-killed  how the process that wrote it ended
 *   backup-1, plan-1    of layout 2
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { restoreBackup } from '../../src/backup/restore.js';
import type { DB } from '../../src/db.js';
import { LAYOUT, openDatabases } from '../../src/engine/lmdb/tree/databases.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { parsePlan } from '../../src/gc/report/plan.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { readBlob } from '../../src/stores/content/content-helpers.js';
import { missingTools } from '../support/debian.js';
import { tempDir } from '../support/temp.js';

const golden = fileURLToPath(new URL('../../../test/db/golden/', import.meta.url));
const skip = missingTools(['xz']) ?? false;
const stores = readdirSync(golden).filter((name) => /^layout-\d.*\.tar\.xz$/.test(name));
const ctx = { namespace: 'golden' };
const options = { snapshotters: ['native'], log: () => undefined } as const;
const of = (text: string): string => digestOf(Buffer.from(text));

async function unpacked(t: object, name: string): Promise<string> {
  const root = join(await tempDir(t), 'root');
  mkdirSync(root);
  const { status, stderr } = spawnSync('tar', ['-xJf', join(golden, name), '-C', root], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return root;
}

/** What make.mjs wrote. */
async function assertContent(db: DB): Promise<void> {
  const images = await db.images.list(ctx);
  const long = `example.com/${'long/'.repeat(500)}name:1`;
  const numbered = Array.from({ length: 20 }, (_, i) => `example.com/image:${i}`);
  assert.deepEqual(images.map(({ name }) => name).sort(), [...numbered, long].sort());
  for (const { name, labels, target } of images) {
    assert.deepEqual([target.digest, target.size], [of('manifest'), 8], name);
    assert.deepEqual(labels, name === long ? {} : { n: name.split(':')[1] });
  }
  assert.deepEqual(
    (await db.images.list({ namespace: 'other' })).map(({ name }) => name),
    ['elsewhere'],
  );
  for (const text of ['layer', 'base', 'manifest']) {
    assert.equal((await db.content.info(ctx, of(text))).size, text.length);
    const reader = await db.content.readerAt(ctx, { digest: of(text) });
    assert.equal((await readBlob(db.content, ctx, { digest: of(text), size: text.length })).toString(), text);
    await reader.close();
  }
  const [half, ...others] = await db.content.listStatuses(ctx);
  assert.deepEqual([half?.ref, half?.offset, others.length], ['half', 10, 0]);
  const web = await db.containers.get(ctx, 'web');
  assert.deepEqual([web.image, web.snapshotKey, web.labels], ['example.com/image:1', 'work', { a: 'b' }]);
  assert.deepEqual(await db.namespaces.labels({}, 'golden'), { colour: 'blue' });
  const snapshotter = db.snapshotter('native');
  const work = await snapshotter?.stat(ctx, 'work');
  assert.deepEqual([work?.parent, work?.kind], [of('chain'), 'active']);
  assert.equal((await snapshotter?.mounts(ctx, 'work'))?.length, 1);
  const [keep] = await db.leases.list(ctx);
  assert.deepEqual([keep?.id, keep?.labels.owner], ['keep', 'ci']);
  assert.deepEqual(await db.leases.listResources(ctx, { id: 'keep' }), [{ type: 'content', id: of('base') }]);
  assert.deepEqual((await db.sandboxes.get(ctx, 'pod')).labels, { p: 'q' });
  assert.deepEqual([...(await db.get('counter'))], [['counter', '7']]);
}

/** It works as a store of this version: what is garbage goes, what is not stays. */
async function assertWorks(db: DB): Promise<void> {
  const report = await db.check({}, { graph: true, hash: true });
  assert.deepEqual(report.findings, []);
  const { removed } = await db.garbageCollect({}, { fullSweep: true });
  assert.deepEqual(removed, { content: 1 });
  await assert.rejects(db.content.info(ctx, of('garbage')), assertKind('NotFound'));
}

describe('stores of earlier versions', { skip }, () => {
  for (const name of stores) {
    test(`given ${name}, when opened, then all of it is there, now and when it is opened again`, async (t) => {
      const root = await unpacked(t, name);
      {
        await using db = await openDB({ root, ...options });
        await assertContent(db);
        await assertWorks(db);
        await db.images.create(ctx, {
          name: 'new',
          target: { mediaType: 'x', digest: of('manifest'), size: 8 },
        });
      }
      await using db = await openDB({ root, ...options });
      await db.images.delete(ctx, 'new');
      await assertContent(db);
    });
  }

  test('every layout there has been has one that was closed and one that was killed', () => {
    for (let n = 1; n <= LAYOUT; n++)
      for (const end of ['closed', 'killed'])
        assert.ok(stores.includes(`layout-${n}-${end}.tar.xz`), `${n} ${end}`);
  });

  test('given a store of a layout to come, when opened, then it is refused by name and remedy, and nothing is written', async (t) => {
    const root = await unpacked(t, `layout-${LAYOUT}-closed.tar.xz`);
    const path = join(layout.database(root), 'meta.mdb');
    const dbs = await openDatabases(path, false);
    await dbs.meta.put('format', Buffer.from(`ebbtide ${LAYOUT + 1}`));
    await dbs.env.close();
    const before = readFileSync(path);
    await assert.rejects(openDB({ root, ...options }), (error: Error & { remedy?: string }) => {
      assertKind('FailedPrecondition')(error);
      assert.match(error.message, new RegExp(`has layout ${LAYOUT + 1}; this version knows ${LAYOUT}`));
      assert.ok(error.remedy);
      return true;
    });
    assert.ok(readFileSync(path).equals(before));
  });

  test('given a backup of an earlier version, when restored, then all of it is there', async (t) => {
    const from = await unpacked(t, 'backup-1.tar.xz');
    const root = join(await tempDir(t), 'restored');
    const { problems } = await restoreBackup(from, root, { hash: true, log: () => undefined });
    assert.equal(problems, 0);
    await using db = await openDB({ root, ...options });
    assert.equal((await db.images.list(ctx)).length, 21);
    await assertWorks(db);
  });

  test('given a plan of an earlier version, when applied to its store, then it removes what it names', async (t) => {
    const root = await unpacked(t, 'layout-2-closed.tar.xz');
    await using db = await openDB({ root, ...options });
    const plan = parsePlan(JSON.parse(readFileSync(join(golden, 'plan-1.json'), 'utf8')));
    const { removed, rest } = await db.applyPlan(plan);
    assert.deepEqual([removed.map(({ key }) => key), rest], [[of('garbage')], []]);
    await assertContent(db);
  });
});
