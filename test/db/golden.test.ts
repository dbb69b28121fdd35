/**
 * Stores that earlier versions of this program wrote, in every layout there has been (UPGRADING.md): golden/*.tar.xz, made by
 * golden/make.mjs. Each is opened, has what was written, is brought to the present layout, and works.
 *
 *   layout-1            before there was a log; -log: with the first form of it
 *   layout-2            its log without marks; -marks: with them, without a salt; -salt: with both
 *   layout-3            the present one; -packed: its log with removals by ids
 *   …-closed, …-killed  how the process that wrote it ended
 *   backup-1, plan-1    of layout 2
 *   tree-…              trees in etcd: test/etcd/golden.test.ts
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { restoreBackup } from '../../src/backup/restore.js';
import { LAYOUT, openDatabases } from '../../src/engine/lmdb/tree/databases.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { parsePlan } from '../../src/gc/report/plan.js';
import { layout, openDB } from '../../src/open.js';
import { tempDir } from '../support/temp.js';
import {
  assertContent,
  assertWorks,
  ctx,
  golden,
  namesOf,
  of,
  options,
  skip,
  unpacked,
} from './golden-content.js';

const stores = namesOf(/^layout-\d.*\.tar\.xz$/);

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
