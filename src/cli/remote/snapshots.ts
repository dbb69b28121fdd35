/** One snapshotter of a daemon. Called by store.ts. */
import type { Mount, SnapshotInfo, SnapshotKind, Usage } from '../../backends/contract.js';
import type { CallContext } from '../../context.js';
import { instantOf, mountOf } from '../../server/messages/convert.js';
import {
  type MountMessage,
  type SnapshotInfoMessage,
  snapshotKinds,
} from '../../server/messages/messages.js';
import type { SnapshotStore } from '../store.js';
import type { Connection } from './connection.js';

const SNAPSHOTS = 'containerd.services.snapshots.v1.Snapshots';

interface Options {
  labels?: Readonly<Record<string, string>> | undefined;
  parent?: string | undefined;
}

export class RemoteSnapshotter implements SnapshotStore {
  readonly #connection: Connection;
  readonly #name: string;

  constructor(connection: Connection, name: string) {
    this.#connection = connection;
    this.#name = name;
  }

  async stat(ctx: CallContext, key: string): Promise<SnapshotInfo> {
    return infoOf((await this.#unary<{ info: SnapshotInfoMessage }>(ctx, 'Stat', { key })).info);
  }

  usage(ctx: CallContext, key: string): Promise<Usage> {
    return this.#unary<Usage>(ctx, 'Usage', { key });
  }

  mounts(ctx: CallContext, key: string): Promise<Mount[]> {
    return this.#mounts(ctx, 'Mounts', { key });
  }

  prepare(ctx: CallContext, key: string, parent: string, { labels = {} }: Options = {}): Promise<Mount[]> {
    return this.#mounts(ctx, 'Prepare', { key, parent, labels });
  }

  view(ctx: CallContext, key: string, parent: string, { labels = {} }: Options = {}): Promise<Mount[]> {
    return this.#mounts(ctx, 'View', { key, parent, labels });
  }

  async commit(
    ctx: CallContext,
    name: string,
    key: string,
    { labels = {}, parent = '' }: Options = {},
  ): Promise<void> {
    await this.#unary(ctx, 'Commit', { name, key, labels, parent });
  }

  async remove(ctx: CallContext, key: string): Promise<void> {
    await this.#unary(ctx, 'Remove', { key });
  }

  async walk(
    ctx: CallContext,
    fn: (info: SnapshotInfo) => Promise<void> | void,
    ...filters: string[]
  ): Promise<void> {
    const request = { snapshotter: this.#name, filters };
    const batches = this.#connection.stream<{ info: SnapshotInfoMessage[] }>(SNAPSHOTS, 'List', request, ctx);
    for await (const { info } of batches) for (const one of info) await fn(infoOf(one));
  }

  async #mounts(ctx: CallContext, method: string, request: object): Promise<Mount[]> {
    return (await this.#unary<{ mounts: MountMessage[] }>(ctx, method, request)).mounts.map(mountOf);
  }

  #unary<T>(ctx: CallContext, method: string, request: object): Promise<T> {
    return this.#connection.unary<T>(SNAPSHOTS, method, { snapshotter: this.#name, ...request }, ctx);
  }
}

const kindNames = new Map<number, SnapshotKind>(
  Object.entries(snapshotKinds).map(([name, value]) => [value, name as SnapshotKind]),
);

const infoOf = ({
  name,
  parent = '',
  kind = 0,
  createdAt,
  updatedAt,
  labels,
}: SnapshotInfoMessage): SnapshotInfo => ({
  name,
  parent,
  kind: kindNames.get(kind) ?? 'committed',
  labels,
  created: instantOf(createdAt),
  updated: instantOf(updatedAt),
});
