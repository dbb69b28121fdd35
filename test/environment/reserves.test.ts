/**
 * What a full disk is survived by: the reserves. Removals and collections with all of them, several opens in a row; then with
 * one of them removed without the store's knowledge, before the disk is full, which must show. full-disk.test.ts has the verbs.
 */
import assert from 'node:assert/strict';
import { cpSync, readdirSync, renameSync, rmSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { open as openLmdb } from '../../src/system/lmdb/lmdb.js';
import { tempDir } from '../support/temp.js';
import { type Disk, smallDisk } from './small-disk.js';

const ctx = { namespace: 'test' };
const rooted = { labels: { 'containerd.io/gc.root': 'x' } };
/** Blobs, one for each open on the full disk. */
const names = ['a', 'b'];

type Logged = string[];
const open = (root: string, logged: Logged): Promise<DB> =>
  openDB({ root, snapshotters: ['native'], log: (level, message) => logged.push(`${level}: ${message}`) });

async function makeStore(t: TestContext): Promise<string> {
  const root = join(await tempDir(t, 'ebbtide-reserves-'), 'store');
  const db = await open(root, []);
  await db.namespaces.create({}, 'test');
  for (const name of names) {
    const bytes = Buffer.from(name.repeat(5000));
    const target = { mediaType: 'x/y', digest: digestOf(bytes), size: bytes.length };
    await writeBlob(db.content, ctx, name, bytes, target, rooted);
  }
  // Garbage.
  await db.snapshotter('native')!.prepare(ctx, 's', '');
  await db.close();
  await compact(snapshotMetadata(root));
  return root;
}

const snapshotMetadata = (root: string): string => join(layout.snapshotter(root, 'native'), 'metadata.db');

/** Without a free page inside, in which a removal might find room. */
async function compact(path: string): Promise<void> {
  const env = openLmdb({ path, noSubdir: true, maxDbs: 8 });
  await env.backup(`${path}.copy`, true);
  await env.close();
  renameSync(`${path}.copy`, path);
}

/** Reserves, and how each is taken from a closed store. */
const reserves: Readonly<Record<string, (root: string) => void>> = {
  'the log': (root) => {
    for (const name of ['log.0', 'log.1']) truncateSync(join(layout.database(root), name), 0);
  },
  'the tree': (root) => {
    // What has blocks after its end loses them.
    const path = join(layout.database(root), 'meta.mdb');
    truncateSync(path, statSync(path).size);
  },
  'the snapshot metadata': (root) => {
    const path = snapshotMetadata(root);
    truncateSync(path, statSync(path).size);
  },
};

/**
 * Everything that must work with no byte free; throws what does not. A removal comes to the tree before a collection frees
 * bytes, which the tree could use: closing waits for that.
 */
async function removeAll(disk: Disk, root: string): Promise<void> {
  const collect = (): Promise<void> =>
    opened(disk, root, async (db) => {
      const { backendErrors } = await db.garbageCollect();
      assert.equal(backendErrors, 0);
    });
  // The snapshot, before blobs free what its metadata could use.
  await collect();
  for (const name of names) {
    await opened(disk, root, (db) => db.content.delete(ctx, digestOf(Buffer.from(name.repeat(5000)))));
    await collect();
  }
}

/** One use of the store on a full disk, in which nothing may be logged but what it tells. */
async function opened(disk: Disk, root: string, use: (db: DB) => Promise<unknown>): Promise<void> {
  disk.fill();
  const logged: Logged = [];
  const db = await open(root, logged);
  try {
    await use(db);
  } finally {
    await db.close();
  }
  const troubles = logged.filter((line) => !line.startsWith('info'));
  assert.deepEqual(troubles, []);
}

test('given a disk with no byte free, then removals and collections work as long as the reserves are whole', async (t) => {
  const disk = await smallDisk(t, 'tmpfs', 'bytes');
  if (disk === undefined) return;
  const template = await makeStore(t);
  const root = join(disk.path, 'store');
  const onDisk = async (): Promise<void> => {
    cpSync(template, root, { recursive: true });
    // Copies have no blocks after their ends.
    await (await open(root, [])).close();
  };
  const offDisk = (): void => {
    disk.free();
    rmSync(root, { recursive: true });
  };
  await t.test('whole', async (t) => {
    await onDisk();
    t.after(offDisk);
    await removeAll(disk, root);
    assert.deepEqual(readdirSync(join(layout.content(root), 'blobs', 'sha256')), []);
    assert.deepEqual(readdirSync(join(layout.snapshotter(root, 'native'), 'snapshots')), []);
  });
  await t.test('whole, of an earlier layout', async (t) => {
    await onDisk();
    t.after(offDisk);
    const env = openLmdb({ path: join(layout.database(root), 'meta.mdb'), noSubdir: true, maxDbs: 14 });
    const meta = env.openDB<Buffer, string>('meta', { encoding: 'binary' });
    assert.match(String(meta.get('format')), /^ebbtide \d$/);
    await meta.put('format', Buffer.from('ebbtide 2'));
    await env.close();
    disk.fill();
    const logged: Logged = [];
    await (await open(root, logged)).close();
    assert.match(logged.join(), /was brought to layout/);
    await removeAll(disk, root);
  });
  for (const [name, takeAway] of Object.entries(reserves)) {
    await t.test(`without that of ${name} something fails`, async (t) => {
      await onDisk();
      t.after(offDisk);
      takeAway(root);
      await assert.rejects(removeAll(disk, root), (error) => {
        t.diagnostic(String(error).split('\n').slice(0, 6).join(' '));
        return true;
      });
    });
  }
});
