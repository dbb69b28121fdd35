/**
 * containerd.services.mounts.v1.Mounts: the mount manager of containerd 2.2. What is mounted, and where it comes from, are paths of
 * the client's that are used with the daemon's rights: only root and the daemon's own user may activate and deactivate.
 */
import { failedPrecondition, notImplemented } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import type { Activation } from '../../stores/mounts/records.js';
import type { Call } from '../call.js';
import { isOwner } from '../connections/peer.js';
import { mountMessage, mountOf, timestampOf } from '../messages/convert.js';
import type { MountMessage, Timestamp } from '../messages/messages.js';
import { EMPTY, type Service, type ServiceHost, stream, unary } from '../service.js';

interface ActivateRequest {
  name: string;
  mounts: MountMessage[];
  labels: StringMap;
  temporary: boolean;
}
interface NameRequest {
  name: string;
}
interface ActivationMessage {
  name: string;
  active: { mount: MountMessage; mountedAt: Timestamp; mountPoint: string; data: StringMap }[];
  system: MountMessage[];
  labels: StringMap;
}

export function mountsService({ db }: ServiceHost): Service {
  const { mounts } = db;
  return {
    name: 'containerd.services.mounts.v1.Mounts',
    methods: {
      Activate: unary(async ({ name, mounts: given, labels, temporary }: ActivateRequest, call) => {
        checkCaller(call);
        return {
          info: message(await mounts.activate(call.context, name, given.map(mountOf), { labels, temporary })),
        };
      }),
      Deactivate: unary(async ({ name }: NameRequest, call) => {
        checkCaller(call);
        await mounts.deactivate(call.context, name);
        return EMPTY;
      }),
      Info: unary(async ({ name }: NameRequest, { context }) => ({
        info: message(await mounts.info(context, name)),
      })),
      // As in containerd 2.2.
      Update: unary(() => {
        throw notImplemented('a mount is not updated', { remedy: 'deactivate it, and activate it again' });
      }),
      List: stream<{ filters: string[] }, { info: ActivationMessage }>(async ({ filters }, call, send) => {
        for (const one of await mounts.list(call.cancellable, ...filters)) await send({ info: message(one) });
      }),
    },
  };
}

function checkCaller({ peer }: Call): void {
  if (isOwner(peer)) return;
  throw failedPrecondition('only root and the user of the daemon may activate mounts through it', {
    remedy: 'run the client as root, or as the user of the daemon',
  });
}

const message = ({ name, active, system, labels }: Activation): ActivationMessage => ({
  name,
  active: active.map(({ mountPoint, mountedAt, ...mount }) => ({
    mount: mountMessage(mount),
    mountedAt: timestampOf(mountedAt),
    mountPoint,
    data: {},
  })),
  system: system.map(mountMessage),
  labels,
});
