/**
 * Process-wide defaults of two switches that matter to stores shared by several hosts. A DB's own options win; a
 * default is read when it is needed, not when the DB is made. Called by db.ts, open.ts, factories.ts and embedders.
 */
import { failedPrecondition, invalidArgument } from './errors.js';

/**
 * Whose leases are: `''` as the other records; `etcd` all hosts'; `bolt` this host's own. In a tree shared over etcd the
 * latter are published there under `<id>@<host>`, so that the collections of other hosts honour them.
 */
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

/** InvalidArgument: no such lease backend. FailedPrecondition: `etcd` without an etcd client. */
export function checkLeaseBackend(name: string = LeaseBackend, overEtcd = false): void {
  if (name === '' || name === 'bolt' || (name === 'etcd' && overEtcd)) return;
  if (name === 'etcd') {
    throw failedPrecondition('leases cannot be kept in etcd: the store has no etcd client', {
      object: name,
      remedy: 'use the lease backend "bolt", or none',
    });
  }
  throw invalidArgument(`there is no lease backend "${name}"`, {
    object: name,
    remedy: 'use "", "bolt" or "etcd"',
  });
}
