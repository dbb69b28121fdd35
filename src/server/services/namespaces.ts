/**
 * containerd.services.namespaces.v1.Namespaces. The stores publish no namespace events, so this does, as events of the
 * namespace that they are about, as in containerd 2.x.
 */
import { invalidArgument } from '../../errors.js';
import { maskPaths } from '../../model/fieldpaths.js';
import { compactMap, labelOf } from '../../model/labels.js';
import { Pace } from '../../stores/listing.js';
import type { FieldMask, NamespaceMessage } from '../messages/messages.js';
import { EMPTY, list, type Service, type ServiceHost, unary } from '../service.js';

interface NameRequest {
  name: string;
}
interface NamespaceRequest {
  namespace: NamespaceMessage | null;
  updateMask?: FieldMask | null;
}

const LABEL_PATH = 'labels.';

export function namespacesService({ db, events }: ServiceHost): Service {
  const store = db.namespaces;
  const load = async (name: string): Promise<NamespaceMessage> => ({
    name,
    labels: await store.labels({}, name),
  });

  return {
    name: 'containerd.services.namespaces.v1.Namespaces',
    tooLarge: { List: 'ebbtide.v1.Ebbtide streams it' },
    methods: {
      Get: unary(async ({ name }: NameRequest) => ({ namespace: await load(name) })),

      // containerd ignores the filter too.
      List: list('namespaces', async (_request: { filter: string }, { cancellable }) => {
        const namespaces: NamespaceMessage[] = [];
        const pace = new Pace(cancellable);
        for (const name of await store.list({})) {
          namespaces.push(await load(name));
          if (pace.isOver) await pace.pass();
        }
        return namespaces;
      }),

      Create: unary(async (request: NamespaceRequest) => {
        const { name, labels } = required(request);
        await store.create({}, name, compactMap(labels));
        await events.publish(name, '/namespaces/create', { name, labels });
        return { namespace: { name, labels } };
      }),

      Update: unary(async (request: NamespaceRequest) => {
        const { name, labels } = required(request);
        const paths = request.updateMask?.paths ?? [];
        for (const path of paths) {
          if (!path.startsWith(LABEL_PATH)) {
            throw invalidArgument(`cannot update "${path}" field`, { object: name });
          }
        }
        await db.update(async (tx) => {
          const ctx = db.withTransactionContext({}, tx);
          const changed =
            paths.length > 0
              ? [...maskPaths(paths)].map((path) => path.slice(LABEL_PATH.length))
              : [...Object.keys(await store.labels(ctx, name)), ...Object.keys(labels)];
          const changes = changed.map((label) => [label, labelOf(labels, label) ?? ''] as const);
          await store.setLabels(ctx, name, Object.fromEntries(changes));
        });
        await events.publish(name, '/namespaces/update', { name, labels });
        return { namespace: await load(name) };
      }),

      Delete: unary(async ({ name }: NameRequest) => {
        await store.delete({}, name);
        await events.publish(name, '/namespaces/delete', { name });
        return EMPTY;
      }),
    },
  };
}

function required({ namespace }: NamespaceRequest): NamespaceMessage {
  if (namespace === null) throw invalidArgument('the request has no namespace');
  return namespace;
}
