/** Test fixture: a DB in a fresh temporary directory, closed and removed by the test that asked for it. */
import type { TestContext } from 'node:test';
import type { DB } from '../../src/db.js';
import type { OpenOptions } from '../../src/db-options.js';
import { openDB } from '../../src/open.js';
import { sharedTree } from './shared-tree.js';
import { tempDir } from './temp.js';

export { tempDir } from './temp.js';

/** A DB with the native snapshotter; memory engine by default. */
export async function testDB(t: TestContext, options: Partial<OpenOptions> = {}): Promise<DB> {
  const root = options.root ?? (await tempDir(t));
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
  t.after(() => db.close());
  return db;
}
