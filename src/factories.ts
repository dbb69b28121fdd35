/**
 * Creates stores on a DB, under the names that containerd's users know; a DB has the same stores as
 * properties. Called by embedders only. The stores can be used as long as the DB is open.
 */

import type { DB } from './db.js';
import { checkLeaseBackend } from './defaults.js';
import type { Transaction, Transactor } from './engine/contract.js';
import type { ContainerStore } from './stores/containers.js';
import type { ImageStore } from './stores/images.js';
import { LeaseManager } from './stores/leases.js';
import { NamespaceStore } from './stores/namespaces.js';
import type { SandboxStore } from './stores/sandboxes.js';

/** The images of a DB. */
export const newImageStore = (db: DB): ImageStore => db.images;
/** The containers of a DB. */
export const newContainerStore = (db: DB): ContainerStore => db.containers;
/** The sandboxes of a DB. */
export const newSandboxStore = (db: DB): SandboxStore => db.sandboxes;

/**
 * The namespace store on a DB; or, given a transaction of it, one whose every call joins that transaction (unless
 * the call's context carries another).
 */
export function newNamespaceStore(db: DB, tx?: Transaction): NamespaceStore {
  if (tx === undefined) return db.namespaces;
  const { host } = db;
  return new NamespaceStore({
    update: (ctx, fn) => host.update({ ...ctx, tx: ctx.tx ?? tx }, fn),
    read: (ctx, fn) => host.read({ ...ctx, tx: ctx.tx ?? tx }, fn),
    countDeletion: (inTx) => host.countDeletion(inTx),
    markContentDirty: (inTx, removed) => host.markContentDirty(inTx, removed),
  });
}

/**
 * The lease manager on the backend that the DB's option names, or else the current default. InvalidArgument:
 * no such backend. FailedPrecondition: etcd, for an embedded store.
 */
export function newLeaseManager(db: DB): LeaseManager {
  const { engine, leaseBackend } = db;
  checkLeaseBackend(leaseBackend, engine.shared !== undefined);
  if (leaseBackend === 'bolt') return newBoltLeaseManager(db);
  return engine.shared !== undefined ? new LeaseManager(db.host, '') : db.leases;
}

/** The manager of this host's own leases, whatever the options; in an embedded store that is all leases. */
export const newBoltLeaseManager = (db: DB): LeaseManager =>
  db.engine.shared !== undefined ? new LeaseManager(db.host, db.engine.shared.hostId) : db.leases;

/** Direct access to the raw keys and locks: each write is a transaction of its own. */
export const newTransactor = (db: DB): Transactor => db.transactor();
