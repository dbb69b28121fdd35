/**
 * The lists that are one message in containerd's API, as streams: any size in bounded memory. Methods of
 * ebbtide.v1.Ebbtide; called by our own command line.
 */
import type { CallContext } from '../../context.js';
import { Pace } from '../../stores/listing.js';
import type { Limits } from '../limits.js';
import { Batches } from '../messages/batches.js';
import { mapped } from '../messages/convert.js';
import { type MethodImpl, type ServiceHost, stream } from '../service.js';
import { statusMessage } from './content.js';
import { imageMessage } from './images.js';
import { leaseMessage } from './leases.js';

interface FilterRequest {
  filters: string[];
}

export function listMethods({ db, limits }: ServiceHost): Record<string, MethodImpl> {
  return {
    Images: list(limits, 'images', async ({ filters }: FilterRequest, context) =>
      mapped(await db.images.listed(context, ...filters), imageMessage),
    ),
    Leases: list(limits, 'leases', async ({ filters }: FilterRequest, context) =>
      mapped(await db.leases.listed(context, ...filters), leaseMessage),
    ),
    LeaseResources: list(limits, 'resources', ({ id }: { id: string }, context) =>
      db.leases.listResources(context, id),
    ),
    Namespaces: list(limits, 'namespaces', async () => {
      const names = await db.namespaces.list({});
      return mapped(names, async (name) => ({ name, labels: await db.namespaces.labels({}, name) }));
    }),
    Ingests: list(limits, 'statuses', async ({ filters }: FilterRequest, context) =>
      mapped(await db.content.listStatuses(context, ...filters), statusMessage),
    ),
  };
}

/** Streams the items in messages with one field. */
function list<Request>(
  limits: Limits,
  field: string,
  items: (request: Request, context: CallContext) => Promise<Iterable<unknown>>,
): MethodImpl {
  return stream<Request, Record<string, unknown[]>>(async (request, { cancellable }, send) => {
    const batches = new Batches<unknown>(limits, (batch) => send({ [field]: batch }));
    const pace = new Pace(cancellable);
    for (const item of await items(request, cancellable)) {
      await batches.add(await item);
      if (pace.isOver) await pace.pass();
    }
    await batches.flush();
  });
}
