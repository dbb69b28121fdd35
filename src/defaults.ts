/**
 * Process-wide defaults of two options for stores shared by several hosts. A DB's own options override them;
 * a default is read when it is needed, not when the DB is created. Called by db.ts, open.ts, factories.ts and
 * embedders.
 */
import { failedPrecondition, invalidArgument } from './errors.js';

/**
 * Owner of leases: `''` like the other records; `etcd` all hosts; `bolt` this host. In a tree shared over
 * etcd the latter are stored under `<id>@<host>`, so that the collections of other hosts honour them.
 */
export type LeaseBackendName = '' | 'bolt' | 'etcd';

/** Whether this host collects a tree that it shares over etcd. An embedded store is collected either way. */
export let EnableEtcdGC = false;
/** The lease backend of DBs that set none. */
export let LeaseBackend: string = '';

/** The process-wide default of `enableEtcdGC`. */
export function setEnableEtcdGC(enable: boolean): void {
  EnableEtcdGC = enable;
}

/** Accepts any string; an invalid one is reported when a lease manager is created. */
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
