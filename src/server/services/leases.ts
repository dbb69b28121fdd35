/** containerd.services.leases.v1.Leases */
import { invalidArgument } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import { type Lease, type Resource, withId, withLabels, withRandomId } from '../../stores/leases.js';
import { mapped, timestampOf } from '../messages/convert.js';
import type { LeaseMessage, ResourceMessage } from '../messages/messages.js';
import { EMPTY, list, type Service, type ServiceHost, unary } from '../service.js';

interface ResourceRequest {
  id: string;
  resource: ResourceMessage | null;
}

export function leasesService({ db, collect }: ServiceHost): Service {
  const store = db.leases;
  return {
    name: 'containerd.services.leases.v1.Leases',
    tooLarge: {
      List: 'use filters',
      ListResources: 'ebbtide.v1.Ebbtide streams it',
    },
    methods: {
      Create: unary(async ({ id, labels }: { id: string; labels: StringMap }, { context }) => {
        const lease = await store.create(
          context,
          withLabels(labels),
          id === '' ? withRandomId() : withId(id),
        );
        return { lease: leaseMessage(lease) };
      }),

      Delete: unary(async ({ id, sync }: { id: string; sync: boolean }, call) => {
        await store.delete(call.context, id);
        if (sync) await collect(call.signal);
        return EMPTY;
      }),

      List: list('leases', async ({ filters }: { filters: string[] }, { cancellable }) =>
        mapped(await store.listed(cancellable, ...filters), leaseMessage),
      ),

      AddResource: unary(async (request: ResourceRequest, { context }) => {
        await store.addResource(context, request.id, resourceOf(request));
        return EMPTY;
      }),

      DeleteResource: unary(async (request: ResourceRequest, { context }) => {
        await store.deleteResource(context, request.id, resourceOf(request));
        return EMPTY;
      }),

      ListResources: list('resources', ({ id }: { id: string }, { cancellable }) =>
        store.listResources(cancellable, id),
      ),
    },
  };
}

export const leaseMessage = ({ id, createdAt, labels }: Lease): LeaseMessage => ({
  id,
  createdAt: timestampOf(createdAt),
  labels,
});

function resourceOf({ resource }: ResourceRequest): Resource {
  if (resource === null) throw invalidArgument('the request names no resource');
  return { id: resource.id, type: resource.type };
}
