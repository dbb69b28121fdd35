/** containerd.services.sandbox.v1.Store: records only; no sandbox runs here, so there is no controller. */
import { invalidArgument } from '../../errors.js';
import type { Sandbox, SandboxInput } from '../../stores/sandboxes.js';
import { anyMapOf, givenAny, mapped, runtimeOf, timestampOf } from '../messages/convert.js';
import type { SandboxMessage } from '../messages/messages.js';
import { EMPTY, list, type Service, type ServiceHost, unary } from '../service.js';

interface SandboxRequest {
  sandbox: SandboxMessage | null;
  fields?: string[];
}
interface IdRequest {
  sandboxId: string;
}

export function sandboxStoreService({ db }: ServiceHost): Service {
  const store = db.sandboxes;
  return {
    name: 'containerd.services.sandbox.v1.Store',
    tooLarge: { List: 'use filters' },
    methods: {
      Create: unary(async (request: SandboxRequest, { context }) => ({
        sandbox: message(await store.create(context, inputOf(request))),
      })),
      Update: unary(async (request: SandboxRequest, { context }) => ({
        sandbox: message(await store.update(context, inputOf(request), ...(request.fields ?? []))),
      })),
      Delete: unary(async ({ sandboxId }: IdRequest, { context }) => {
        await store.delete(context, sandboxId);
        return EMPTY;
      }),
      List: list('list', async ({ filters }: { filters: string[] }, { cancellable }) =>
        mapped(await store.listed(cancellable, ...filters), message),
      ),
      Get: unary(async ({ sandboxId }: IdRequest, { context }) => ({
        sandbox: message(await store.get(context, sandboxId)),
      })),
    },
  };
}

function inputOf({ sandbox }: SandboxRequest): SandboxInput {
  if (sandbox === null) throw invalidArgument('the request has no sandbox');
  const { sandboxId, labels, runtime, spec, sandboxer, extensions } = sandbox;
  return {
    id: sandboxId,
    labels,
    runtime: runtimeOf(runtime),
    spec: givenAny(spec),
    sandboxer,
    extensions: anyMapOf(extensions),
  };
}

const message = ({ id, createdAt, updatedAt, ...same }: Sandbox): SandboxMessage => ({
  ...same,
  sandboxId: id,
  createdAt: timestampOf(createdAt),
  updatedAt: timestampOf(updatedAt),
});
