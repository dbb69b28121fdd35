/**
 * Lets tests that make a store of their own make it over etcd: EBBTIDE_TEST_ETCD has the members' URLs, and every
 * root gets a tree of its own. Used by testDB and storeWorld; set by test/etcd/stores.test.ts.
 */
import { basename } from 'node:path';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';

export function sharedTree(root: string): EtcdConfig | undefined {
  const hosts = process.env.EBBTIDE_TEST_ETCD;
  if (hosts === undefined) return undefined;
  return { hosts, prefix: `${basename(root)}/`, hostId: basename(root), sessionTtlSeconds: 10 };
}
