/**
 * Process-wide defaults of two switches that matter to stores shared by several hosts. A DB's own options win; a
 * default is read when it is needed, not when the DB is made. Called by db.ts, factories.ts and embedders.
 */
import { failedPrecondition, invalidArgument } from './errors.js';

/** Where leases live: `''` with the other records, `bolt` in the embedded engine, `etcd` in etcd. */
export type LeaseBackendName = '' | 'bolt' | 'etcd';

/** Whether this host collects a tree that it shares over etcd. An embedded store is collected either way. */
export let EnableEtcdGC = false;
/** Where leases live unless a DB is told otherwise. */
export let LeaseBackend: string = '';

export function setEnableEtcdGC(enable: boolean): void {
  EnableEtcdGC = enable;
}

/** Any text is taken; what is wrong with it shows when a lease manager is made. */
export function setLeaseBackend(name: string): void {
  LeaseBackend = name;
}

/**
 * InvalidArgument: no such lease backend. FailedPrecondition: `etcd` without an etcd client; `bolt` with one, since
 * other hosts' collections would not see leases that only this host has.
 */
export function checkLeaseBackend(name: string = LeaseBackend, overEtcd = false): void {
  if (name === '' || name === (overEtcd ? 'etcd' : 'bolt')) return;
  if (name === 'etcd') {
    throw failedPrecondition('leases cannot be kept in etcd: the store has no etcd client', {
      object: name,
      remedy: 'use the lease backend "bolt", or none',
    });
  }
  if (name === 'bolt') {
    throw failedPrecondition('leases of a tree that is shared over etcd cannot be kept on one host', {
      object: name,
      remedy: 'use the lease backend "etcd", or none',
    });
  }
  throw invalidArgument(`there is no lease backend "${name}"`, {
    object: name,
    remedy: 'use "", "bolt" or "etcd"',
  });
}
