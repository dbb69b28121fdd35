/** containerd.services.snapshots.v1.Snapshots */
import type { Mount, SnapshotInfo } from '../../backends/contract.js';
import { invalidArgument } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import type { Snapshotter } from '../../stores/snapshots.js';
import type { Limits } from '../limits.js';
import { Batches } from '../messages/batches.js';
import { mountMessage, timestampOf } from '../messages/convert.js';
import {
  type FieldMask,
  type MountMessage,
  type SnapshotInfoMessage,
  snapshotKinds,
} from '../messages/messages.js';
import { EMPTY, type Service, stream, unary } from '../service.js';

interface KeyRequest {
  snapshotter: string;
  key: string;
}
interface CreateRequest extends KeyRequest {
  parent: string;
  labels: StringMap;
}
interface CommitRequest extends CreateRequest {
  name: string;
}
interface UpdateRequest {
  snapshotter: string;
  info: SnapshotInfoMessage | null;
  updateMask: FieldMask | null;
}
interface ListRequest {
  snapshotter: string;
  filters: string[];
}

/** What the service calls: a snapshotter of the store, or a wrapper of it. */
export type ServedSnapshotter = Pick<
  Snapshotter,
  'stat' | 'usage' | 'mounts' | 'update' | 'prepare' | 'view' | 'commit' | 'remove' | 'walk' | 'cleanup'
>;

export function snapshotsService(
  limits: Limits,
  snapshotterOf: (name: string) => ServedSnapshotter | undefined,
): Service {
  const find = (name: string): ServedSnapshotter => {
    if (name === '') throw invalidArgument('snapshotter argument missing');
    const snapshotter = snapshotterOf(name);
    if (snapshotter !== undefined) return snapshotter;
    throw invalidArgument(`snapshotter not loaded: ${name}`, { object: name });
  };
  const mountsResponse = (mounts: readonly Mount[]): { mounts: MountMessage[] } => ({
    mounts: mounts.map(mountMessage),
  });

  return {
    name: 'containerd.services.snapshots.v1.Snapshots',
    methods: {
      Prepare: unary(async ({ snapshotter, key, parent, labels }: CreateRequest, { context }) =>
        mountsResponse(await find(snapshotter).prepare(context, key, parent, { labels })),
      ),
      View: unary(async ({ snapshotter, key, parent, labels }: CreateRequest, { context }) =>
        mountsResponse(await find(snapshotter).view(context, key, parent, { labels })),
      ),
      Mounts: unary(async ({ snapshotter, key }: KeyRequest, { context }) =>
        mountsResponse(await find(snapshotter).mounts(context, key)),
      ),
      Commit: unary(async ({ snapshotter, name, key, parent, labels }: CommitRequest, { context }) => {
        await find(snapshotter).commit(context, name, key, { labels, ...(parent !== '' && { parent }) });
        return EMPTY;
      }),
      Remove: unary(async ({ snapshotter, key }: KeyRequest, { context }) => {
        await find(snapshotter).remove(context, key);
        return EMPTY;
      }),
      Stat: unary(async ({ snapshotter, key }: KeyRequest, { context }) => ({
        info: message(await find(snapshotter).stat(context, key)),
      })),
      Update: unary(async ({ snapshotter, info, updateMask }: UpdateRequest, { context }) => {
        const store = find(snapshotter);
        if (info === null) throw invalidArgument('the request has no info');
        return { info: message(await store.update(context, info, ...(updateMask?.paths ?? []))) };
      }),
      List: stream<ListRequest, { info: SnapshotInfoMessage[] }>(
        async ({ snapshotter, filters }, call, send) => {
          const batches = new Batches<SnapshotInfoMessage>(limits, (info) => send({ info }));
          const take = (info: SnapshotInfo): Promise<void> => batches.add(message(info));
          await find(snapshotter).walk(call.cancellable, take, ...filters);
          await batches.flush();
        },
      ),
      Usage: unary(({ snapshotter, key }: KeyRequest, { context }) => find(snapshotter).usage(context, key)),
      Cleanup: unary(async ({ snapshotter }: { snapshotter: string }, { context }) => {
        await find(snapshotter).cleanup(context);
        return EMPTY;
      }),
    },
  };
}

const message = ({ name, parent, kind, labels, created, updated }: SnapshotInfo): SnapshotInfoMessage => ({
  name,
  parent,
  kind: snapshotKinds[kind],
  labels,
  createdAt: timestampOf(created),
  updatedAt: timestampOf(updated),
});
