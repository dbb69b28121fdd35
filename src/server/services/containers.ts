/** containerd.services.containers.v1.Containers. The store publishes no container events, so this does. */
import { invalidArgument } from '../../errors.js';
import type { Container, ContainerInput } from '../../stores/containers.js';
import { Pace } from '../../stores/listing.js';
import { anyMapOf, givenAny, mapped, runtimeOf, timestampOf } from '../messages/convert.js';
import type { ContainerMessage, FieldMask } from '../messages/messages.js';
import { EMPTY, list, type Service, type ServiceHost, stream, unary } from '../service.js';

interface ContainerRequest {
  container: ContainerMessage | null;
  updateMask?: FieldMask | null;
}
interface FilterRequest {
  filters: string[];
}

export function containersService({ db, events }: ServiceHost): Service {
  const store = db.containers;
  return {
    name: 'containerd.services.containers.v1.Containers',
    tooLarge: { List: 'use ListStream, or filters' },
    methods: {
      Get: unary(async ({ id }: { id: string }, { context }) => ({
        container: message(await store.get(context, id)),
      })),

      List: list('containers', async ({ filters }: FilterRequest, { cancellable }) =>
        mapped(await store.listed(cancellable, ...filters), message),
      ),

      ListStream: stream<FilterRequest, { container: ContainerMessage }>(
        async ({ filters }, { cancellable }, send) => {
          const pace = new Pace(cancellable);
          for (const container of await store.listed(cancellable, ...filters)) {
            await send({ container: message(container) });
            if (pace.isOver) await pace.pass();
          }
        },
      ),

      Create: unary(async (request: ContainerRequest, { context }) => {
        const container = await store.create(context, inputOf(request));
        const { id, image, runtime } = container;
        await events.publish(context.namespace ?? '', '/containers/create', { id, image, runtime });
        return { container: message(container) };
      }),

      Update: unary(async (request: ContainerRequest, { context }) => {
        const paths = request.updateMask?.paths ?? [];
        const container = await store.update(context, inputOf(request), ...paths);
        const { id, image, labels, snapshotKey } = container;
        await events.publish(context.namespace ?? '', '/containers/update', {
          id,
          image,
          labels,
          snapshotKey,
        });
        return { container: message(container) };
      }),

      Delete: unary(async ({ id }: { id: string }, { context }) => {
        await store.delete(context, id);
        await events.publish(context.namespace ?? '', '/containers/delete', { id });
        return EMPTY;
      }),
    },
  };
}

function inputOf({ container }: ContainerRequest): ContainerInput {
  if (container === null) throw invalidArgument('the request has no container');
  const { id, labels, image, runtime, spec, snapshotter, snapshotKey, extensions, sandbox } = container;
  return {
    id,
    labels,
    image,
    runtime: runtimeOf(runtime),
    spec: givenAny(spec),
    snapshotter,
    snapshotKey,
    extensions: anyMapOf(extensions),
    sandboxId: sandbox,
  };
}

const message = ({ sandboxId, createdAt, updatedAt, ...same }: Container): ContainerMessage => ({
  ...same,
  sandbox: sandboxId,
  createdAt: timestampOf(createdAt),
  updatedAt: timestampOf(updatedAt),
});
