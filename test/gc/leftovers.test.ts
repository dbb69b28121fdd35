import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { canMount } from '../../src/backends/mounts.js';
import { removeTreeSync } from '../../src/backends/remove-tree.js';
import { mount, umount } from '../../src/backends/sys.js';
import { digestOf } from '../../src/model/digest.js';
import { layout } from '../../src/open.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { tempDir, testDB } from '../support/db.js';

test('given bytes of an earlier opening under the ref, when it is committed as a shared blob, then a collection takes them', async (t) => {
  const root = await tempDir(t);
  const db = await testDB(t, { root });
  const data = Buffer.from('shared between namespaces');
  const digest = digestOf(data);
  await db.leases.create({ namespace: 'a' }, { id: 'l' });
  await writeBlob(db.content, { namespace: 'a', lease: 'l' }, 'r', data, { digest, size: data.length });

  const b = { namespace: 'b' };
  const early = await db.content.writer(b, 'ref', {});
  await early.write(Buffer.from('half of somet'));
  await early.close();
  const shared = await db.content.writer(b, 'ref', { digest, size: data.length });
  await shared.commit(data.length, digest);
  assert.equal(
    (await readdir(join(layout.content(root), 'ingest'))).length,
    1,
    'the old bytes are still there',
  );

  await db.garbageCollect();
  assert.deepEqual(await readdir(join(layout.content(root), 'ingest')), []);
});

test('given a file system mounted inside, when a tree is removed, then what is mounted stays and is reported', async (t) => {
  const can = await canMount();
  if (!can.ok) return t.skip(`mounts are not permitted: ${can.reason}`);
  const dir = await tempDir(t);
  const tree = join(dir, 'tree');
  mkdirSync(join(tree, 'inside', 'mnt'), { recursive: true });
  writeFileSync(join(tree, 'file'), 'x');
  mount('tmpfs', join(tree, 'inside', 'mnt'), 'tmpfs', 0, '');
  try {
    writeFileSync(join(tree, 'inside', 'mnt', 'precious'), 'x');

    const report = removeTreeSync(tree);

    assert.deepEqual(readdirSync(join(tree, 'inside', 'mnt')), ['precious']);
    assert.deepEqual(readdirSync(tree), ['inside']);
    assert.ok(report.errors.some((e) => /mounted here/.test(e.message)));
  } finally {
    umount(join(tree, 'inside', 'mnt'));
  }
});
