/**
 * The store as verbs see it: an open DB, or a daemon that has the root. Every verb is written against this
 * interface, so that it works either way.
 */
import type { Mount, SnapshotInfo, Usage } from '../backends/contract.js';
import type { ClusterHosts } from '../cluster-hosts.js';
import type { CallContext } from '../context.js';
import type { DB } from '../db.js';
import type { PolicyPlan } from '../gc/report/plan.js';
import type { LayerSnapshotter } from '../images/services.js';
import type { PolicyState } from '../server/policies.js';

export interface SnapshotStore extends LayerSnapshotter {
  usage(ctx: CallContext, key: string): Promise<Usage>;
  mounts(ctx: CallContext, key: string): Promise<Mount[]>;
  view(
    ctx: CallContext,
    key: string,
    parent: string,
    options?: { labels?: Readonly<Record<string, string>> | undefined },
  ): Promise<Mount[]>;
  walk(
    ctx: CallContext,
    fn: (info: SnapshotInfo) => Promise<void> | void,
    ...filters: string[]
  ): Promise<void>;
}

export type ImageRecords = Pick<DB['images'], 'get' | 'list' | 'create' | 'update' | 'delete'>;
export type ContainerRecords = Pick<DB['containers'], 'list' | 'create' | 'delete'>;
export type LeaseRecords = Pick<DB['leases'], 'create' | 'delete' | 'list' | 'addResource' | 'listResources'>;
export type NamespaceRecords = Pick<DB['namespaces'], 'list' | 'labels' | 'create' | 'setLabel' | 'delete'>;
export type HostRecords = Pick<ClusterHosts, 'list' | 'remove'>;
export type Blobs = Pick<
  DB['content'],
  'info' | 'update' | 'walk' | 'delete' | 'listStatuses' | 'abort' | 'readerAt' | 'writer'
>;

export interface Store extends AsyncDisposable {
  readonly images: ImageRecords;
  readonly content: Blobs;
  readonly containers: ContainerRecords;
  readonly leases: LeaseRecords;
  readonly namespaces: NamespaceRecords;
  snapshotter(name: string): SnapshotStore | undefined;
  snapshotters(): ReadonlyMap<string, SnapshotStore>;
  /** The store may have changed since it was opened. */
  readonly isReadOnly?: boolean;
  /** Undefined if the tree is not shared. */
  readonly hosts: HostRecords | undefined;
  garbageCollect: DB['garbageCollect'];
  planCollection: DB['planCollection'];
  planPolicy: DB['planPolicy'];
  applyPlan: DB['applyPlan'];
  /** The policy that a daemon applies by itself; NotFound when it has none. Undefined without a daemon. */
  readonly policy?: () => Promise<PolicyState>;
  /** A plan of that policy. */
  readonly planOwnPolicy?: (ctx: CallContext) => Promise<PolicyPlan>;
  find: DB['find'];
  why: DB['why'];
  du: DB['du'];
  picture: DB['picture'];
  check: DB['check'];
  backup: DB['backup'];
  history: DB['history'];
}
