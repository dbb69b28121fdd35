/**
 * Trees that earlier versions of this program wrote to etcd, in every layout there has been (UPGRADING.md): test/db/golden/tree-*.tar.xz,
 * each with the directories of the host that wrote it. Loaded into a real etcd, opened by a host of that name, and by a second one.
 *
 *   tree-1              before hosts were listed; -members: the present one
 *   …-closed, …-killed  how the process that wrote it ended, its session over
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { openDB } from '../../src/open.js';
import {
  assertContent,
  assertWorks,
  ctx,
  namesOf,
  of,
  options,
  skip,
  unpacked,
} from '../db/golden-content.js';
import { tempDir } from '../support/temp.js';
import { cluster } from './one-member.js';

const trees = namesOf(/^tree-\d.*\.tar\.xz$/);
const WRITTEN_UNDER = 'golden/';

describe('trees of earlier versions', { skip }, () => {
  /** The root that a tree was written from, and how to open it. */
  async function loaded(t: object, name: string): Promise<{ root: string; etcd: EtcdConfig }> {
    const root = await unpacked(t, name);
    const etcd = cluster.config({ hostId: 'golden', backendId: 'golden' });
    const client = cluster.client(etcd.prefix);
    const pairs = JSON.parse(readFileSync(join(root, 'tree.json'), 'utf8')) as [string, string][];
    const puts = pairs.map(([key, value]) => ({ put: key.slice(WRITTEN_UNDER.length), value }));
    await client.txn([], puts);
    client.close();
    return { root, etcd };
  }

  const sharing = (etcd: EtcdConfig) => ({ ...options, etcd, enableEtcdGC: true }) as const;

  for (const name of trees) {
    test(`given ${name}, when its host opens it, then all of it is there, and it works, also for another host`, async (t) => {
      const { root, etcd } = await loaded(t, name);
      {
        await using db = await openDB({ root, ...sharing(etcd) });
        await assertContent(db);
        await assertWorks(db);
        assert.deepEqual(
          (await db.hosts?.list())?.map(({ id }) => id),
          ['golden'],
        );
        await db.images.create(ctx, {
          name: 'new',
          target: { mediaType: 'x', digest: of('manifest'), size: 8 },
        });
      }
      await using other = await openDB({
        root: join(await tempDir(t), 'other'),
        ...sharing({ ...etcd, hostId: 'other', backendId: 'other' }),
      });
      assert.equal((await other.images.get(ctx, 'new')).target.digest, of('manifest'));
      await other.images.delete(ctx, 'new');
      await using db = await openDB({ root, ...sharing(etcd) });
      await assertContent(db);
    });
  }

  test('every layout there has been has one that was closed and one that was killed', () => {
    for (const form of ['tree-1', 'tree-1-members'])
      for (const end of ['closed', 'killed']) assert.ok(trees.includes(`${form}-${end}.tar.xz`), form);
  });

  test('given a tree of a layout to come, when opened, then it is refused by name and remedy, and nothing is written', async (t) => {
    const { root, etcd } = await loaded(t, 'tree-1-members-closed.tar.xz');
    cluster.etcdctl('put', `${etcd.prefix}v1/version`, 'v2');
    const state = (): string => cluster.etcdctl('get', etcd.prefix ?? '', '--prefix', '-w', 'fields');
    const before = state();
    await assert.rejects(openDB({ root, ...sharing(etcd) }), (error: Error & { remedy?: string }) => {
      assertKind('FailedPrecondition')(error);
      assert.match(error.message, /the tree t\d+\/ in etcd has layout "v2"; this version knows v1/);
      assert.ok(error.remedy);
      return true;
    });
    assert.equal(state(), before);
    // A later revision of the records is not another layout.
    cluster.etcdctl('put', `${etcd.prefix}v1/version`, '5');
    await using db = await openDB({ root, ...sharing(etcd) });
    await assertContent(db);
    assert.equal(cluster.etcdctl('get', `${etcd.prefix}v1/version`, '--print-value-only').trim(), '5');
  });

  test('given a tree of an earlier revision of the records, when opened, then it is migrated', async (t) => {
    const { root, etcd } = await loaded(t, 'tree-1-closed.tar.xz');
    cluster.etcdctl('put', `${etcd.prefix}v1/version`, '0');
    const chain = `${etcd.prefix}v1/golden/snapshots/native/${of('chain')}/children/`;
    cluster.etcdctl('del', chain, '--prefix');
    await using db = await openDB({ root, ...sharing(etcd) });
    await assertContent(db);
    assert.equal(cluster.etcdctl('get', `${etcd.prefix}v1/version`, '--print-value-only').trim(), '4');
    assert.match(cluster.etcdctl('get', chain, '--prefix', '--keys-only'), /children\/work/);
  });
});
