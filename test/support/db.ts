/** Test fixture: a DB in a fresh temporary directory, closed and removed by the test that asked for it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type DB, type OpenOptions, openDB } from '../../src/db.js';
import { sharedTree } from './shared-tree.js';

/** A directory that is removed when the test ends. */
export async function tempDir(t: TestContext, name = 'ebbtide-test-'): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), name));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** A DB with the native snapshotter; memory engine unless told otherwise. */
export async function testDB(t: TestContext, options: Partial<OpenOptions> = {}): Promise<DB> {
  const root = options.root ?? (await mkdtemp(join(tmpdir(), 'ebbtide-test-')));
  const etcd = sharedTree(root);
  const shared = etcd && { etcd, enableEtcdGC: true };
  const db = await openDB({
    engine: 'memory',
    snapshotters: ['native'],
    log: () => {},
    ...shared,
    ...options,
    root,
  });
  t.after(async () => {
    await db.close();
    if (options.root === undefined) await rm(root, { recursive: true, force: true });
  });
  return db;
}
